"""The features of specs/shop.toml as an expert writes them in polars: cumulative sums of keys, `join_asof`, `group_by`.

Whatever is counted was known strictly before the request began: an impression when it is shown, a click 10 minutes and
a purchase 2 days after it. The result are session tables of the same columns, one Arrow file per split.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa

from benchmarks.speed.shop_files import UNREAD
from rec.atomic import flush

LAG = {None: timedelta(0), "click": timedelta(minutes=10), "buy": timedelta(days=2)}
EDGES = [datetime(2026, 3, day, tzinfo=UTC) for day in (12, 14)]
LAST = 20
CONTEXT = [
    "user_id",
    "age",
    "city",
    "device",
    "section",
    "member",
    "clicked",
    "categories",
    "user_shown",
    "user_click",
    "user_buy",
]
CANDIDATES = [
    "item_id",
    "category",
    "brand",
    "seller_id",
    "price",
    "listed",
    "item_shown",
    "item_click",
    "item_buy",
    "seller_buy",
    "position",
    "p_click",
    "p_buy",
    "click",
    "buy",
]


def features(shop: Path, out: Path) -> int:
    """Write train, validation and test to `out`; how many candidates there are."""
    log = pl.scan_parquet(shop / "impressions" / "*.parquet").drop(UNREAD).sort("time", maintain_order=True).collect()
    end = log.select(pl.max_horizontal(pl.col("time", "click_time", "buy_time").max())).item()
    items = pl.read_parquet(shop / "items.parquet").with_columns(pl.col("price").cast(pl.Float32))
    users = pl.read_parquet(shop / "users.parquet").rename({"joined": "member"})
    first = pl.col("time").first().alias("begin"), pl.col("user_id", "device", "section").first()
    requests = log.group_by("request_id", maintain_order=True).agg(*first).with_row_index("request")
    requests = requests.hstack(together(base(log, requests, "click"), base(log, requests, "buy")))
    of_request = requests.select("request_id", "request", "begin", "click_base", "buy_base")
    log = log.drop("click_time", "buy_time", "device", "section")
    log = log.join(items, on="item_id", how="left", maintain_order="left")
    log = log.join(of_request, on="request_id", how="left", maintain_order="left").drop("request_id")
    requests_of_items = log.select("item_id", "seller_id", "begin", "request", "click_base", "buy_base").with_row_index(
        "row"
    )
    requests_of_items = requests_of_items.sort("request", maintain_order=True)
    requests = requests.hstack(_of_users(log, requests)).hstack(histories(log, requests))
    requests = requests.join(
        users.with_columns(pl.col("age").cast(pl.Float32)), on="user_id", how="left", maintain_order="left"
    )
    counted = _of_items(log, requests_of_items)
    known = (pl.when(pl.col("time") + LAG[e] <= end).then(e).otherwise(pl.lit(-1, pl.Int8)).alias(e) for e in LAG if e)
    candidates = log.with_columns(known).select("request", *(c for c in CANDIDATES if c in log.columns))
    listed = candidates[requests_of_items["row"]].hstack(counted).group_by("request", maintain_order=True)
    table = requests.select("request_id", pl.col("begin").alias("time"), context=pl.struct(CONTEXT))
    table = table.hstack(listed.agg(candidates=pl.struct(CANDIDATES)).select("candidates"))
    _write(table, out)
    return len(log)


def _of_users(log: pl.DataFrame, requests: pl.DataFrame) -> pl.DataFrame:
    user = past(log, "user_id", "click", "buy").collect().lazy()
    rates = (rate(user, requests, "user_id", event, 20.0) for event in ("click", "buy"))
    return together(count(user, requests, "user_id"), *rates)


def _of_items(log: pl.DataFrame, requests: pl.DataFrame) -> pl.DataFrame:
    item = past(log, "item_id", "click", "buy").collect().lazy()
    return together(
        count(item, requests, "item_id"),
        rate(item, requests, "item_id", "click", 20.0),
        rate(item, requests, "item_id", "buy", 100.0),
        rate(past(log, "seller_id", "buy"), requests, "seller_id", "buy", 100.0),
    )


def past(log: pl.DataFrame, key: str, *events: str) -> pl.LazyFrame:
    """Running sums of a key's impressions, in order of time."""
    shown = pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).over(key).alias("shown")
    return log.lazy().select(key, "time", shown, *(pl.col(e).cast(pl.Int32).cum_sum().over(key) for e in events))


