"""Features as Arrow columns of the session table's types."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from features.transforms import attributes
from features.transforms.counters import NEVER
from rec.data.session_table import TIME, field_type
from rec.errors import DataError, SpecError
from tests.features import tiny

WORDS = '{ kind = "ids", make = "tokens", values = "string" }'
SHOES, SUMMER = ["red", "shoes", "size", "42"], ["\u00e9t\u00e9", "\u4e2d\u6587"]


def built(feature: str, values: pl.Series) -> pa.Array:
    """A candidate feature `x` read from a column `x`."""
    spec = tiny.spec(candidates=f"x = {feature}")
    rows = tiny.frame([(1, 10, i, 0) for i in range(len(values))]).with_columns(x=values)
    column = attributes.side(spec, "candidates", rows, {})["x"]
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
        ('{ kind = "ids", values = "string" }', ["a b", None], [["a b"], []]),
        (WORDS, ["Red SHOES, size-42!", "\u00c9t\u00e9_\u4e2d\u6587", "", None], [SHOES, SUMMER, [], []]),
        ('{ kind = "vector", size = 2 }', [[1.0, 2.5], None], [[1.0, 2.5], None]),
        ('{ kind = "vector", size = 2 }', ["[1, 2.5]", None], [[1.0, 2.5], None]),
        ('{ kind = "number" }', [1, None], [1.0, None]),
        ('{ kind = "number" }', [True, False], [1.0, 0.0]),
        ('{ kind = "kept" }', [1, None], [1, None]),
        ('{ kind = "kept", values = "float" }', [0.5, None], [0.5, None]),
        ('{ kind = "kept", values = "string" }', ["a", None], ["a", None]),
    ],
)
def test_an_attribute_is_read_as_its_kind(feature, values, expected):
    """Nothing is null, a list of nothing is empty, whole numbers that pandas made floats are ids again."""
    assert built(feature, pl.Series("x", values)).to_pylist() == expected


def test_an_age_stores_its_moment():
    """The door subtracts it from the time of the request."""
    column = built('{ kind = "number", make = "age" }', pl.Series([date(1970, 1, 2), None]))
    assert column.type == TIME
    assert column.cast(pa.int64()).to_pylist() == [86_400_000_000, None]


@pytest.mark.parametrize(
    ("feature", "values", "error", "message"),
    [
        ('{ kind = "id" }', ["bob"], DataError, r"candidates.x: expected an id \(int\), got 'bob'"),
        ('{ kind = "id" }', [1.5], DataError, r"candidates.x: expected an id \(int\), got 1.5"),
        ('{ kind = "ids" }', ["7", "a b"], DataError, r"candidates.x: expected lists of ids, got 'a b'"),
        ('{ kind = "ids" }', [["7", "b"]], DataError, r"candidates.x: expected an id \(int\), got 'b'"),
        ('{ kind = "id" }', [{"a": 1}], DataError, r"candidates.x: expected an id, got Struct.*such as x.a"),
        ('{ kind = "number" }', ["dear"], DataError, r'candidates.x: expected a number, got .*dear.*; say kind = "id"'),
        ('{ kind = "number" }', [date(2026, 1, 1)], SpecError, r'candidates.x: expected a number, .* make = "age"'),
        (WORDS, [3], DataError, r"candidates.x: expected text to take words from, got Int64"),
        ('{ kind = "vector", size = 2 }', [[1.0], [1.0, 2.0], []], DataError, r"x: expected 2 numbers, got 1 \(2 such"),
        (
            '{ kind = "vector", size = 2 }',
            [["a", "b"]],
            DataError,
            r"candidates.x: expected lists of numbers, got \['a', 'b'\]",
        ),
        ('{ kind = "vector", size = 2 }', [3.0], DataError, r"candidates.x: expected lists of numbers, got Float64"),
        ('{ kind = "kept" }', ["a"], DataError, r"candidates.x: expected an id \(int\), got 'a'"),
    ],
)
def test_a_column_of_another_kind_is_refused(feature, values, error, message):
    """Where, expected, got."""
    with pytest.raises(error, match=message):
        built(feature, pl.Series("x", values))


def test_ids_beyond_int64_are_refused():
    """Not wrapped around silently."""
    with pytest.raises(DataError, match=r"candidates.x: an id does not fit 64 bits with a sign; store the ids as text"):
        built('{ kind = "id" }', pl.Series([2**64 - 1], dtype=pl.UInt64))


@pytest.mark.parametrize(
    ("make", "values", "expected"),
    [
        ('"count", per = "item"', np.array([2.0, np.nan]), [2.0, None]),
        ('"rate", per = "item", task = "click"', np.array([0.5, np.nan]), [0.5, None]),
        ('"since", per = "item"', np.array([0, NEVER]), [0, None]),
    ],
)
def test_what_the_past_made_is_stored_as_its_kind(make, values, expected):
    """A number that is none, and the time of what never was, are missing; a timestamp of 0 is one."""
    spec = tiny.spec(candidates=f'n = {{ kind = "number", make = {make} }}')
    column = attributes.side(spec, "candidates", tiny.frame([(1, 10, 0, 0), (1, None, 0, 0)]), {"n": values})["n"]
    assert column.type == field_type(spec.candidates["n"])
    assert (column.cast(pa.int64()) if column.type == TIME else column).to_pylist() == expected


def test_take_picks_rows_of_every_column():
    """In the given order."""
    assert attributes.take({"a": pa.array([5, 6, 7])}, np.array([2, 0]))["a"].to_pylist() == [7, 5]
