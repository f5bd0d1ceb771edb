from __future__ import annotations

from datetime import UTC

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data.session_table import TIME
from rec.spec import Id, Ids, Kept, Number, Vector
from serving.online.json_columns import UnfitError, column_builder, microseconds

ID, WORD = Id(kind="id"), Id(kind="id", values="string")
IDS, NUMBER = Ids(kind="ids"), Number(kind="number")
AGE, KEPT = Number(kind="number", make="age"), Kept(kind="kept", values="float")
SINCE, PAIR = Number(kind="number", make="since"), Vector(kind="vector", size=2)
LARGE = "a number of at most 3.4e38"
MOMENT = "a timestamp with a time zone, such as '2026-11-20T08:30:00Z'"


@pytest.mark.parametrize(
    ("feature", "values", "kind"),
    [
        (ID, [7, None, -(2**63)], pa.int64()),
        (WORD, ["a", None, "\0", "\u202eabc"], pa.string()),
        (KEPT, [1, None, 2.5], pa.float64()),
        (NUMBER, [1, None, 2.5], pa.float32()),
        (IDS, [[1, 2], [], None], pa.list_(pa.int64())),
        (PAIR, [[1, 2.5], None, [-1.0, 0]], pa.list_(pa.float32())),
        (PAIR, [], pa.list_(pa.float32())),
    ],
)
def test_values_that_fit_become_a_column(feature, values, kind):
    """Of the type that the session table has, with null where there is null."""
    column = column_builder(feature)(values)
    assert column.type == kind
    assert column.to_pylist() == values


@pytest.mark.parametrize(
    ("feature", "values", "expected"),
    [
        (NUMBER, [True, None, 2.5], [1.0, None, 2.5]),
        (KEPT, [False], [0.0]),
        (ID, [True, False, 7.0, None], [1, 0, 7, None]),
        (WORD, ["the-05", 0.5, 1.25e-5, 2e-7, 1e22], ["the-05", "0.5", "0.0000125", "2e-7", "1e+22"]),
        (Ids(kind="ids", values="string", split="|"), ["a| b|", ["a|b"], "|", 7], [["a", "b"], ["a|b"], [], ["7"]]),
        (WORD, [7, 7.0, 38.5, True, "", "\\N", " a"], ["7", "7", "38.5", "true", None, None, " a"]),
        (IDS, [[True, 7.0], 7, None], [[1, 7], [7], None]),
        (IDS, [[None, 3, None], [None], None, [None, 4]], [[3], [], None, [4]]),
        (Ids(kind="ids", values="string"), [["a", "", None, "b"], ["\\N"], [], None], [["a", "b"], [], [], None]),
        (Ids(kind="ids", values="string"), [[1, "a"], "b"], [["1", "a"], ["b"]]),
        (PAIR, [[True, 0.5]], [[1.0, 0.5]]),
    ],
)
def test_values_of_other_types_are_what_logs_make_of_them(feature, values, expected):
    """What is written otherwise in JSON is the same value."""
    assert column_builder(feature, ["", "\\N"])(values).to_pylist() == expected


def test_moments_are_read_in_any_zone():
    """And kept in microseconds since 1970 UTC."""
    column = column_builder(AGE)(["1970-01-01T00:00:01Z", None, "1970-01-01T02:00:00.5+02:00"])
    assert column.type == TIME
    assert column.cast(pa.int64()).to_pylist() == [1_000_000, None, 500_000]


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_survives_its_text(timestamp):
    """To the microsecond, in any year that ISO 8601 can say."""
    whole = pa.array([timestamp], TIME).cast(pa.int64())[0].as_py()
    assert microseconds(timestamp.isoformat()) == whole


@pytest.mark.parametrize(
    ("feature", "values", "index", "expected"),
    [
        (ID, [1, "bob"], 1, "an id"),
        (ID, [1.5], 0, "an id"),
        (ID, [1, "7"], 1, "an id"),
        (ID, [1, 2, 2**63], 2, "an id of at most 64 bits"),
        (WORD, ["a", [7]], 1, "an id (text)"),
        (NUMBER, [1.0, "9"], 1, "a number"),
        (NUMBER, [1.0, 1e39], 1, LARGE),
        (NUMBER, [None, -(10**400)], 1, LARGE),
        (AGE, ["2026-11-20T08:30:00"], 0, MOMENT),
        (AGE, [None, 7], 1, MOMENT),
        (AGE, ["soon"], 0, MOMENT),
        (SINCE, [3.0], 0, MOMENT),
        (PAIR, [[1, 2], None, [1, 2], [1]], 3, "a list of 2 numbers"),
        (PAIR, [[1, 2], None, [1, None]], 2, "a list of 2 numbers"),
        (PAIR, [[1, 2], None, [1, "a"]], 2, "a list of 2 numbers"),
        (PAIR, [None, [1, 2], [1, 1e39]], 2, "a list of 2 numbers"),
        (PAIR, [[1, 2], 3], 1, "a list of 2 numbers"),
        (IDS, [[1], "a"], 1, "a list of ids"),
        (IDS, [[1], [2, "x"]], 1, "a list of ids"),
        (Ids(kind="ids", values="string"), [["a"], {"b": 1}], 1, "a list of ids (text)"),
        (Ids(kind="ids", values="string"), ["a", " ['b', 'c']"], 1, "a list of ids (text), as JSON has them"),
    ],
)
def test_the_first_value_that_does_not_fit_is_named(feature, values, index, expected):
    """Where it is, and what was expected instead."""
    with pytest.raises(UnfitError) as error:
        column_builder(feature)(values)
    assert (error.value.index, error.value.expected) == (index, expected)
