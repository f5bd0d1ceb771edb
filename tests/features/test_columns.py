"""Features as Arrow columns of the session table's types."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings

from features import columns, joins, labels, sessions
from features.logs import Logs
from features.past import Behaviour
from rec.arrow import TIME, field_type
from rec.errors import DataError, SpecError
from tests.features import tiny
from tests.reference import features as slow


def made(feature: str, values: pl.Series) -> pa.Array:
    """A candidate feature `x` read from a column `x`."""
    spec = tiny.spec(candidates=f"x = {feature}")
    rows = tiny.frame([(1, 10, i, 0) for i in range(len(values))]).with_columns(x=values)
    grouped = sessions.group(spec, joins.read(spec, Logs(rows.lazy())).rows)
    past = Behaviour(spec, grouped.rows, labels.read(spec, grouped.rows))
    column = columns.side(spec, "candidates", grouped.rows, grouped.time[grouped.owner()], past)["x"]
    assert column.type == field_type(spec.candidates["x"])
    return column


@pytest.mark.parametrize(
    ("feature", "values", "expected"),
    [
        ('{ kind = "id" }', [3, None], [3, None]),
        ('{ kind = "id" }', [3.0, float("nan")], [3, None]),
        ('{ kind = "id" }', [True, False], [1, 0]),
        ('{ kind = "id", values = "string" }', ["a", None], ["a", None]),
        ('{ kind = "id", values = "string" }', [3, None], ["3", None]),
        ('{ kind = "ids" }', [[3, 4], None], [[3, 4], []]),
        ('{ kind = "ids" }', ["3|4", ""], [[3, 4], []]),
        ('{ kind = "ids", values = "string" }', ["a b", None], [["a", "b"], []]),
        ('{ kind = "number" }', [1, None], [1.0, None]),
        ('{ kind = "number" }', [True, False], [1.0, 0.0]),
        ('{ kind = "kept" }', [1, None], [1, None]),
        ('{ kind = "kept", values = "float" }', [0.5, None], [0.5, None]),
        ('{ kind = "kept", values = "string" }', ["a", None], ["a", None]),
    ],
)
def test_an_attribute_is_read_as_its_kind(feature, values, expected):
    """Nothing is null, a list of nothing is empty, whole numbers that pandas made floats are ids again."""
    assert made(feature, pl.Series("x", values)).to_pylist() == expected


def test_an_age_stores_its_moment():
    """The door subtracts it from the time of the request."""
    column = made('{ kind = "number", make = "age" }', pl.Series([date(1970, 1, 2), None]))
    assert column.type == TIME
    assert column.cast(pa.int64()).to_pylist() == [86_400_000_000, None]


@pytest.mark.parametrize(
    ("feature", "values", "error", "message"),
    [
        ('{ kind = "id" }', ["bob"], DataError, r"candidates.x: expected an id \(int\), got 'bob'"),
        ('{ kind = "id" }', [1.5], DataError, r"candidates.x: expected an id \(int\), got 1.5"),
        ('{ kind = "ids" }', [3], DataError, r"candidates.x: expected lists, got Int64"),
        ('{ kind = "ids" }', ["a b"], DataError, r"candidates.x: expected an id \(int\), got 'a'"),
        ('{ kind = "number" }', ["dear"], DataError, r'candidates.x: expected a number, got .*dear.*; say kind = "id"'),
        ('{ kind = "number" }', [date(2026, 1, 1)], SpecError, r'candidates.x: expected a number, .* make = "age"'),
        ('{ kind = "kept" }', ["a"], DataError, r"candidates.x: expected int64, got "),
    ],
)
def test_a_column_of_another_kind_is_refused(feature, values, error, message):
    """Where, expected, got."""
    with pytest.raises(error, match=message):
        made(feature, pl.Series("x", values))


def test_ids_beyond_int64_are_refused():
    """Not wrapped around silently."""
    with pytest.raises(DataError, match=r"candidates.x: an id does not fit 64 bits with a sign; store the ids as text"):
        made('{ kind = "id" }', pl.Series([2**64 - 1], dtype=pl.UInt64))


def test_counts_of_a_missing_value_are_missing():
    """NaN offline is null in the table."""
    spec = tiny.spec(candidates='n = { kind = "number", make = "count", per = "item" }')
    grouped, past = tiny.known(spec, [(1, None, 0, 0), (2, 10, 9, 0), (3, 10, 10, 1)])
    column = columns.side(spec, "candidates", grouped.rows, grouped.time[grouped.owner()], past)["n"]
    assert column.to_pylist() == [None, 0.0, 1.0]


PAST = tiny.spec(
    context='seen = { kind = "ids", make = "history", task = "click", last = 2 }\n'
    'r = { kind = "number", make = "rate", per = "user", task = "click" }',
    candidates='n = { kind = "number", make = "count", per = "item" }\n'
    'c = { kind = "number", make = "count", per = "item", task = "click" }',
    window=2,
)


@settings(deadline=None)
@given(tiny.impressions)
def test_the_past_is_as_of_the_requests_first_impression(rows):
    """Every made feature against the slow twin: later impressions of a request see no more than its first."""
    grouped, past = tiny.known(PAST, rows)
    made = slow.requests(rows, gap=5)
    context = columns.side(PAST, "context", grouped.first(), grouped.time, past)
    candidates = columns.side(PAST, "candidates", grouped.rows, grouped.time[grouped.owner()], past)
    heads = [(request[0][0], request[0][2]) for request in made]
    assert context["seen"].to_pylist() == [slow.history(rows, u, t, window=2, last=2, clicked=True) for u, t in heads]
    assert slow.same(numbers(context["r"]), [slow.rate(rows, 0, u, t, window=2, prior=20.0) for u, t in heads])
    shown = [(row[1], request[0][2]) for request in made for row in request]
    assert slow.same(numbers(candidates["n"]), [slow.count(rows, 1, item, t) for item, t in shown])
    assert slow.same(numbers(candidates["c"]), [slow.events(rows, 1, item, t, window=2) for item, t in shown])


def numbers(column: pa.Array) -> np.ndarray:
    """Nulls as NaN."""
    return column.to_numpy(zero_copy_only=False)


def test_take_picks_rows_of_every_column():
    """In the given order."""
    assert columns.take({"a": pa.array([5, 6, 7])}, np.array([2, 0]))["a"].to_pylist() == [7, 5]
