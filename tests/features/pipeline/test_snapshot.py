"""The store's first snapshot: what a request just after the log's end would read."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from features.logs.logs import Logs
from features.pipeline import build
from features.pipeline.build import BuildOptions
from rec.data import arrow_file
from rec.data.session_table import TIME, side_fields
from rec.data.stored_rows import OF_LAST
from rec.errors import SpecError
from rec.progress import Silent
from rec.spec import Spec
from tests.features import drawn, tiny
from tests.features.test_twins import built, counted
from tests.reference.logs import EPOCH, end_of, impressions

FIRST = 1_772_323_200  # 2026-03-01
SPEC = tiny.spec(
    context='city = { kind = "id", values = "string" }\nseen = { kind = "ids", make = "history", last = 2 }\n'
    'r = { kind = "number", make = "rate", per = "user", task = "click", prior = 1.0 }',
    candidates='price = { kind = "number" }\nn = { kind = "number", make = "count", per = "item" }',
)
ROWS = [(7, 10, FIRST, 1), (7, 11, FIRST + 1, 0), (3, 10, FIRST + 2, 0), (None, 12, FIRST + 3, 0)]
USERS = pl.DataFrame({"user": [3, 7, 5], "city": ["a", "b", "c"]})
ITEMS = pl.DataFrame({"item": [10, 11, 99], "price": [1.0, 2.0, 9.0]})


def snapshot(folder: Path, side: str, spec: Spec = SPEC, rows: list = ROWS) -> pa.Table:
    """One side of the store of a build."""
    logs = Logs.whole(tiny.frame(rows).lazy(), USERS.lazy(), ITEMS.lazy())
    how = BuildOptions(engine="serial", refusing=False)  # of users and items that no table knows
    build.build(spec, logs, folder / "data", progress=Silent(), how=how)
    with pa.memory_map(str(folder / "data" / "store" / f"{side}.arrow")) as source:
        return pa.ipc.open_file(source).read_all()


def test_users_are_known_as_of_the_logs_end(tmp_path):
    """One row per user of the log or the side table, by key; the last impression is already past."""
    table = snapshot(tmp_path, "context")
    own = [pa.field("@key", pa.int64()), pa.field("@as_of", TIME), pa.field("@seen", TIME)]
    assert table.schema == pa.schema([*own, *side_fields(SPEC.context)])
    assert table["@key"].to_pylist() == table["user"].to_pylist() == [3, 5, 7]
    assert table["city"].to_pylist() == ["a", "c", "b"]
    assert table["seen"].to_pylist() == [[10], [], [10, 11]]
    assert table["r"].to_pylist() == [None] * 3  # of the hours before nothing is known


def test_every_row_says_when_it_was_true(tmp_path):
    """What the past says is as of the log's end, what the last impression said as of that; nobody shown is no older."""
    spec = tiny.spec(
        context='city = { kind = "id", values = "string" }', candidates='by = { kind = "id", column = "user" }'
    )
    users, items = (snapshot(tmp_path / side, side, spec) for side in ("context", "candidates"))
    end = FIRST * 1_000_000 + 3_000_001
    assert users["@as_of"].cast(pa.int64()).to_pylist() == [end] * 3
    seen = [FIRST + 2, FIRST + 1, FIRST + 3]  # of items 10, 11 and 12
    assert items["@seen"].cast(pa.int64()).to_pylist() == [*(1_000_000 * second for second in seen), end]
    marked = [field.name for field in (*users.schema, *items.schema) if field.metadata == OF_LAST]
    assert marked == ["user", "item", "by"]  # the city is of the table of users


def test_a_log_without_timestamps_has_no_moments(tmp_path):
    """Nobody can say how old its features are."""
    text = tiny.SPEC.replace(', time = "time"', "").replace(
        "validation = 2026-03-02T00:00:00Z, test = 2026-03-03T00:00:00Z", 'column = "part"'
    )
    spec = tiny.parse(text.format(context="", candidates="", tasks="", gap=5, window=0))
    rows = tiny.frame(ROWS).with_columns(pl.lit("train").alias("part"))
    how = BuildOptions(engine="serial", refusing=False)
    build.build(spec, Logs.whole(rows.lazy()), tmp_path / "data", progress=Silent(), how=how)
    table = arrow_file.read(tmp_path / "data" / "store" / "context.arrow", what="table")
    assert table["@as_of"].null_count == table["@seen"].null_count == len(table) == 2


def test_rates_are_as_of_the_logs_end(tmp_path):
    """An hour later there is a base: 1 click of the 4 impressions before it."""
    table = snapshot(tmp_path, "context", rows=[*ROWS, (None, 12, FIRST + 3600, 0)])
    base = (1 + 1) / (4 + 2)
    assert table["r"].to_pylist() == pytest.approx([(0 + base) / (1 + 1), base, (1 + base) / (2 + 1)])


