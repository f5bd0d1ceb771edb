"""Requests: grouped by pause, by id, or not at all; and the sessions they lie in."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from features import hashing
from features.sweep.open_sessions import OpenSessions
from features.transforms import sessions
from rec.errors import DataError
from rec.spec import parse
from tests.features import tiny


def times(grouped: sessions.Sessions) -> list[int]:
    """When each request began, in seconds."""
    return (grouped.time // tiny.SECOND).tolist()


def test_a_pause_exactly_as_long_as_the_gap_is_no_new_request():
    """`gap` is the longest pause inside a request."""
    assert tiny.spec(gap=5).requests.gap == timedelta(seconds=5)
    assert len(tiny.grouped(tiny.spec(gap=5), tiny.frame([(1, 1, 0, 0), (1, 1, 5, 0)]))) == 1
    assert len(tiny.grouped(tiny.spec(gap=5), tiny.frame([(1, 1, 0, 0), (1, 1, 6, 0)]))) == 2


def test_requests_come_in_the_order_of_their_first_impressions():
    """Whatever the order of the log; rows of one timestamp stay as they were."""
    rows = [(2, 10, 7, 0), (1, 11, 9, 0), (2, 12, 0, 0), (1, 13, 0, 0), (1, 14, 0, 1), (2, 15, 10, 0)]
    grouping = tiny.grouped(tiny.spec(), tiny.frame(rows))
    assert grouping.ids.to_pylist() == ["2-0", "1-0", "2-1", "1-1"]
    assert times(grouping) == [0, 0, 7, 9]
    assert grouping.rows["item"].to_list() == [12, 13, 14, 10, 15, 11]


def test_somebody_unknown_has_requests_of_one_impression():
    """Each by itself, whatever his place in the log is and whoever is called by that number."""
    rows = [(None, 10, 0, 0), (None, 11, 0, 0), (0, 12, 0, 0), (1, 13, 0, 0), (0, 14, 1, 0), (1, 15, 1, 0)]
    grouped = tiny.grouped(tiny.spec(), tiny.frame(rows))
    requests = sorted(tuple(request) for request in np.split(grouped.rows["item"].to_numpy(), grouped.offsets[1:-1]))
    assert requests == [(10,), (11,), (12, 14), (13, 15)]
    assert len(set(grouped.ids.to_pylist())) == 4


def test_a_change_of_context_begins_a_new_request():
    """One context per request: the device of the second request is not that of the first."""
    spec = tiny.spec(context='device = { kind = "id", values = "string" }')
    rows = tiny.frame([(1, 10, 0, 0), (1, 11, 1, 0), (1, 12, 2, 0)]).with_columns(device=pl.Series(["a", "a", "b"]))
    grouped = tiny.grouped(spec, rows)
    assert grouped.offsets.tolist() == [0, 2, 3]
    assert grouped.ids.to_pylist() == ["1-0", "1-1"]


WITH_ID = parse(
    'name = "x"\nkeys = { user = "user", time = "time", request = "rid" }\nsplit = { column = "split" }\n'
    'context = { user = { kind = "id" } }\ntasks = { click = { label = "clicked" } }'
)


def by_id(rows: list[tuple]) -> sessions.Sessions:
    """Rows of (user, request id, second), grouped."""
    kinds = {"user": pl.Int64, "rid": pl.String, "time": pl.Int64}
    return tiny.grouped(WITH_ID, pl.DataFrame(rows, schema=kinds, orient="row"))


def test_a_request_id_groups_whatever_the_pause():
    """Rows of one id are one request from its first impression on, in time order."""
    grouping = by_id([(2, "b", 9), (1, "a", 100), (2, "c", 5), (1, "a", 1), (1, "d", 2)])
    actual = dict(zip(grouping.ids.to_pylist(), times(grouping), strict=True))
    assert list(actual.items()) == [("a", 1), ("d", 2), ("c", 5), ("b", 9)]
    assert grouping.rows.filter(rid="a")["time"].to_list() == [1, 100]


def test_requests_of_nobody_are_told_apart_by_their_id():
    """Somebody unknown may be shown several things at once."""
    grouped = by_id([(None, "a", 0), (None, "b", 0), (None, "a", 1), (3, "c", 0)])
    assert dict(zip(grouped.ids.to_pylist(), np.diff(grouped.offsets).tolist(), strict=True)) == {
        "a": 2,
        "b": 1,
        "c": 1,
    }


def test_a_request_of_two_users_is_refused():
    """A request has one context."""
    with pytest.raises(DataError, match=r"keys.request: 1 request ids have several users, such as 'a'"):
        by_id([(1, "a", 1), (2, "a", 1)])


def test_a_table_without_keys_is_one_request_per_row():
    """Tabular data is a log whose requests have one candidate, in the order of the file, at moment 0."""
    spec = parse('name = "x"\ntasks = { a = { label = "a" } }')
    grouped = tiny.grouped(spec, pl.DataFrame({"a": [0, 1, 1], "split": ["train"] * 3}))
    assert grouped.rows["a"].to_list() == [0, 1, 1]
    assert grouped.owner().tolist() == [0, 1, 2]
    assert grouped.ids.to_pylist() == ["0", "1", "2"]
    assert not np.any(grouped.time)


def so_far(rows: list[tuple], **more: str) -> list[tuple[int, float]]:
    """Of rows of (user, microsecond, session id), each a request: requests before it in its session, and how long."""
    spec = parse(
        tiny.SPEC.replace('time = "time" }}', 'time = "time", time_unit = "us", request = "rid"{keys} }}')
        .replace("requests = {{", "sessions = {{ gap = '5s' }}\nrequests = {{")
        .format(context="", candidates="", tasks="", gap=0, window=0, **more)
    )
    frame = tiny.frame([(user, place, time, 0) for place, (user, time, _) in enumerate(rows)])
    sid, rid = pl.Series([sid for *_, sid in rows]), frame["item"].cast(pl.String)
    grouping = tiny.grouped(spec, frame.with_columns(sid=sid, rid=rid))
    keys = spec.keys
    first = grouping.rows[grouping.offsets[:-1]]
    code, missing = hashing.together([first[key] for key in (keys.user, keys.session) if key is not None])
    open_sessions = OpenSessions(None if keys.session is not None else spec.sessions.gap // timedelta(microseconds=1))
    rows = open_sessions.rows(code, ~missing)
    open_sessions.feed(grouping.time, rows)
    earlier, passed = open_sessions.ask(grouping.time, rows)
    actual = dict(zip(grouping.rows["item"], zip(earlier.tolist(), passed.tolist(), strict=True), strict=True))
    return [actual[place] for place in range(len(rows))]


def test_a_session_ends_with_a_pause_longer_than_its_gap():
    """A pause of exactly the gap does not end it; each user has sessions of his own, and nobody has one each."""
    gap = 5 * tiny.SECOND
    rows = [(1, 0, 5), (1, gap, 6), (1, 2 * gap + 1, 6), (2, gap, 6), (1, 2 * gap + 3, 5), (None, 0, 5), (None, 1, 5)]
    assert so_far(rows, keys="") == [(0, 0), (1, gap), (0, 0), (0, 0), (1, 2), (0, 0), (0, 0)]


def test_requests_of_one_moment_are_not_before_each_other():
    """Of a session by pauses, or of a named one; the next request sees both."""
    rows = [(1, 0, 5), (1, 3, 5), (1, 3, 5), (1, 4, 5)]
    for named in ("", ', session = "sid"'):
        assert so_far(rows, keys=named) == [(0, 0), (1, 3), (1, 3), (3, 4)]


def test_a_session_may_be_named():
    """However long its pauses; what has no name is a session of its own."""
    rows = [(1, 0, 5), (1, 90, 5), (1, 95, 6), (2, 96, 5), (1, 97, None), (1, 98, None), (1, 99, 5), (None, 99, 5)]
    expected = [(0, 0), (1, 90), (0, 0), (0, 0), (0, 0), (0, 0), (2, 99), (0, 0)]
    assert so_far(rows, keys=', session = "sid"') == expected
