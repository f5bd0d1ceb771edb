"""The features of specs/shop.toml as a competent analyst writes them in pandas: groupby, cumsum, merge_asof.

Counts are point in time, strictly before the request: an impression is known when shown, a click 10 minutes and a
purchase 2 days after it. The result is a table of requests and one of candidates per split, in Parquet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.speed.shop_files import UNREAD

Frame = Any  # a table or a column; pandas itself has no types that can be checked
WINDOWS = {"click": pd.Timedelta("10min"), "buy": pd.Timedelta("2D")}
SPLITS = {"validation": "2026-03-12", "test": "2026-03-14"}
LAST = 20
OF_REQUEST = ["request_id", "user_id", "device", "section", "begin", "age", "city", "joined"]


def features(shop: Path, out: Path) -> int:
    """Write `requests` and `candidates` of every split to `out`; how many candidates there are."""
    log = read(shop)
    log["begin"] = log.groupby("request_id")["time"].transform("min")
    log = close(log)
    requests = log.drop_duplicates("request_id")[OF_REQUEST].reset_index(drop=True)
    requests["hour"], requests["weekday"] = requests["begin"].dt.hour, requests["begin"].dt.day_of_week
    requests["clicked"] = history(log, requests, "item_id")
    requests["categories"] = history(log, requests, "category")
    requests["user_shown"] = count(log, requests, "user_id")
    requests["user_click"] = rate(log, requests, "user_id", event="click")
    requests["user_buy"] = rate(log, requests, "user_id", event="buy")
    log["item_shown"] = count(log, log, "item_id")
    log["item_click"] = rate(log, log, "item_id", event="click")
    log["item_buy"] = rate(log, log, "item_id", event="buy", prior=100.0)
    log["seller_buy"] = rate(log, log, "seller_id", event="buy", prior=100.0)
    candidates = log.drop(columns=[column for column in OF_REQUEST if column not in ("request_id", "begin")])
    out.mkdir(parents=True)
    for name, table in {"requests": requests, "candidates": candidates}.items():
        for split, rows in table.groupby(split_of(table["begin"])):
            rows.to_parquet(out / f"{name}-{split}.parquet", index=False)
    return len(log)


def read(shop: Path) -> Frame:
    """The impressions joined with users and items."""
    files = sorted((shop / "impressions").glob("*.parquet"))
    log: Frame = pd.concat([pd.read_parquet(file).drop(columns=list(UNREAD)) for file in files], ignore_index=True)
    for key in ("user", "item"):
        log = log.merge(pd.read_parquet(shop / f"{key}s.parquet"), on=f"{key}_id", how="left")
    return log


def close(log: Frame) -> Frame:
    """The log with -1 for labels whose window was still open when it ended."""
    end = log[["time", "click_time", "buy_time"]].max().max()
    for event, window in WINDOWS.items():
        log[event] = log[event].where(log["time"] + window <= end, -1)
    return log.drop(columns=["click_time", "buy_time"])


def split_of(begin: Frame) -> Frame:
    """train, validation or test."""
    edges = [pd.Timestamp(day, tz="UTC") for day in SPLITS.values()]
    places = np.searchsorted(pd.DatetimeIndex(edges).as_unit("us"), pd.DatetimeIndex(begin), side="right")
    return pd.Series(np.array(["train", *SPLITS])[places], index=begin.index)


def seen(log: Frame, requests: Frame, key: str, event: str | None) -> Frame:
    """For every row asked about: `shown` and `happened` of its key before it began."""
    known = log[[key, "time"]].assign(event=0 if event is None else log[event])
    known = known[known["event"] >= 0]
    if event is not None:
        known["time"] += WINDOWS[event]
    known = known.dropna(subset=[key]).sort_values("time", kind="stable")
    by_key = known.groupby(key)["event"]
    known["shown"], known["happened"] = by_key.cumcount() + 1, by_key.cumsum()
    questions = requests[[key, "begin"]].reset_index(names="row").sort_values("begin")
    counts: Frame = pd.merge_asof(
        questions, known, left_on="begin", right_on="time", by=key, allow_exact_matches=False
    ).set_index("row")
    counts = counts[["shown", "happened"]].fillna(0)
    counts.loc[questions.set_index("row")[key].isna()] = np.nan
    return counts.reindex(requests.index)


def count(log: Frame, requests: Frame, key: str) -> Frame:
    """How often the key was shown before."""
    return seen(log, requests, key, None)["shown"].astype("float32")


def rate(log: Frame, requests: Frame, key: str, *, event: str, prior: float = 20.0) -> Frame:
    """The key's rate of an event before, drawn towards that of everything up to the whole hour, if there was any."""
    counts = seen(log, requests, key, event)
    known = log.loc[log[event] >= 0, ["time", event]].sort_values("time")
    moments = pd.DatetimeIndex(known["time"] + WINDOWS[event])
    places = np.searchsorted(moments, pd.DatetimeIndex(requests["begin"].dt.floor("h")))
    happened = np.concatenate([[0], known[event].cumsum()])[places]
    base = np.where(places > 0, (happened + 1) / (places + 2), np.nan)
    return ((counts["happened"] + prior * base) / (counts["shown"] + prior)).astype("float32")


def history(log: Frame, requests: Frame, column: str) -> list[np.ndarray]:
    """The last values among what the user of each request had clicked, oldest first."""
    clicks = log[log["click"] == 1].dropna(subset=[column]).sort_values("time", kind="stable")
    clicks["time"] += WINDOWS["click"]
    of_user = {user: (rows["time"].to_numpy(), rows[column].to_numpy()) for user, rows in clicks.groupby("user_id")}
    nothing = clicks["time"].to_numpy()[:0], clicks[column].to_numpy()[:0]
    lists = []
    for user, begin in zip(requests["user_id"], requests["begin"].to_numpy(), strict=True):
        known, values = of_user.get(user, nothing)
        end = np.searchsorted(known, begin)
        lists.append(values[max(0, end - LAST) : end])
    return lists
