"""The slow twin of features/ against examples worked out by hand: what it says is what the rules say."""

from __future__ import annotations

import pytest

from rec.spec import Spec, parse
from tests.reference.features import bucket, session_table, words
from tests.reference.logs import EventRows, Says

S = 1_000_000
HOUR = 3600 * S
SAYS = {"clicked = 1": Says(("clicked",), lambda row: None if row["clicked"] is None else row["clicked"] == 1)}
SPEC = """
name = "hand"
keys = {{ user = "user", item = "item", time = "time", time_unit = "us" {keys} }}
requests = {{ gap = "0s" }}
sessions = {{ gap = "3s" }}
split = {{ validation = 2026-01-01T00:00:00Z, test = 2026-02-01T00:00:00Z }}
[logs]
{logs}
[context]
user = {{ kind = "id" }}
{context}
[candidates]
item = {{ kind = "id" }}
{candidates}
[tasks.click]
label = "clicked = 1"
window = "{window}"
"""


def spec(*, context: str = "", candidates: str = "", keys: str = "", logs: str = "", window: str = "0s") -> Spec:
    """Users who are shown items, each impression a request of its own unless `keys` has one."""
    return parse(SPEC.format(context=context, candidates=candidates, keys=keys, logs=logs, window=window))


def shown(*rows: tuple, **more: list) -> list[dict]:
    """Rows of (user, item, second, clicked), and further columns."""
    named = [dict(zip(("user", "item", "time", "clicked"), row, strict=True)) for row in rows]
    values = [dict(zip(more, row, strict=True)) for row in zip(*more.values(), strict=True)] or [{}] * len(rows)
    return [{**row, "time": round(row["time"] * S), **value} for row, value in zip(named, values, strict=True)]


def rows_of(of: Spec, rows: list[dict], name: str = "x", **tables) -> list:
    """A feature (or label) of every request's first candidate, requests in order."""
    table = session_table(of, rows, says=SAYS, **tables)["train"]
    return [{**request["context"], **request["candidates"][0]}[name] for request in table]


def test_a_window_begins_with_what_became_known_exactly_so_long_ago_and_ends_just_before_the_request():
    """T - W <= k < T."""
    rows = shown((1, 10, 0, 0), (1, 10, 1, 0), (1, 10, 1.000001, 0), (1, 10, 2, 0))
    counted = 'x = { kind = "number", make = "count", per = "item", window = "1s" }'
    assert rows_of(spec(candidates=counted), rows) == [0, 1, 1, 2]
    assert rows_of(spec(candidates=counted.replace(', window = "1s"', "")), rows) == [0, 1, 2, 3]


@pytest.mark.parametrize(("late", "seen"), [(0, 0), (1, 1)])
def test_an_outcome_is_seen_a_microsecond_after_it_became_known(late, seen):
    """The click of second 0 is known at second 5."""
    rows = shown((1, 10, 0, 1), (1, 11, 5 + late / S, 0))
    counted = spec(context='x = { kind = "number", make = "count", per = "user", task = "click" }', window="5s")
    listed = spec(context='x = { kind = "ids", make = "history", task = "click" }', window="5s")
    assert rows_of(counted, rows) == [0, seen]
    assert rows_of(listed, rows) == [[], [10] * seen]


def test_a_rate_is_drawn_to_the_rate_of_all_as_of_the_last_whole_hour():
    """An unobserved impression counts nowhere; before there is a whole hour there is no rate."""
    rows = shown((1, 10, 1, 1), (1, 10, 2, None), (2, 10, 3, 0), (2, 11, 3600, 0), (2, 10, 3601, 0))
    of = spec(candidates='x = { kind = "number", make = "rate", per = "item", task = "click", prior = 1.0 }')
    base = (1 + 1) / (2 + 2)
    assert rows_of(of, rows) == pytest.approx([None, None, None, base, (1 + base) / 3])


def test_a_count_may_be_of_another_column():
    """How often the candidate was the page."""
    rows = shown((1, 10, 0, 1), (1, 11, 2, 0), (1, 12, 4, 0), (2, 11, 5, 0), page=[11, 10, 11, None])
    of = 'x = { kind = "number", make = "count", per = "item", matching = "page" }'
    assert rows_of(spec(candidates=of), rows) == [0, 1, 0, 2]


