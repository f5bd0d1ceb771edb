"""The sweep against its twin: fed in any order, asked in order of time, corrected, saved and restored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from features.sweep import sweep_tables
from features.sweep.events import Events, RequestKeys
from features.sweep.history_values import HistoryValues
from features.sweep.key_group import KeyGroup
from features.sweep.sweep import Sweep
from features.transforms.counters import NEVER, SHARE
from tests.features import tiny
from tests.reference.sweep import UNIT, Event, SlowSweep, same

SECOND = tiny.SECOND
SPEC = tiny.spec(
    context='seen = { kind = "ids", make = "history", last = 2 }\n'
    'clicked = { kind = "ids", make = "history", task = "click", last = 3 }\n'
    'mine = { kind = "number", make = "rate", per = "user", task = "click", windows = ["4s", "ever"], prior = 2.0 }',
    candidates='n = { kind = "number", make = "count", per = "item", windows = ["3s", "ever"] }\n'
    'r = { kind = "number", make = "rate", per = "item", task = "click", prior = 1.0 }\n'
    'pair = { kind = "number", make = "count", per = ["user", "item"], task = "click", window = "5s" }\n'
    'last = { kind = "number", make = "since", per = "item", task = "click" }\n'
    'first = { kind = "number", make = "since_first", per = "item", task = "click" }\n'
    'fading = { kind = "number", make = "count", per = "item", task = "click", half_life = "3s" }\n'
    'fad = { kind = "number", make = "rate", per = ["user", "item"], task = "click", half_life = "2s", prior = 1.0 }\n'
    'mean = { kind = "number", make = "mean", per = "item", column = "x", task = "click", windows = ["4s", "ever"] }\n'
    'sum = { kind = "number", make = "sum", per = ["user", "item"], column = "x", window = "3s" }\n'
    'ec = { kind = "number", make = "expected", per = "item", windows = ["3s", "ever"] }\n'
    'coec = { kind = "number", make = "coec", per = "item", task = "click", windows = ["4s", "ever"], prior = 2.0 }\n'
    'newest = { kind = "number", make = "last", per = "item", column = "x", task = "click", window = "5s" }',
    window=2,
)
PERS = [("user",), ("item",), ("user", "item")]
FIXED = {None: None, 5: -3, 6: 2**40 + 1, 7: -(2**62)}  # as whole numbers of 2^-24
LAGS = {None: 0, "click": 2 * SECOND}
keys = st.sampled_from([None, 1, 1, 2])
one = st.tuples(st.integers(0, 9), st.sampled_from([-1, 0, 1, 1]), keys, keys, st.sampled_from([None, 5, 6, 7]))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.lists(one, max_size=5)),
        st.tuples(st.just("ask"), st.lists(st.integers(0, 12), min_size=1, max_size=3)),
        st.tuples(st.just("correct"), st.lists(st.integers(0, 30), max_size=3, unique=True)),
        st.tuples(st.just("save"), st.none()),
    ),
    max_size=8,
)


def coded(sweep: Sweep, per: tuple[str, ...], values: list[int | None]) -> np.ndarray:
    """The rows of keys, as if a key's number were its hash."""
    code = np.array([0 if value is None else value for value in values], np.uint64)
    return sweep.groups[per].rows(code, np.array([value is not None for value in values], bool))


def events(sweep: Sweep, some: list[Event]) -> Events:
    """Events as arrays."""
    people = np.array([event.person or 0 for event in some], np.uint64)
    known = np.array([event.person is not None for event in some], bool)
    values = {}
    for name in sweep.histories:
        held = [event.values[name] for event in some]
        values[name] = np.array([v or 0 for v in held], np.int64), np.array([v is not None for v in held], bool)
    return Events(
        np.array([event.time for event in some], np.int64),
        np.array([event.place for event in some], np.int64),
        np.array([[event.labels[task] for event in some] for task in sweep.tasks], np.int8).reshape(-1, len(some)),
        {per: coded(sweep, per, [event.keys[per] for event in some]) for per in PERS},
        sweep.rows_of_people(people, known),
        values,
        {
            "x": np.array([NEVER if event.numbers["x"] is None else event.numbers["x"] for event in some], np.int64),
            SHARE: np.array([event.numbers[SHARE] for event in some], np.int64),
        },
    )


