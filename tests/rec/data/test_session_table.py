"""The one door: session-table rows in, batches out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data import session_table, splits
from rec.errors import DataError
from rec.spec import parse
from tests import strategies
from tests.reference import door as slow
from tests.strategies import encoders

SPEC = parse("""
name = "x"
[keys]
time = "t"
[split]
column = "split"
[context]
user = { kind = "id" }
hour = { kind = "id", make = "hour" }
day = { kind = "id", make = "weekday" }
past = { kind = "ids", table = "item", last = 3 }
[candidates]
item = { kind = "id" }
price = { kind = "number" }
born = { kind = "number", make = "age" }
[tasks.click]
label = "c"
""")
DAY = 86_400_000_000


def rows(*contexts, candidates=((),)):
    """Session-table rows of SPEC."""
    filled = [{"user": 1, "past": []} | c for c in contexts]
    return pa.RecordBatch.from_pylist(
        [
            {"request_id": "r", "time": c.pop("time", 0), "context": c, "candidates": list(many)}
            for c, many in zip(filled, candidates, strict=True)
        ],
        schema=session_table.schema(SPEC),
    )


def test_hour_and_weekday_come_from_the_time_of_the_request():
    """1970-01-02 03:00 UTC was a Friday: row 5 of the week, row 4 of the day."""
    batch = session_table.to_batch(rows({"time": DAY + DAY // 8}), SPEC, encoders(SPEC))
    assert (batch.context["hour"].tolist(), batch.context["day"].tolist()) == ([4], [5])


def test_age_is_days_before_the_request_and_nan_when_unknown():
    """A timestamp a day and a half before is 1.5."""
    many = [{"item": 1, "born": DAY // 2, "click": 0}, {"item": 1, "born": None, "click": 0}]
    batch = session_table.to_batch(rows({"time": 2 * DAY}, candidates=[many]), SPEC, encoders(SPEC))
    np.testing.assert_array_equal(batch.candidates["born"], np.float32([1.5, np.nan]))


def test_a_list_keeps_its_newest_ids_right_aligned():
    """Oldest first in the table; the last L survive; 0 before the first."""
    batch = session_table.to_batch(
        rows({"past": [1, 2, 3, 4]}, {"past": [5]}, {"past": None}, candidates=[()] * 3), SPEC, encoders(SPEC)
    )
    assert batch.context["past"].tolist() == [[2, 3, 4], [0, 0, 5], [0, 0, 0]]


def test_missing_and_unknown_ids_are_row_zero_and_missing_numbers_nan():
    """So is infinity."""
    many = [{"item": 99, "price": None, "click": None}, {"item": None, "price": float("inf"), "click": 1}]
    batch = session_table.to_batch(rows({}, candidates=[many]), SPEC, encoders(SPEC))
    assert batch.candidates["item"].tolist() == [0, 0]
    assert np.isnan(batch.candidates["price"]).all()
    assert batch.labels["click"].tolist() == [-1, 1]


@given(st.data())
def test_a_slice_of_a_table_reads_like_the_same_rows_alone(data):
    """Arrow's offsets never leak into a batch."""
    spec = data.draw(strategies.specs())
    drawn = data.draw(strategies.rows(spec))
    table = pa.RecordBatch.from_pylist(drawn, schema=session_table.schema(spec))
    start = data.draw(st.integers(0, len(drawn) - 1))
    alone = pa.RecordBatch.from_pylist(drawn[start:], schema=session_table.schema(spec))
    left, right = (session_table.to_batch(x, spec, encoders(spec)) for x in (table.slice(start), alone))
    np.testing.assert_equal([left.context, left.candidates, left.owner], [right.context, right.candidates, right.owner])


@given(st.data())
def test_every_value_of_a_batch_is_what_its_row_says(data):
    """Against Python objects, value by value."""
    spec = data.draw(strategies.specs())
    drawn = data.draw(strategies.rows(spec))
    batch = session_table.to_batch(
        pa.RecordBatch.from_pylist(drawn, schema=session_table.schema(spec)), spec, encoders(spec)
    )
    assert batch.owner.tolist() == [i for i, row in enumerate(drawn) for _ in row["candidates"]]
    table = encoders(spec)
    for name, values in batch.context.items():
        np.testing.assert_array_equal(values, [slow.value(spec, table, row, "context", name) for row in drawn])
    for name, values in batch.candidates.items():
        expected = [
            slow.value(spec, table, row, "candidates", name, index=index)
            for row in drawn
            for index in range(len(row["candidates"]))
        ]
        np.testing.assert_array_equal(values.tolist(), expected)


