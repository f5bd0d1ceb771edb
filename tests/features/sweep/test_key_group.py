"""The totals of keys against loops, whatever keys, ties, lags and windows; and the leak of a microsecond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.sweep.event_queue import EventQueue
from features.sweep.key_group import KeyGroup
from features.sweep.running_base import HOUR
from features.transforms import counters
from features.transforms.counters import NEVER, Counter
from tests.features import tiny

# few keys and moments, so that ties and repeats are common; the largest hash there is among them
KEYS = [0, 7, 2**64 - 1]
events = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(-3, 9), st.sampled_from([-1, 0, 1, 1])), max_size=20)


def group(of: list[Counter], rows: list[tuple]) -> tuple[KeyGroup, EventQueue]:
    """A group of counters, and a queue of events (key, moment, label) of one behaviour."""
    made = KeyGroup(("item",), of, ["click"])
    queue = EventQueue(keys=["key"], values=[], labels=1)
    code, time, label = zip(*rows, strict=True) if rows else ((), (), ())
    keys = made.rows(np.array(code, np.uint64), None)
    labels, line = np.array(label, np.int8)[None, :], np.arange(len(rows))
    queue.add({"time": np.array(time, np.int64), "place": line}, {"key": keys}, labels)
    return made, queue


def asked(group: KeyGroup, queue: EventQueue, moments: list[int], *, clock: int = -100, prior: float = 0.0) -> dict:
    """What is known of every key at some moments, in order: lists by name of a counter."""
    rows = np.tile(group.table.find(np.array([*KEYS, 9], np.uint64)), len(moments))
    nobody, offsets = np.zeros(0, np.int32), np.arange(len(moments) + 1) * 4
    answers = group.ask(
        queue, "key", clock=clock, time=np.array(moments), bases=np.full((1, len(moments)), prior),
        context=nobody, candidates=rows, offsets=offsets,
    )  # fmt: skip
    return {name: values.tolist() for name, values in answers["candidates"].items()}


@settings(deadline=None)
@given(
    rows=events,
    moments=st.lists(st.integers(-5, 20), min_size=1, max_size=5),
    window=st.sampled_from([None, 0, 1, 4, 2**60]),
    lag=st.sampled_from([0, 2]),
)
def test_what_is_counted_is_what_a_loop_counts(rows, moments, window, lag):
    """Of every key and one never seen, at moments in any order, one after the other."""
    of = [
        Counter("candidates", "shown", ("item",), "count", None, 0, window, 0.0),
        Counter("candidates", "clicks", ("item",), "count", "click", lag, window, 0.0),
        Counter("candidates", "rate", ("item",), "rate", "click", lag, window, 3.0),
        Counter("candidates", "last", ("item",), "since", "click", lag, None, 0.0),
        Counter("candidates", "first", ("item",), "since_first", "click", lag, None, 0.0),
    ]
    moments = sorted(moments)
    values = asked(*group(of, rows), moments, prior=0.25)
    for place, (before, key) in enumerate((moment, key) for moment in moments for key in [*KEYS, 9]):

        def known(delay, before=before, key=key):
            from_ = None if window is None else before - delay - window
            return [y for k, t, y in rows if k == key and t < before - delay and (from_ is None or t >= from_)]

        clicks = known(lag)
        assert values["shown"][place] == len(known(0))
        assert values["clicks"][place] == sum(y == 1 for y in clicks)
        rate = (sum(y == 1 for y in clicks) + 3.0 * 0.25) / (sum(y >= 0 for y in clicks) + 3.0)
        assert values["rate"][place] == float(np.float32(rate))
        ever = [t for k, t, y in rows if k == key and t < before - lag and y == 1]
        assert values["last"][place] == max(ever, default=NEVER)
        assert values["first"][place] == min(ever, default=NEVER)


@pytest.mark.parametrize(("late", "seen"), [(0, 0), (1, 1)])
def test_a_leak_of_one_microsecond_is_caught(late, seen):
    """A click of second 5 whose window is 3 s is not known to a request at 8 s; one microsecond later it is."""
    of = tiny.spec(candidates='n = { kind = "number", make = "count", per = "item", task = "click" }', window=3)
    made = group(counters.counters(of), [(7, 5 * tiny.SECOND, 1)])
    assert asked(*made, [8 * tiny.SECOND + late])["n"][1] == seen


def test_a_key_that_is_missing_has_no_number():
    """NaN, and no last moment."""
    of = [Counter("candidates", n, ("item",), m, None, 0, None, 0.0) for n, m in (("n", "count"), ("last", "since"))]
    made, queue = group(of, [(7, 5, 1)])
    rows = made.rows(np.array([7], np.uint64), np.array([False]))
    nobody = np.zeros(0, np.int32)
    actual = made.ask(
        queue, "key", clock=0, time=np.array([9]), bases=np.zeros((1, 1)), context=nobody, candidates=rows,
        offsets=np.array([0, 1]),
    )["candidates"]  # fmt: skip
    assert (np.isnan(actual["n"]).tolist(), actual["last"].tolist()) == ([True], [NEVER])


def test_every_window_of_a_feature_is_a_counter():
    """With the lag of its behaviour, be it a task's or an event's; `since` is of users unless it says otherwise."""
    of = tiny.spec(
        context='last = { kind = "number", make = "since", task = "long" }',
        candidates='r = { kind = "number", make = "rate", per = ["user", "item"], task = "click", '
        'windows = ["1h", "ever"] }\n'
        'of = { kind = "number", make = "rate", per = "item", task = "long", given = "click" }',
        tasks="[events]\nlong = { label = 'clicked = 1', window = '2s' }",
        window=3,
    )
    actual = [(c.name, c.per, c.task, c.lag, c.window) for c in counters.counters(of)]
    assert actual == [
        ("last", ("user",), "long", 2_000_000, None),
        ("r_1h", ("user", "item"), "click", 3_000_000, HOUR),
        ("r_ever", ("user", "item"), "click", 3_000_000, None),
        ("of", ("item",), "long|click", 3_000_000, None),
    ]