def test_expected_clicks_are_the_shares_of_requests():
    """Of two items shown at once each is a half; what comes later in the request does not change that."""
    rows = shown((1, 10, 0, 1), (1, 11, 0, 0), (1, 10, 2, 0), (2, 10, 100, 0), (3, 11, 200, 1), rid=list("aaabc"))
    of = spec(candidates='x = { kind = "number", make = "expected", per = "item" }', keys=', request = "rid"')
    assert rows_of(of, rows) == pytest.approx([0, 1 / 2 + 1 / 3, 1 / 2])


def test_views_of_a_page_are_its_expected_clicks():
    """Three candidates on one page are one view of it, exactly."""
    rows = [(1, 10, 0, 0), (1, 11, 0, 0), (1, 12, 0, 0), (2, 13, 9, 0), (3, 13, 20, 1), (4, 10, 30, 0)]
    rows = shown(*rows, rid=list("aaabcd"), page=[13, 13, 13, 10, 10, 7])
    of = 'x = { kind = "number", make = "expected", per = "item", matching = "page" }'
    assert rows_of(spec(candidates=of, keys=', request = "rid"'), rows) == [0, 1, 1, 2]


def test_clicks_over_expected_clicks_are_drawn_to_those_of_all():
    """Of everybody's impressions before the whole hour: two clicks where three halves were expected."""
    rows = [(1, 10, 0, 1), (1, 11, 0, None), (2, 10, 3, 1), (3, 10, 3700, 0), (3, 12, 3700, 0), (4, 12, 3800, 0)]
    rows, line = shown(*rows, rid=list("aabccd")), 'make = "coec", per = "item", task = "click", prior = 2.0'
    of = spec(candidates=f'x = {{ kind = "number", {line} }}', keys=', request = "rid"')
    base = (2 + 1) / (1 / 2 + 1 + 1)
    assert rows_of(of, rows) == pytest.approx([None, None, (2 + 2 * base) / (1.5 + 2), 2 * base / (0.5 + 2)])


def test_what_decays_counts_half_after_a_half_life():
    """From when it became known on; what is known of nobody is 0."""
    rows = shown((1, 10, 0, 1), (1, 10, 2, 0), (1, 10, 4, 0), (2, 11, 4, 0))
    of = 'x = { kind = "number", make = "count", per = "item", half_life = "2s" }'
    assert rows_of(spec(candidates=of), rows) == [0, 0.5, 0.75, 0]
    click = of.replace("half_life", 'task = "click", half_life')
    assert rows_of(spec(candidates=click, window="2s"), rows) == [0, 0, 0.5, 0]


def test_a_mean_is_of_what_is_known_in_the_window():
    """Of no value there is no mean and no last one, and a sum is 0."""
    rows = shown((1, 10, 0, 1), (1, 10, 1, 1), (1, 10, 3, 0), (1, 10, 6, 0), read=[4.0, None, 9.0, 1.0])
    of = 'x = { kind = "number", make = "mean", per = "item", column = "read", window = "3s" }'
    assert rows_of(spec(candidates=of), rows) == [None, 4.0, 4.0, 9.0]
    assert rows_of(spec(candidates=of.replace("mean", "last")), rows) == [None, 4.0, 4.0, 9.0]
    clicked = of.replace("mean", "sum").replace(', window = "3s"', ', task = "click"')
    assert rows_of(spec(candidates=clicked), rows) == [0.0, 4.0, 4.0, 4.0]


def test_since_is_the_moment_of_the_impression_not_of_the_news():
    """A click at 1, known at 3."""
    rows = shown((1, 10, 1, 1), (1, 10, 3, 0), (1, 10, 4, 0))
    of = spec(candidates='x = { kind = "number", make = "since", per = ["user", "item"], task = "click" }', window="2s")
    assert rows_of(of, rows) == [None, None, 1 * S]


