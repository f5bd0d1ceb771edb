"""Columns made by code in every place of a spec: as if the logs had them, with side tables as of today or dated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features import sources
from features.pipeline import build
from features.pipeline.build import BuildOptions
from features.store import state
from rec.errors import SpecError
from rec.progress import Silent
from rec.spec import parse

SPEC = """
name = "x"
source = {{ kind = "impressions", files = "log.parquet", users = "users.parquet", items = "items.parquet"{since} }}
keys = {{ user = "user", item = "item", time = "time" }}
split = {{ validation = 2026-03-03T00:00:00Z, test = 2026-03-04T00:00:00Z }}
evaluate = {{ group = "band" }}
{columns}
[context]
user = {{ kind = "id" }}
device_name = {{ kind = "id", values = "string" }}
words = {{ kind = "ids", make = "tokens", values = "string", last = 4 }}
band = {{ kind = "kept" }}
user_rank = {{ kind = "number" }}
bands = {{ kind = "ids", make = "history", task = "click", column = "band", last = 5 }}
brands = {{ kind = "ids", make = "history", task = "click", column = "brand", last = 5, values = "string" }}
prices = {{ kind = "ids", make = "history", task = "click", column = "double", last = 5, buckets = true }}
price = {{ kind = "number", make = "mean", per = "user", column = "item_rank", task = "click" }}
on_device = {{ kind = "number", make = "count", per = "device_name" }}
earlier = {{ kind = "number", make = "session_requests" }}
[candidates]
item = {{ kind = "id" }}
brand = {{ kind = "id", values = "string" }}
double = {{ kind = "number" }}
logged = {{ kind = "number", column = "double", scale = "log" }}
item_rank = {{ kind = "number" }}
cheap = {{ kind = "id", column = "band", bias = true }}
age = {{ kind = "number", make = "age", column = "born" }}
crossed = {{ kind = "id", make = "cross", of = ["user", "brand"], rows = 50 }}
place = {{ kind = "number", make = "rank", of = "double" }}
shown = {{ kind = "number", make = "count", per = "band" }}
first = {{ kind = "number", make = "since_first", per = "band" }}
taste = {{ kind = "number", make = "rate", per = ["user", "brand"], task = "click", half_life = "1d" }}
pair = {{ kind = "number", make = "rate", per = ["user_rank", "brand"], task = "long", given = "click" }}
clicks = {{ kind = "number", make = "coec", per = "brand", task = "click" }}
views = {{ kind = "number", make = "expected", per = "item", matching = "page_id" }}
as_page = {{ kind = "number", make = "count", per = "page_id", matching = "page" }}
spent = {{ kind = "number", make = "mean", per = "item", column = "double", task = "read" }}
[sessions]
gap = "1h"
[tasks.click]
label = "clicked"
window = "1m"
sample_weight = "weight"
[tasks.long]
label = "long_read"
given = "click"
window = "1m"
[events.read]
label = "long_read"
window = "1m"
"""
CODE = {  # column: its table, what it reads, and what is returned
    "device_name": ("log", "device", "device.str.to_uppercase()"),
    "words": ("log", "device", "device + ' one two'"),
    "band": ("log", "device", "device.str.len_chars().cast(int)"),
    "double": ("log", "price", "price * 2"),
    "born": ("log", "time", "time.dt.offset_by('-3d')"),
    "finished": ("log", "time", "time.dt.offset_by('9s')"),
    "page_id": ("log", "page", "page + 0"),
    "weight": ("log", "price", "price / 2"),
    "long_read": ("log", "clicked, dwell", "((clicked == 1) & (dwell > 10)).cast(int)"),
    "user_rank": ("users", "level", "level + 1"),
    "brand": ("items", "maker", "maker.str.to_uppercase()"),
    "item_rank": ("items", "stock", "stock * 2"),
}
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


def tables(*, dated: bool) -> dict[str, pl.DataFrame]:
    """A log of three days, and tables of users and items of which one item has no row."""
    draw, count = np.random.default_rng(1), 300
    log = {
        name: draw.integers(1, most, count) for name, most in (("user", 6), ("item", 12), ("page", 12), ("price", 9))
    }
    log |= {"clicked": draw.integers(0, 2, count), "dwell": draw.integers(0, 60, count).astype(float)}
    log["device"] = draw.choice(["phone", "desk"], count)
    minutes = np.sort(draw.integers(0, 5000, count)).tolist()
    log["time"] = [BEGIN + timedelta(minutes=minute) for minute in minutes]
    moments = [BEGIN + timedelta(minutes=1000 * n + 7) for n in range(3 if dated else 1)]
    since = [{"since": moment} if dated else {} for moment in moments]
    users = [{"user": k, "level": (k + 3 * n) % 5, **when} for k in range(1, 6) for n, when in enumerate(since)]
    items = [
        {"item": k, "maker": f"m{(k + n) % 4}", "stock": float(k * n), **when}
        for k in range(1, 11)
        for n, when in enumerate(since)
    ]
    return {"log": pl.DataFrame(log), "users": pl.DataFrame(users), "items": pl.DataFrame(items)}


def written(folder: Path, *, dated: bool, coded: bool, spec: str = SPEC) -> str:
    """The files of a log in a folder, its columns made by code or in the files; the spec."""
    every = tables(dated=dated)
    (folder / "columns").mkdir(parents=True)
    for name, (table, reads, returned) in CODE.items():
        text = f"def {name}({reads}):\n    return {returned}\n"
        if coded:
            (folder / "columns" / f"{name}.py").write_text(text)
        else:
            value = eval(returned, {column: pl.col(column) for column in reads.split(", ")})  # CODE's own
            every[table] = every[table].with_columns(value.alias(name))
    for name, rows in every.items():
        rows.write_parquet(folder / f"{name}.parquet")
    since = ', users_since = "since", items_since = "since"' if dated else ""
    return spec.format(since=since, columns='[logs]\ncolumns = "columns"\n' if coded else "")


def built(folder: Path, text: str) -> dict[str, pl.DataFrame]:
    """The tables of a build, and of its store's state."""
    spec = parse(text)
    how = BuildOptions(engine="serial", snapshot=True)
    build.build(spec, sources.read(spec, folder), folder / "data", progress=Silent(), how=how)
    files = [*folder.glob("data/*/part-*.arrow"), *folder.rglob("data/**/requests.arrow")]
    return {str(path.relative_to(folder)): pl.read_ipc(path) for path in files}