def test_items_are_known_as_of_the_logs_end(tmp_path):
    """Items never shown are there with their attributes; items of no side table without."""
    table = snapshot(tmp_path, "candidates")
    assert table["@key"].to_pylist() == [10, 11, 12, 99]
    assert table["price"].to_pylist() == [1.0, 2.0, None, 9.0]
    assert table["n"].to_pylist() == [2.0, 1.0, 1.0, 0.0]


def test_what_is_not_known_yet_is_not_in_the_snapshot(tmp_path):
    """A click whose window is still open at the end of the log is nothing yet."""
    spec = tiny.spec(context='r = { kind = "ids", make = "history", task = "click" }', window=60)
    assert snapshot(tmp_path, "context", spec)["r"].to_pylist() == [[], [], []]


def test_the_latest_attribute_counts(tmp_path):
    """An attribute of impressions is as it was seen last, whatever the order of the file."""
    spec = tiny.spec(candidates='place = { kind = "number", column = "user" }')
    rows = [(2, 10, FIRST + 9, 0), (1, 10, FIRST, 0)]
    assert snapshot(tmp_path, "candidates", spec, rows)["place"].to_pylist()[0] == 2.0


def test_keys_that_are_text_are_sorted_as_text(tmp_path):
    """The store searches them so."""
    rows = [(1, item, FIRST, 0) for item in (9, 10, 100)]
    text = tiny.SPEC.replace('item = {{ kind = "id" }}', 'item = {{ kind = "id", values = "string" }}')
    spec = tiny.parse(text.format(context="", candidates="", tasks="", gap=5, window=0))
    assert snapshot(tmp_path, "candidates", spec, rows)["@key"].to_pylist() == ["10", "100", "11", "9", "99"]


def test_a_key_that_is_no_id_is_refused():
    """A number cannot be looked up."""
    text = tiny.SPEC.replace('[context]\nuser = {{ kind = "id" }}', '[context]\nuser = {{ kind = "number" }}')
    with pytest.raises(SpecError, match=r"context.user: expected an id or a kept int or string, since it is keys.user"):
        tiny.parse(text.format(context="", candidates="", tasks="", gap=5, window=0))


PAST = ("seen", "sorts", "stays", "ago", "user_", "home_", "where", "age", "home", "likes", "query", "city")
OF_ITEM = ("item_", "sort_n", "taste", "category", "price", "listed", "picture")


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(drawn.logs(by_request=True))
def test_the_store_holds_what_a_request_just_after_the_logs_end_would_see(log):
    """Of every user of the logs or their table, and of every item: the slow twin's row of one more impression."""
    usable = [row for row in log.rows if row["item"] is not None]
    just_after = max(row["time"] for row in usable) + 1
    nothing = dict.fromkeys(log.kinds)
    latest = {row["user"]: row for row in sorted(usable, key=lambda row: row["time"])}
    users = {row["user"] for row in usable} - {None} | {user for user, held in (log.users or {}).items() if held}
    items = {row["item"] for row in usable} | {item for item, held in (log.items or {}).items() if held}
    more = {"time": just_after, "clicked_time": None}
    more = {column: value for column, value in more.items() if column in log.kinds}
    requests = [{**latest.get(user, nothing), "user": user, "item": -1, "rid": f"user/{user}"} for user in users]
    requests += [{**nothing, "item": item, "rid": f"item/{item}"} for item in items]
    end = end_of(log.spec, impressions(log.spec, log.rows, drawn.SAYS), log.events, drawn.SAYS)
    rules = log.spec.logs.model_copy(update={"end": EPOCH + timedelta(microseconds=end)})  # the asking ends nothing
    later = replace(
        log, spec=log.spec.model_copy(update={"logs": rules}), rows=[*log.rows, *({**r, **more} for r in requests)]
    )
    twin = {row["request_id"]: row for rows in later.twin().values() for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        built(log.spec, log.logs(), Path(folder), rows=8)
        for side, of, names in (("context", "user", PAST), ("candidates", "item", OF_ITEM)):
            table = arrow_file.read(Path(folder) / "data" / "store" / f"{side}.arrow", what="store")
            actual = {row["@key"]: counted(row) for row in table.to_pylist()}
            assert set(actual) == (users if of == "user" else items)
            for key, row in actual.items():
                said = twin[f"{of}/{key}"]
                said = said["context"] if of == "user" else said["candidates"][0]
                chosen = [name for name in said if name.startswith(names)]
                assert {name: row[name] for name in chosen} == {name: said[name] for name in chosen}