def test_since_first_is_the_moment_of_the_first_impression():
    """Of a key that was never seen there is none; a later one does not move it."""
    rows = shown((1, 10, 1, 1), (1, 10, 3, 0), (1, 11, 4, 0), (1, 10, 6, 0))
    of = spec(candidates='x = { kind = "number", make = "since_first", per = "item" }')
    assert rows_of(of, rows) == [None, 1 * S, None, 1 * S]


def test_a_pair_with_a_missing_part_has_no_past():
    """Neither of its own nor in that of others."""
    rows = shown((1, 10, 0, 1), (None, 10, 1, 1), (None, 10, 2, 1), (1, 10, 3, 1))
    of = spec(candidates='x = { kind = "number", make = "count", per = ["user", "item"] }')
    assert rows_of(of, rows) == [None, None, 0, 1]


def test_a_history_is_in_the_order_of_the_news_and_of_the_log_and_leaves_out_what_is_missing():
    """Of ties the later line is the newer; numbers become buckets where that is said."""
    rows = shown(*((1, i, 1, 1) for i in (12, 11)), (1, 10, 0, 1), (1, 13, 2, 1), dwell=[None, 3, 0, -5])
    assert rows_of(spec(context='x = { kind = "ids", make = "history", last = 2 }'), rows)[-1] == [12, 11]
    dwell = 'x = { kind = "ids", make = "history", column = "dwell", buckets = true }'
    assert rows_of(spec(context=dwell), rows)[-1] == [1, 3]
    assert rows_of(spec(context='x = { kind = "ids", make = "gaps" }'), rows)[-1] == [2, 2, 2]


@pytest.mark.parametrize(("number", "expected"), [(-3, 1), (0, 1), (1, 2), (2, 2), (3, 3), (6, 3), (7, 4), (0.5, 1)])
def test_a_bucket_is_a_power_of_two(number, expected):
    """1 + floor(log2(1 + n))."""
    assert bucket(number) == expected


def test_a_session_ends_with_a_pause_longer_than_its_gap():
    """A pause of exactly the gap does not; requests of one timestamp are not before each other."""
    rows = shown((1, 10, 0, 0), (1, 10, 3, 0), (1, 11, 3, 0), (2, 10, 3, 0), (1, 10, 7, 0), (None, 10, 8, 0))
    rows[1]["rid"], rows[2]["rid"] = "b", "c"
    rows = [{"rid": str(place), **row} for place, row in enumerate(rows)]
    of = {make: f'x = {{ kind = "number", make = "session_{make}" }}' for make in ("requests", "seconds")}
    keys = ', request = "rid"'
    assert rows_of(spec(context=of["requests"], keys=keys), rows) == [0, 0, 1, 1, 0, 0]
    assert rows_of(spec(context=of["seconds"], keys=keys), rows) == [0, 0, 3, 3, 0, 0]


def test_a_session_may_be_named():
    """However long its pauses; the same name with another user is another session, and no name is none."""
    rows = shown(
        *((user, 10, t, 0) for user, t in ((1, 0), (1, 90), (2, 91), (1, 95), (1, 99))), sid=[5, 5, 5, None, 5]
    )
    of = spec(context='x = { kind = "number", make = "session_requests" }', keys=', session = "sid"')
    assert rows_of(of, rows) == [0, 1, 0, 2, 0]


@pytest.mark.parametrize(
    ("logs", "window", "expected"),
    [
        ("", "0s", [1, 0]),
        ("", "4s", [1, -1]),
        ("", "5s", [1, -1]),
        ("", "6s", [-1, -1]),
        ("end = 1970-01-01T00:00:10Z", "5s", [1, 0]),
        ("end = 1970-01-01T00:00:01Z", "0s", [1, 0]),
    ],
)
def test_a_window_that_has_not_closed_says_nothing(logs, window, expected):
    """The last timestamp of the log is second 5, unless the spec says more."""
    rows = shown((1, 10, 0, 1), (1, 11, 5, 0))
    assert rows_of(spec(logs=logs, window=window), rows, "click") == expected


