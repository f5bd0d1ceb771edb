"""What the store is made of: the table of keys, open windows, totals, last values, latest rows, and what is sent."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import hashing
from features.logs.logs import Logs
from features.store import state
from features.store.entities import Entities, EntityField
from features.store.hash_index import HashIndex
from features.store.open_windows import OpenWindows
from features.store.request_values import RequestValues
from features.store.totals import HistoryBuffers, RunningBaseRate
from features.transforms.base_rates import BaseRates
from rec.data.session_table import field_type
from rec.errors import SpecError
from rec.spec.features import Id, Kept, Number
from tests.features import tiny

quietly = settings(deadline=None, max_examples=50)
SPEC = tiny.spec()
few = st.lists(st.integers(0, 30), max_size=40)


@quietly
@given(st.lists(few, max_size=6), few)
def test_rows_are_those_of_a_dict(added, wanted):
    """Keys get the next row when they come first, and keep it; many of them want the same slot."""
    rows, expected = HashIndex(), {}
    for batch in added:
        new_rows = rows.add(np.array(batch, np.uint64) << np.uint64(60))
        assert new_rows.tolist() == [expected.setdefault(key % 16, len(expected) + 1) for key in batch]
    places = rows.find(np.array(wanted, np.uint64) << np.uint64(60))
    assert places.tolist() == [expected.get(key % 16, 0) for key in wanted]
    assert (rows.codes() >> np.uint64(60)).tolist() == list(expected)


def test_rows_stay_when_there_are_many():
    """A hundred thousand keys, in batches: the table grows under them."""
    code = hashing.hashed(pl.Series(np.arange(100_000)))
    rows = HashIndex()
    for batch in np.split(code, 10):
        rows.add(batch)
    assert rows.find(code).tolist() == list(range(1, 100_001))
    assert not rows.find(hashing.hashed(pl.Series(np.arange(100_000, 101_000)))).any()


@quietly
@given(st.lists(st.lists(st.integers(0, 20), max_size=8), max_size=6), st.integers(0, 20))
def test_a_tape_is_in_the_order_of_moments_then_of_arrival(batches, forgotten):
    """Whatever is fed late goes behind those of its own moment."""
    open_windows, expected = OpenWindows(pl.DataFrame({"n": [0]}), {"n": np.int64}), []
    for batch in batches:
        time = np.array(sorted(batch), np.int64)
        number = np.arange(len(expected), len(expected) + len(time))
        open_windows.add(pl.DataFrame({"n": number}), {"time": time, "n": number})
        expected += zip(time.tolist(), number.tolist(), strict=True)
    expected.sort(key=lambda entry: entry[0])
    assert list(zip(open_windows.of("time").tolist(), open_windows.of("n").tolist(), strict=True)) == expected
    assert open_windows.rows["n"].to_list() == open_windows.of("n").tolist()
    assert open_windows.before(7) == sum(time < 7 for time, _ in expected)
    open_windows.forget(forgotten)
    assert set(open_windows.of("n").tolist()) >= {number for time, number in expected if time >= forgotten}
    assert open_windows.rows["n"].to_list() == open_windows.of("n").tolist()


@quietly
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), max_size=12), st.integers(1, 4))
def test_a_track_holds_the_newest(done, last):
    """By moment, then by arrival; whatever order they come in."""
    track = HistoryBuffers(last)
    for time, value in done:
        track.insert(3, time, value)
    expected = sorted(done, key=lambda entry: entry[0])[-last:]
    assert list(zip(*(column.tolist() for column in track.read(3, last)), strict=True)) == expected
    assert track.read(4, last)[0].tolist() == []


def test_what_did_not_happen_after_all_is_taken_off_a_track():
    """One of two alike is left."""
    track = HistoryBuffers(3)
    for time, value in [(1, 7), (2, 8), (2, 8)]:
        track.insert(1, time, value)
    track.remove(1, 2, 8)
    track.remove(1, 9, 9)
    assert [column.tolist() for column in track.read(1, 3)] == [[1, 2], [7, 8]]


@quietly
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([-1, 0, 1])), max_size=20), st.integers(0, 6))
def test_a_base_is_that_of_the_hours(outcomes, hour):
    """However the outcomes come, in order, early or late; none where none is known."""
    hours = 3_600_000_000
    known = np.array([h * hours + 5 for h, _ in outcomes], np.int64)
    label = np.array([happened for _, happened in outcomes], np.int8)
    (expected,) = BaseRates.of(known, label).base(np.array([hour * hours + 1])).tolist()
    assert math.isnan(expected) == (not any(h < hour and happened >= 0 for h, happened in outcomes))
    expected = pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    base, half = RunningBaseRate(BaseRates.merged([])), len(outcomes) // 2
    for part in (slice(half), slice(half, None)):
        base.at(hour * hours)
        base.change(known[part], old=np.full(len(known[part]), -1, np.int8), new=label[part])
    assert base.at(hour * hours + 1) == expected
    assert RunningBaseRate(base.hours()).at(hour * hours + 1) == expected


def test_latest_rows_keep_what_is_not_said_again():
    """A key without a row is as row 0, a new one too until something is said of it; what was seen earlier loses."""
    nothing = {"a": pa.array([None], pa.float32()), "words": pa.array([[]], pa.list_(pa.string()))}
    latest = Entities(nothing, {})
    latest.put(["x", "y"], {"a": pa.array([1, 2], pa.float32())})
    latest.see(["y", "z"], np.array([5, 5]), {"words": pa.array([["u"], ["v", "w"]])})
    latest.see(["y", "z"], np.array([4, 6]), {"words": pa.array([["late"], ["new"]])})
    rows = latest.find(["y", "q", "z", "x"])
    assert latest.take(["a"], rows)["a"].to_pylist() == [2, None, None, 1]
    assert latest.take(["words"], rows)["words"].to_pylist() == [["u"], [], ["new"], []]
    assert latest.table(["words"]).to_pylist() == [
        {"@key": "y", "@seen": 5, "words": ["u"]},
        {"@key": "z", "@seen": 6, "words": ["new"]},
    ]


KINDS = [
    (Id(kind="id"), pl.Int64(), st.integers(-5, 5)),
    (Id(kind="id", values="string"), pl.String(), st.sampled_from(["", "a", "\u00e9"])),
    (Id(kind="id", values="string"), pl.Int64(), st.integers(-5, 5)),
    (Kept(kind="kept", values="float"), pl.Float64(), st.sampled_from([0.1, 2.5])),
    (Kept(kind="kept", values="float"), pl.Int64(), st.integers(0, 9)),
    (Number(kind="number"), pl.Float64(), st.floats(-1e9, 1e9)),
    (Number(kind="number"), pl.Int16(), st.integers(-9, 9)),
    (Number(kind="number"), pl.Boolean(), st.booleans()),
]


@quietly
@given(st.data(), st.sampled_from(KINDS))
def test_values_taken_as_they_are_are_those_of_the_pipeline(data, case):
    """The short way and the way of the pipeline give the same column, and the same hashes."""
    feature, kind, values = case
    drawn_column = data.draw(st.lists(st.one_of(st.none(), values), min_size=1, max_size=5))
    field = EntityField("f", "f", field_type(feature), "candidates", feature)
    long = field.of(SPEC, pl.Series("f", drawn_column, kind))
    assert RequestValues(SPEC, "candidates.f", kind, drawn_column).of(field, field.direct(kind)).equals(long)
    if not kind.is_float():
        code, known = RequestValues(SPEC, "candidates.f", kind, drawn_column).hashed
        column = pl.Series("f", drawn_column, kind)
        assert known.tolist() == column.is_not_null().to_list()
        assert code[known].tolist() == hashing.hashed(column)[known].tolist()


CODED = tiny.spec(candidates='cheap = { kind = "number" }\nodd = { kind = "number" }')


def test_columns_made_by_code_are_made_in_the_store_too(tmp_path):
    """What reads a table alone is known of every row of it; what reads impressions is as it was seen last, or sent."""
    (tmp_path / "cheap.py").write_text("def cheap(price):\n    return 1 / price\n")
    (tmp_path / "odd.py").write_text("def odd(clicked, price):\n    return clicked + price\n")
    rows = tiny.frame([(1, 10, 0, 1)])
    logs = Logs.whole(rows.lazy(), None, pl.DataFrame({"item": [10, 11], "price": [4.0, 2.0]}).lazy())
    store = state.empty(CODED, Logs(logs.impressions, items=logs.items, columns=tmp_path))
    store.feed(rows)
    (row,) = store.hydrate(1, [10, 11], 1, candidates={}).to_pylist()
    assert row["candidates"] == [{"item": 10, "cheap": 0.25, "odd": 5.0}, {"item": 11, "cheap": 0.5, "odd": None}]
    (row,) = store.hydrate(1, [11], 1, candidates={"odd": [7.0]}).to_pylist()
    assert row["candidates"][0]["odd"] == 7.0
    state.save(store, tmp_path / "state")
    assert state.load(CODED, tmp_path / "state", columns=tmp_path).hydrate(1, [11], 1).num_rows == 1
    with pytest.raises(SpecError, match=r"logs.columns: 'cheap' is made by code, and no folder of such columns is giv"):
        state.load(CODED, tmp_path / "state")
