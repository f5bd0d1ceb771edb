"""Requests: grouped by pause, by id, or not at all."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import joins, sessions
from features.logs import Logs
from rec.errors import DataError
from rec.spec import parse
from tests.features import tiny
from tests.reference import features as slow


@settings(deadline=None)
@given(tiny.impressions, st.integers(0, 4))
def test_grouping_by_pause_is_that_of_the_slow_twin(rows, gap):
    """Same user and no pause longer than the gap; somebody unknown has requests of one impression."""
    grouped, _ = tiny.known(tiny.spec(gap=gap), rows)
    flat = list(grouped.rows.select("user", "item", "time", "clicked").iter_rows())
    made = [flat[a:b] for a, b in zip(grouped.offsets[:-1], grouped.offsets[1:], strict=True)]
    assert made == slow.requests(rows, gap=gap)
    assert (grouped.time // tiny.SECOND).tolist() == [request[0][2] for request in made]
    assert len(set(grouped.ids.to_pylist())) == len(grouped)


def test_a_change_of_context_begins_a_new_request():
    """One context per request: the device of the second request is not that of the first."""
    spec = tiny.spec(context='device = { kind = "id", values = "string" }')
    rows = tiny.frame([(1, 10, 0, 0), (1, 11, 1, 0), (1, 12, 2, 0)]).with_columns(device=pl.Series(["a", "a", "b"]))
    grouped = sessions.group(spec, joins.read(spec, Logs(rows.lazy())).rows)
    assert grouped.offsets.tolist() == [0, 2, 3]
    assert grouped.ids.to_pylist() == ["1-0", "1-1"]


WITH_ID = parse(
    'name = "x"\nkeys = { user = "user", time = "time", request = "rid" }\nsplit = { column = "split" }\n'
    'context = { user = { kind = "id" } }\ntasks = { click = { label = "clicked" } }'
)


def by_id(rows: list[tuple]) -> sessions.Sessions:
    """Rows of (user, request id, second), grouped."""
    kinds = {"user": pl.Int64, "rid": pl.String, "time": pl.Int64}
    made = pl.DataFrame(rows, schema=kinds, orient="row").with_columns(clicked=0, split=pl.lit("train"))
    return sessions.group(WITH_ID, joins.read(WITH_ID, Logs(made.lazy())).rows)


def test_a_request_id_groups_whatever_the_pause():
    """Rows of one id are one request from its first impression on, in time order, users clustered."""
    grouped = by_id([(2, "b", 9), (1, "a", 100), (2, "c", 5), (1, "a", 1)])
    assert grouped.ids.to_pylist() == ["a", "c", "b"]
    assert grouped.rows["time"].to_list() == [1, 100, 5, 9]
    assert (grouped.time // tiny.SECOND).tolist() == [1, 5, 9]


def test_a_request_of_two_users_is_refused():
    """A request has one context."""
    with pytest.raises(DataError, match=r"keys.request: 1 request ids have several users, such as 'a'"):
        by_id([(1, "a", 1), (2, "a", 1)])


def test_an_impression_without_a_request_id_is_refused():
    """Nobody can say which request it belongs to."""
    with pytest.raises(DataError, match=r"keys.request: column 'rid': 1 of 2 impressions have none"):
        by_id([(1, "a", 1), (1, None, 1)])


def test_an_impression_without_a_moment_is_refused():
    """Nothing can be said to be before it."""
    with pytest.raises(DataError, match=r"keys.time: column 'time': 1 of 1 impressions have none"):
        tiny.known(tiny.spec(), [(1, 1, None, 0)])


def test_a_table_without_keys_is_one_request_per_row():
    """Tabular data is a log whose requests have one candidate, in the order of the file, at moment 0."""
    spec = parse('name = "x"\ntasks = { a = { label = "a" } }')
    rows = pl.DataFrame({"a": [0, 1, 1], "split": ["train"] * 3})
    grouped = sessions.group(spec, joins.read(spec, Logs(rows.lazy())).rows)
    assert grouped.rows["a"].to_list() == [0, 1, 1]
    assert grouped.owner().tolist() == [0, 1, 2]
    assert grouped.ids.to_pylist() == ["0", "1", "2"]
    assert not np.any(grouped.time)


def test_a_pause_exactly_as_long_as_the_gap_is_no_new_request():
    """`gap` is the longest pause inside a request."""
    assert tiny.spec(gap=5).requests.gap == timedelta(seconds=5)
    assert len(tiny.known(tiny.spec(gap=5), [(1, 1, 0, 0), (1, 1, 5, 0)])[0]) == 1
    assert len(tiny.known(tiny.spec(gap=5), [(1, 1, 0, 0), (1, 1, 6, 0)])[0]) == 2