def test_what_came_too_late_did_not_happen_in_time():
    """Known by the moment beside the column; that moment is in the log too, and ends it."""
    rows = shown((1, 10, 0, 1), (1, 11, 1, 1), (1, 12, 2, 1), clicked_time=[2 * S + 1, 3 * S, None])
    assert rows_of(spec(window="2s"), rows, "click") == [0, 1, -1]
    assert rows_of(spec(window="2s", logs="end = 1970-01-01T00:00:04Z"), rows, "click") == [0, 1, 1]
    assert rows_of(spec(window="3s", logs="end = 1970-01-01T00:00:04Z"), rows, "click") == [1, 1, -1]


def test_rows_alike_in_all_that_is_read_are_one():
    """A column that nobody reads makes no difference; the spec may keep them."""
    rows = shown((1, 10, 0, 0), (1, 10, 0, 0), (1, 10, 0, 1), noise=[1, 2, 3])
    tables = [session_table(spec(logs=logs), rows, says=SAYS)["train"] for logs in ("", 'duplicates = "keep"')]
    assert [[c["click"] for r in table for c in r["candidates"]] for table in tables] == [[0, 1], [0, 0, 1]]


EVENTS = [{"user": 1, "item": 10, "time": second * S, "rid": rid} for second, rid in ((5, "a"), (4, None), (9, "z"))]


@pytest.mark.parametrize(
    ("by_request", "within", "expected"),
    [
        (False, None, {"a": (0, None), "b": (3, 4 * S)}),
        (True, None, {"a": (1, 5 * S), "b": (2, 4 * S)}),
        (True, 3 * S, {"a": (0, None), "b": (2, 4 * S)}),
        (False, 0, {"a": (0, None), "b": (0, None)}),
    ],
)
def test_an_event_belongs_to_the_latest_impression_of_its_request_or_else_of_its_user_and_item(
    by_request, within, expected
):
    """The first event of an impression gives its timestamp, and all are counted."""
    rows = [{**row, "rid": rid} for row, rid in zip(shown((1, 10, 1, 0), (1, 10, 3, 0)), "ab", strict=True)]
    carried = 'n = { kind = "kept", column = "clicked_count" }\nt = { kind = "kept", column = "clicked_time" }'
    of = spec(candidates=carried, keys=', request = "rid"')
    events = {"clicked": EventRows(EVENTS, within=within, by_request=by_request)}
    table = session_table(of, rows, says=SAYS, events=events)["train"]
    assert {r["request_id"]: (r["candidates"][0]["n"], r["candidates"][0]["t"]) for r in table} == expected


def test_a_side_table_is_as_it_was_just_before_the_request():
    """A row that begins at the request's moment is not seen; a row without a beginning always is."""
    rows = shown((1, 10, 1, 0), (1, 10, 2, 0), (1, 10, 3, 0))
    price = spec(candidates='x = { kind = "number" }')
    changing = {10: [{"since": 2 * S, "x": 5}, {"since": 1 * S, "x": 4}]}
    assert rows_of(price, rows, items=changing) == [None, 4, 5]
    assert rows_of(price, rows, items={10: [{"x": 7}]}) == [7, 7, 7]


def test_words_are_runs_of_letters_and_digits():
    """Of any script, in lower case."""
    assert words("Red SHOES, size-42!") == ["red", "shoes", "size", "42"]
    assert words("\u00c9t\u00e9_\u4e2d\u6587") == ["\u00e9t\u00e9", "\u4e2d\u6587"]
    assert words(" ") == []


def test_requests_are_grouped_by_pause_and_by_context():
    """Same user, no pause longer than the gap, the same city; somebody unknown has requests of one impression."""
    rows = shown(
        (1, 10, 0, 0), (1, 11, 0, 0), (2, 10, 0, 0), (1, 12, 0, 0), (1, 13, 1, 0), (None, 10, 0, 0), (None, 10, 0, 0),
        city=["x", "x", "x", "y", "y", "x", None],
    )  # fmt: skip
    table = session_table(spec(context='city = { kind = "id", values = "string" }'), rows, says=SAYS)["train"]
    assert [(r["request_id"], len(r["candidates"])) for r in table] == [
        (None, 1), (None, 1), ("1-0", 2), ("1-1", 1), ("1-2", 1), ("2-0", 1),
    ]  # fmt: skip