def seen(known: pl.LazyFrame, requests: pl.DataFrame, key: str, event: str | None) -> pl.LazyFrame:
    """What was known of each row's key strictly before it began; both in order of time."""
    questions = requests.lazy().select(key, (pl.col("begin") - LAG[event]).alias("time"))
    return questions.join_asof(known, on="time", by=key, allow_exact_matches=False, check_sortedness=False)


def count(known: pl.LazyFrame, requests: pl.DataFrame, key: str) -> pl.LazyFrame:
    """How often the key was shown before."""
    shown = pl.col("shown").fill_null(0).cast(pl.Float32)
    return seen(known, requests, key, None).select(shown.alias(f"{key.removesuffix('_id')}_shown"))


def rate(known: pl.LazyFrame, requests: pl.DataFrame, key: str, event: str, prior: float) -> pl.LazyFrame:
    """The key's rate of an event before, drawn towards that of everybody."""
    totals = seen(known, requests, key, event).select("shown", happened=event)
    both = pl.concat([totals, requests.lazy().select(base=f"{event}_base")], how="horizontal")
    happened = pl.col("happened").fill_null(0) + prior * pl.col("base")
    smoothed = happened / (pl.col("shown").fill_null(0) + prior)
    return both.select(smoothed.cast(pl.Float32).alias(f"{key.removesuffix('_id')}_{event}"))


def base(log: pl.DataFrame, requests: pl.DataFrame, event: str) -> pl.LazyFrame:
    """The rate of an event over everybody, as of the whole hour."""
    hour = (pl.col("time") + LAG[event]).dt.truncate("1h")
    hours = log.lazy().group_by(hour=hour).agg(n=pl.len(), y=pl.col(event).cast(pl.Int64).sum()).sort("hour")
    hours = hours.select("hour", ((pl.col("y").cum_sum() + 1) / (pl.col("n").cum_sum() + 2)).alias(f"{event}_base"))
    starts = requests.lazy().select(pl.col("begin").dt.truncate("1h").alias("hour"))
    return starts.join_asof(hours, on="hour", allow_exact_matches=False).select(f"{event}_base")


def histories(log: pl.DataFrame, requests: pl.DataFrame) -> list[pl.Series]:
    """The last values that the user of each request had clicked, oldest first."""
    clicks = log.filter(pl.col("click") == 1).select("user_id", "time", "item_id", "category")
    clicks = clicks.sort("user_id", maintain_order=True)
    number = pl.int_range(1, pl.len() + 1).over("user_id")
    known = clicks.lazy().select("user_id", "time", n=number).with_row_index("last").sort("time", maintain_order=True)
    length = pl.col("n").fill_null(0).clip(upper_bound=LAST)
    ends = seen(known, requests, "user_id", "click").select(end=pl.col("last").fill_null(0) + 1, length=length)
    ends = ends.collect(engine="in-memory")
    places = ends.select(pl.int_ranges(pl.col("end") - pl.col("length"), "end")).to_series()
    places = places.explode(empty_as_null=False)
    offsets = pl.concat([pl.Series([0]), ends["length"].cum_sum()]).to_arrow()
    histories_of = []
    for column, name in (("item_id", "clicked"), ("category", "categories")):
        lists = pa.LargeListArray.from_arrays(offsets, clicks[column].gather(places).to_arrow())
        histories_of.append(pl.Series(pl.from_arrow(lists)).alias(name))
    return histories_of


def together(*frames: pl.LazyFrame) -> pl.DataFrame:
    """Frames of one length, computed at once, side by side."""
    return pl.concat(pl.collect_all(frames, engine="in-memory"), how="horizontal")


def _write(table: pl.DataFrame, out: Path) -> None:
    out.mkdir(parents=True)
    cuts = [0, *(int(table["time"].search_sorted(edge)) for edge in EDGES), len(table)]
    for name, low, high in zip(("train", "validation", "test"), cuts[:-1], cuts[1:], strict=True):
        table[low:high].write_ipc(out / f"{name}.arrow")
    for file in out.iterdir():
        flush(file)
