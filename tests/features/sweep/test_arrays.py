"""The arrays of the sweep against slow ones: the table of keys, the queue, histories, base rates, newest rows."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import hashing
from features.store.open_windows import OpenWindows
from features.sweep.event_queue import EventQueue
from features.sweep.histories import Histories
from features.sweep.key_rows import KeyRows, hashed
from features.sweep.newest_rows import NewestRows
from features.sweep.running_base import HOUR, RunningBase
from features.sweep.text_codes import TextCodes

quietly = settings(deadline=None, max_examples=50)
few = st.lists(st.integers(0, 30), max_size=40)


@quietly
@given(st.lists(few, max_size=6), few)
def test_rows_are_those_of_a_dict(added, wanted):
    """Keys get the next row when they come first, and keep it; many of them want the same slot."""
    rows, expected = KeyRows(), {}
    for batch in added:
        places_added = rows.add(np.array(batch, np.uint64) << np.uint64(60))
        assert places_added.tolist() == [expected.setdefault(one % 16, len(expected) + 1) for one in batch]
    places = rows.find(np.array(wanted, np.uint64) << np.uint64(60))
    assert places.tolist() == [expected.get(one % 16, 0) for one in wanted]
    assert (rows.codes() >> np.uint64(60)).tolist() == list(expected)


def test_rows_stay_when_there_are_many():
    """A hundred thousand keys, in batches: the table grows under them."""
    code = hashing.hashed(pl.Series(np.arange(100_000)))
    rows = KeyRows()
    for batch in np.split(code, 10):
        rows.add(batch)
    assert rows.find(code).tolist() == list(range(1, 100_001))
    assert not rows.find(hashing.hashed(pl.Series(np.arange(100_000, 101_000)))).any()


@quietly
@given(st.lists(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=8), max_size=6), st.integers(0, 20))
def test_a_queue_is_in_the_order_of_moments_then_of_places(batches, forgotten):
    """Then of arrival; the rows of a frame move with it, and what is forgotten leaves both."""
    queue, rows, expected = EventQueue(keys=["who"], values=["n"], labels=1), OpenWindows(pl.DataFrame({"n": [0]})), []
    for batch in batches:
        number = np.arange(len(expected), len(expected) + len(batch))
        time, place = np.array(batch, np.int64).reshape(-1, 2).T
        who, label = number.astype(np.int32), (number % 2).astype(np.int8)[None, :]
        merge = queue.add({"time": time, "place": place, "n": number}, {"who": who}, label)
        rows.add(pl.DataFrame({"n": number}), merge)
        expected += [(*one, n) for one, n in zip(batch, number.tolist(), strict=True)]
    expected.sort(key=lambda one: one[:2])
    actual = zip(*(queue.of(name).tolist() for name in ("time", "place", "n")), strict=True)
    assert list(actual) == expected
    assert rows.rows["n"].to_list() == queue.of("n").tolist() == queue.of("who").tolist()
    assert queue.labels[0].tolist() == [n % 2 for _, _, n in expected]
    assert queue.before(7) == sum(time < 7 for time, _, _ in expected)
    rows.forget(queue.forget(forgotten))
    assert queue.of("n").tolist() == [n for time, _, n in expected if time >= forgotten]
    assert rows.rows["n"].to_list() == queue.of("n").tolist()
    again = EventQueue(keys=["who"], values=["n"], labels=1)
    again.restore(queue.saved())
    assert again.of("n").tolist() == queue.of("n").tolist()


def test_one_event_is_queued_as_several_are():
    """At the end, where it is the last in time; otherwise it says so, and is not there."""
    queue = EventQueue(keys=["who"], values=["n"], labels=1)
    for time, fits in ((5, True), (7, True), (6, False), (7, True)):
        one = np.array([time, len(queue), 40 + time]), np.array([time], np.int32), np.array([1], np.int8)
        assert queue.add_one(*one) == fits
    assert queue.of("n").tolist() == [45, 47, 47]
    assert queue.of("who").tolist() == [5, 7, 7]


@quietly
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), max_size=12), st.integers(1, 4))
def test_a_track_holds_the_newest(done, last):
    """By moment, then by arrival; whatever order they come in."""
    track = Histories(-1, 0, last)
    for time, value in done:
        track.insert(3, time, value)
    expected = sorted(done, key=lambda one: one[0])[-last:]
    assert list(zip(*(one.tolist() for one in track.read(3)), strict=True)) == expected
    assert track.read(4)[0].tolist() == []


def test_what_did_not_happen_after_all_is_taken_off_a_track():
    """One of two alike is left."""
    track = Histories(-1, 0, 3)
    for time, value in [(1, 7), (2, 8), (2, 8)]:
        track.insert(1, time, value)
    track.remove(1, 2, 8)
    track.remove(1, 9, 9)
    assert [one.tolist() for one in track.read(1)] == [[1, 2], [7, 8]]


@quietly
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from([-1, 0, 1])), max_size=20),
    st.lists(st.integers(0, 7), min_size=1, max_size=4),
)
def test_a_base_is_that_of_the_hours_before(outcomes, hours):
    """Hour after hour, and also of outcomes that come late; none where none is known."""
    events = sorted((h * HOUR + 5, label) for h, label in outcomes)
    half = len(events) // 2
    queue, base = EventQueue(keys=[], values=[], labels=1), RunningBase(0, 0)
    time, label = np.array([t for t, _ in events], np.int64), np.array([y for _, y in events], np.int8)
    queue.add({"time": time[half:], "place": np.arange(len(events) - half)}, {}, label[None, half:])
    moments = np.array([hour * HOUR + 1 for hour in sorted(hours)])
    base.ask(queue, clock=-HOUR, time=moments[:1])
    passed = time[:half] < moments[0]
    base.change(time[:half][passed], label[:half][passed], None, 1)  # the first half comes late
    for place, hour in enumerate(sorted(hours)):
        late = [(t, y) for t, y in events[:half] if t < moments[0]] + events[half:]
        seen = [y for t, y in late if t // HOUR < hour and y >= 0]
        expected = (sum(y == 1 for y in seen) + 1) / (len(seen) + 2) if seen else math.nan
        (made,) = base.ask(
            queue, clock=int(moments[max(0, place - 1)]) if place else int(moments[0]), time=moments[place : place + 1]
        )
        assert made == pytest.approx(expected, rel=0, abs=0, nan_ok=True)


@quietly
@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=9), max_size=5))
def test_the_newest_row_of_every_key_is_kept(batches):
    """By its timestamp, and where that is equal by its line; whatever order rows come in."""
    newest, expected, line = NewestRows(), {}, 0
    for batch in batches:
        lines = np.arange(line, line + len(batch))
        line += len(batch)
        key, time = np.array(batch, np.int64).reshape(-1, 2).T
        newest.add(key.astype(np.uint64), key > 0, pl.DataFrame({"line": lines, "key": key}), time, lines)
        for one, at, n in zip(key.tolist(), time.tolist(), lines.tolist(), strict=True):
            if one > 0:
                expected[one] = max(expected.get(one, (at, n)), (at, n))
    if expected:
        rows = newest.rows()
        actual = dict(
            zip(rows["key"].to_list(), zip(newest.times().tolist(), rows["line"].to_list(), strict=True), strict=True)
        )
        assert actual == expected


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_whole_numbers_are_hashed_alike_by_the_compiled_loop(numbers):
    """The quick hash is the one that states and tables are keyed by; of text it is the same function."""
    for values in (pl.Series(numbers, dtype=pl.Int64), pl.Series(map(str, numbers), dtype=pl.String)):
        assert hashed(values).tolist() == hashing.hashed(values).tolist()


def test_words_come_back():
    """In whatever batches they came; an old word keeps its code."""
    words = TextCodes()
    first, second = words.codes(pl.Series(["a", "b", "a"])), words.codes(pl.Series(["c", "b"]))
    assert (first.tolist(), second.tolist()) == ([1, 2, 1], [3, 2])
    assert words.of(np.array([3, 1, 2])).to_pylist() == ["c", "a", "b"]
    assert words.known().to_pylist() == ["a", "b", "c"]