def checked(sweep: Sweep, twin: SlowSweep, moments: list[int]) -> None:
    """Assert that requests of both users for both items, and of nobody, are answered as the twin would."""
    users, items = [1, 2, None], [1, 2, 9]
    time = np.repeat(moments, len(users))
    pairs = {("user",): users, ("item",): items}
    asked = {per: [key for _ in moments for _ in users for key in items] for per in [("item",)]}
    asked["user", "item"] = [None if u is None else i if u == i else 40 for _ in moments for u in users for i in items]
    context = {("user",): coded(sweep, ("user",), pairs["user",] * len(moments))}
    candidates = {per: coded(sweep, per, values) for per, values in asked.items()}
    people = np.array([u or 0 for u in users] * len(moments), np.uint64)
    rows = sweep.rows_of_people(people, np.array([u is not None for u in users] * len(moments)))
    offsets = np.arange(len(time) + 1) * len(items)
    answers = sweep.ask(RequestKeys(time, offsets, context, candidates, rows, np.full(len(time), -1, np.int32)))
    for counter in sweep.counters:
        made = getattr(answers, counter.side)[counter.name]
        values = pairs["user",] * len(moments) if counter.side == "context" else asked[counter.per]
        at = time if counter.side == "context" else np.repeat(time, len(items))
        for place, (key, moment) in enumerate(zip(values, at.tolist(), strict=True)):
            assert same(float(made[place]), twin.counter(counter, key, moment)), (counter.name, key, moment)
    for name, feature in sweep.histories_of.items():
        _, actual, cuts = answers.histories[name]
        for place, (user, moment) in enumerate(zip(users * len(moments), time.tolist(), strict=True)):
            expected = twin.history(name, feature.task, user, moment, feature.last)
            assert actual[cuts[place] : cuts[place + 1]].tolist() == expected


@settings(deadline=None, max_examples=60)
@given(steps)
def test_whatever_happens_every_answer_is_the_twins(drawn):
    """Events early, late and tied, outcomes that turn out otherwise, a sweep that was saved and goes on."""
    sweep, twin, clock = Sweep(SPEC, kept=1 << 40), SlowSweep(LAGS), 0
    for kind, what in drawn:
        if kind == "feed":
            new = []
            for second, label, user, item, value in what:
                pair = None if user is None or item is None else item if user == item else 40
                place = len(twin.events) + len(new)
                held = {"seen": value, "clicked": value}
                named = {("user",): user, ("item",): item, ("user", "item"): pair}
                numbers = {"x": FIXED[value], SHARE: UNIT // (value or 1)}
                new.append(Event(second * SECOND, place, {"click": label}, named, user, held, numbers))
            twin.events += new
            if new:
                sweep.feed(events(sweep, new))
        elif kind == "ask":
            moments = [max(clock, second * SECOND) for second in sorted(what)]
            clock = moments[-1]
            checked(sweep, twin, moments)
        elif kind == "correct":
            ordered = sorted(twin.events, key=lambda event: (event.time, event.place))
            places = sorted(place for place in what if place < len(ordered))
            for place in places:
                ordered[place].labels["click"] = 1
            if places:
                sweep.correct(np.array(places), events(sweep, [ordered[place] for place in places]))
        else:
            values = {name: HistoryValues(name, feature) for name, feature in sweep.histories_of.items()}
            tables, again = dict(sweep_tables.tables(sweep, values)), Sweep(SPEC, kept=1 << 40)
            sweep_tables.restore(again, values, sweep_tables.figures(sweep), tables.__getitem__)
            sweep = again


def test_a_planted_leak_of_one_microsecond_is_noticed(monkeypatch):
    """If outcomes entered at their own moment, the twin would notice: the test above is not blind."""
    plain = KeyGroup._steps
    monkeypatch.setattr(
        KeyGroup, "_steps", lambda group, own: [replace(s, delay=s.delay - 1) for s in plain(group, own)]
    )
    unshrunk = settings(deadline=None, max_examples=200, phases=[Phase.generate], database=None)
    with pytest.raises(AssertionError):
        unshrunk(given(steps)(test_whatever_happens_every_answer_is_the_twins.hypothesis.inner_test))()


def test_one_event_is_fed_as_several_are():
    """Where it is the last in time, and not before the clock."""
    sweep, twin = Sweep(SPEC), SlowSweep(LAGS)
    named = {("user",): 1, ("item",): 1, ("user", "item"): 1}
    for place, second in enumerate((3, 4, 4)):
        held, numbers = {"seen": 7, "clicked": 7}, {"x": 7, SHARE: UNIT}
        twin.events.append(Event(second * SECOND, place, {"click": 1}, named, 1, held, numbers))
        wide, rows = sweep.coded(events(sweep, twin.events[-1:]))
        columns = [
            np.array([block[name][0] for name in order])
            for block, order in ((wide, sweep.queue.columns), (rows, sweep.queue.keys))
        ]
        assert sweep.feed_one(columns[0], columns[1], np.array([1], np.int8))
    checked(sweep, twin, [5 * SECOND, 9 * SECOND])
    assert not sweep.feed_one(columns[0], columns[1], np.array([1], np.int8))