@pytest.mark.parametrize("dated", [False, True])
def test_a_column_made_by_code_is_a_column_in_every_place(dated, tmp_path):
    """Session tables are equal, row by row, and so is what the store knows of the newest requests."""
    plain, coded = (
        built(tmp_path / name, written(tmp_path / name, dated=dated, coded=name == "coded"))
        for name in ("plain", "coded")
    )
    assert sorted(plain) == sorted(coded)
    assert len(plain) == 4
    for name, rows in plain.items():
        assert rows.equals(coded[name], null_equal=True), name


def test_requests_are_parted_online_as_they_are_offline(tmp_path):
    """By the value of a column made by code: the state of a store that was fed is that of the build."""
    text = written(tmp_path, dated=False, coded=True)
    (of_build,) = (rows for name, rows in built(tmp_path, text).items() if name.endswith("requests.arrow"))
    spec = parse(text)
    store = state.empty(spec, sources.read(spec, tmp_path))
    log = tables(dated=False)["log"]
    for rows in (log[:100], log[100:]):
        store.feed(rows)
    state.save(store, tmp_path / "fed")
    fed = pl.read_ipc(tmp_path / "fed" / "requests.arrow")
    assert fed.select("key", "mark", "begin").sort("key").equals(of_build.select("key", "mark", "begin").sort("key"))


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        ("keys.session", 'time = "time" }}', 'time = "time", session = "band" }}'),
        ("tasks.click.time", 'sample_weight = "weight"', 'time = "finished"'),
    ],
)
def test_keys_and_times_are_columns_of_the_logs(place, old, new, tmp_path):
    """A column is made of rows that have them already: the place and the file are named."""
    text = written(tmp_path, dated=False, coded=True, spec=SPEC.replace(old, new))
    with pytest.raises(
        SpecError, match=rf"{place}: '(band|finished)' is made by (band|finished)\.py, which reads rows that have"
    ):
        built(tmp_path, text)
