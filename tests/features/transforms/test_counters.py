"""The past of keys against loops, whatever keys, ties, lags and windows; and the leak of a microsecond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.transforms import counters
from features.transforms.base_rates import HOUR, BaseRates
from features.transforms.counters import EventIndex
from tests.features import tiny

# few keys and moments, so that ties and repeats are common; the largest hash there is among them
events = st.lists(
    st.tuples(st.sampled_from([0, 7, 2**64 - 1]), st.integers(-3, 9), st.sampled_from([-1, 0, 1, 1])), max_size=20
)


def past(rows: list[tuple]) -> EventIndex:
    """Of events (key, moment, label)."""
    code, time, label = zip(*rows, strict=True) if rows else ((), (), ())
    return EventIndex(np.array(code, np.uint64), np.array(time, np.int64), {"click": np.array(label, np.int8)})


@pytest.mark.parametrize("room", [counters._ROOM, 10])
@settings(deadline=None)
@given(rows=events, before=st.integers(-5, 12), window=st.sampled_from([None, 0, 1, 4, 2**60]))
def test_what_is_counted_is_what_a_loop_counts(room, rows, before, window):
    """Of every key and one never seen; also where moments are too far apart for one line of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counters, "_ROOM", room)
        past_of_keys = past(rows)
        keys = np.array([0, 7, 9, 2**64 - 1], np.uint64)
        places, times = past_of_keys.places(keys), np.full(4, before)
        shown, _ = past_of_keys.count(None, places, times, window)
        observed, happened = past_of_keys.count("click", places, times, window)
        last = past_of_keys.last("click", places, times)
    for index, key in enumerate(keys.tolist()):
        seen = [
            (t, label) for k, t, label in rows if k == key and t < before and (window is None or t >= before - window)
        ]
        assert shown[index] == len(seen)
        assert observed[index] == sum(label >= 0 for _, label in seen)
        assert happened[index] == sum(label == 1 for _, label in seen)
        ever = [t for k, t, label in rows if k == key and t < before and label == 1]
        assert last[index] == max(ever, default=0)


@given(events)
def test_every_event_knows_the_place_of_its_key(rows):
    """In the order in which they came."""
    index = past(rows)
    assert index.keys[index.own].tolist() == [key for key, _, _ in rows] if rows else True


@pytest.mark.parametrize(("late", "seen"), [(0, 0), (1, 1)])
def test_a_leak_of_one_microsecond_is_caught(late, seen):
    """A click of second 5 whose window is 3 s is not known to a request at 8 s; one microsecond later it is."""
    of = tiny.spec(candidates='n = { kind = "number", make = "count", per = "item", task = "click" }', window=3)
    (counter,) = counters.counters(of)
    index = past([(7, 5 * tiny.SECOND, 1)])
    assert counter.value(index, np.array([0]), np.array([8 * tiny.SECOND + late]), None).tolist() == [seen]


def test_every_window_of_a_feature_is_a_counter():
    """With the lag of its behaviour, be it a task's or an event's; `since` is of users unless it says otherwise."""
    of = tiny.spec(
        context='last = { kind = "number", make = "since", task = "long" }',
        candidates='r = { kind = "number", make = "rate", per = ["user", "item"], task = "click", '
        'windows = ["1h", "ever"] }',
        tasks="[events]\nlong = { label = 'clicked = 1', window = '2s' }",
        window=3,
    )
    described = [(c.name, c.per, c.task, c.lag, c.window) for c in counters.counters(of)]
    assert described == [
        ("last", ("user",), "long", 2_000_000, None),
        ("r_1h", ("user", "item"), "click", 3_000_000, HOUR),
        ("r_ever", ("user", "item"), "click", 3_000_000, None),
    ]


@given(st.lists(st.lists(st.tuples(st.integers(-2 * HOUR, 3 * HOUR), st.sampled_from([-1, 0, 1])), max_size=8)))
def test_the_base_rate_is_of_the_whole_hours_before(parts):
    """However the log is divided; what is known in the hour itself does not count, nor what nobody observed.

    Where nothing is known there is no base.
    """
    hours = [BaseRates.of(np.array([k for k, _ in part], np.int64), np.array([y for _, y in part])) for part in parts]
    rates = BaseRates.from_plain(BaseRates.merged(hours).plain())
    for time in (0, HOUR - 1, HOUR, 2 * HOUR + 5):
        seen = [y for part in parts for k, y in part if k < time - time % HOUR and y >= 0]
        expected = (sum(seen) + 1) / (len(seen) + 2) if seen else np.nan
        assert rates.base(np.array([time])).tolist() == pytest.approx([expected], rel=0, abs=0, nan_ok=True)