def test_a_vector_of_another_length_is_refused():
    """With its place, and how many numbers were expected."""
    spec = parse('name = "x"\n[context]\nv = { kind = "vector", size = 2 }\n[tasks.c]\nlabel = "c"')
    table_rows = [
        {"request_id": "r", "time": 0, "context": {"v": v}, "candidates": []} for v in ([1.0, 2.0], None, [3.0])
    ]
    table = pa.RecordBatch.from_pylist(table_rows, schema=session_table.schema(spec))
    with pytest.raises(DataError, match=r"context\.v: expected 2 numbers, got 1"):
        session_table.to_batch(table, spec, {})
    vectors = session_table.to_batch(table.slice(0, 2), spec, {}).context["v"]
    np.testing.assert_array_equal(vectors, np.float32([[1, 2], [np.nan, np.nan]]))


def test_what_lies_under_a_null_is_nothing():
    """A list that is null may still have values in its buffers."""
    spec = parse(
        'name = "x"\n[context]\na = { kind = "ids" }\nv = { kind = "vector", size = 1 }\n[tasks.c]\nlabel = "c"'
    )
    offsets, hidden = pa.array([0, 2, 3], pa.int32()), pa.array([True, False])
    rows = session_table.to_rows(
        session_table.schema(spec),
        request_id=pa.array(["r", "s"]),
        time=pa.array([0, 0]).cast(session_table.TIME),
        context={
            "a": pa.ListArray.from_arrays(offsets, pa.array([1, 2, 3]), mask=hidden),
            "v": pa.ListArray.from_arrays(offsets, pa.array([1, 2, 3], pa.float32()), mask=hidden),
        },
        candidates={"c": pa.array([], pa.int8())},
        offsets=np.array([0, 0, 0]),
    )
    batch = session_table.to_batch(rows, spec, encoders(spec))
    assert batch.context["a"].tolist()[0] == [0] * 20
    assert batch.context["a"].tolist()[1][-1] == 3
    np.testing.assert_array_equal(batch.context["v"], np.float32([[np.nan], [3]]))


def test_flat_columns_become_rows_without_copying():
    """The child arrays of the rows are the very buffers given."""
    item = pa.array([1, 2, 3])
    table = session_table.to_rows(
        session_table.schema(parse('name = "x"\n[candidates]\nitem = { kind = "id" }\n[tasks.c]\nlabel = "c"')),
        request_id=pa.array(["a", "b"]),
        time=pa.array([0, 1]).cast(session_table.TIME),
        context={},
        candidates={"item": item, "c": pa.array([0, 1, 0], pa.int8())},
        offsets=np.array([0, 1, 3]),
    )
    assert table.column("candidates").values.field("item").buffers()[1].address == item.buffers()[1].address
    assert table.column("candidates").to_pylist()[1] == [{"item": 2, "c": 1}, {"item": 3, "c": 0}]


def test_a_table_of_another_spec_is_refused_by_the_first_field_that_differs(tmp_path):
    """The path of the field, what was expected, what came."""
    user = 'user = { kind = "id", values = "string" }'
    other = parse(f'name = "x"\n[context]\n{user}\n[candidates]\nitem = {{ kind = "id" }}\n[tasks.click]\nlabel = "c"')
    shape = session_table.schema(other)
    splits.write(tmp_path / "part-0.arrow", [pa.RecordBatch.from_pylist([], schema=shape)], shape)
    with pytest.raises(DataError, match=r"part-0\.arrow: context\.user: expected int64, got string"):
        list(splits.read_part(tmp_path / "part-0.arrow", SPEC))
    three = 'user = { kind = "id" }\npast = { kind = "ids" }\nextra = { kind = "id" }'
    more = parse(f'name = "x"\n[context]\n{three}\n[tasks.c]\nlabel = "c"')
    with pytest.raises(DataError, match="x: context: the table was made with another spec: extra"):
        session_table.check_schema(session_table.schema(more), SPEC, "x")
    with pytest.raises(DataError, match="request_id: not in this table; is it a session table"):
        session_table.check_schema(pa.schema([("a", pa.int8())]), SPEC, "x")


def test_a_truncated_part_is_refused_by_name(tmp_path):
    """A half-copied file is not read as a short one."""
    path = tmp_path / "part-0.arrow"
    splits.write(path, [rows({})], session_table.schema(SPEC))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"part-0\.arrow: not a whole session table"):
        list(splits.read_part(path, SPEC))


def test_a_part_whose_names_are_not_utf_8_is_refused_by_name(tmp_path):
    """Its schema can be read, its names cannot."""
    path = tmp_path / "part-0.arrow"
    splits.write(path, [rows({})], session_table.schema(SPEC))
    name = next(iter(session_table.schema(SPEC).field("context").type)).name.encode()
    path.write_bytes(path.read_bytes().replace(name, b"\xbf" * len(name)))
    with pytest.raises(DataError, match=r"part-0\.arrow: not a whole session table: 'utf-8' codec"):
        list(splits.read_part(path, SPEC))


def test_a_folder_without_parts_says_what_makes_them(tmp_path):
    """And a wrong split's name says which there are."""
    with pytest.raises(DataError, match="no session tables here"):
        splits.files(tmp_path, "train")
    with pytest.raises(DataError, match="'trian' is not a split: train, validation, test"):
        splits.files(tmp_path, "trian")
