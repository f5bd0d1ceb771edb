"""Counts that decay: near the exact sum, and the same bits whatever comes first, late or in between."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.store import state
from features.store.store import FeatureStore
from features.sweep.key_group import KeyGroup
from features.transforms.counters import Counter
from rec.spec import Spec
from tests.features import tiny
from tests.features.sweep.test_key_group import asked, group

DAY = 86_400_000_000
HOUR = 3_600_000_000
BOUND = 2.0**-22  # of the sum, which docs/features.md says
half_lives = st.one_of(st.sampled_from([1_000_000, HOUR, 36_500 * DAY]), st.integers(1, 1 << 40).map(lambda n: n * 97))
many = st.lists(st.tuples(st.integers(-40, 40), st.floats(0, 1)), min_size=1, max_size=30)


def fading(half_life: int, *, lag: int = 0) -> Counter:
    """A count of shows or clicks that halves."""
    return Counter("candidates", "n", ("item",), "count", "click" if lag else None, lag, None, 0.0, None, half_life)


def spec(half_life: str = "3s", *, window: int = 3) -> Spec:
    """How often an item was shown and clicked lately."""
    n = f'n = {{ kind = "number", make = "count", per = "item", half_life = "{half_life}" }}'
    r = f'c = {{ kind = "number", make = "count", per = "item", task = "click", half_life = "{half_life}" }}'
    return tiny.spec(candidates=f"{n}\n{r}", window=window)


def fed(of: Spec, rows: list[tuple]) -> FeatureStore:
    """A store fed with rows of (user, item, second, clicked), one after the other."""
    store = state.empty(of, tiny.logs([(1, 10, 0, 0)]))
    for row in rows:
        store.feed(tiny.frame([row]))
    return store


def counts(store: FeatureStore, second: float, item: int | None = 10) -> list[float | None]:
    """Shows and clicks of an item as of a second."""
    (row,) = store.hydrate(1, [item], round(second * tiny.SECOND)).to_pylist()
    return [row["candidates"][0][name] for name in ("n", "c")]


@settings(deadline=None)
@given(half_lives, many, st.integers(1, 1 << 36))
def test_a_count_is_within_two_to_the_minus_22_of_the_exact_one(half_life, events, later):
    """Of events that are up to 80 half-lives apart, before 1970 too, and of what is long past."""
    times = sorted(epoch * min(half_life, 10**6 * DAY // 80) + int(part * half_life) for epoch, part in events)
    now = times[-1] + later
    made = asked(*group([fading(half_life)], [(7, time, 1) for time in times]), [now], clock=-(1 << 62))["n"][1]
    exact = math.fsum(2.0 ** -((now - time) / half_life) for time in times)
    assert abs(made - exact) <= BOUND * exact + len(times) * 2.0**-56


@settings(deadline=None)
@given(many, st.randoms(use_true_random=False), st.integers(0, 10))
def test_the_order_in_which_events_come_does_not_change_a_bit(events, random, corrected):
    """Up to 32 half-lives late; an outcome that is corrected leaves as if it had not been."""
    half_life = 999_983
    times = sorted((epoch % 32) * half_life + int(part * half_life) for epoch, part in events)
    now = times[-1] + 7 * half_life // 2
    in_order = asked(*group([fading(half_life)], [(7, t, 1) for t in times]), [now])["n"][1]
    random.shuffle(times)
    made = KeyGroup(("item",), [fading(half_life)], ["click"])
    rows, label = made.rows(np.array([7], np.uint64), None), np.ones((1, 1), np.int8)
    (decayed,) = made.values
    noise = [t + half_life // 3 for t in times[:corrected]]
    for enters, of in ((True, [*noise, *times]), (False, noise)):
        for time in of:
            decayed.change({"time": np.array([time])}, rows, label, clock=now, enters=enters)
    late = made.read("candidates", rows, {}, now)["n"]
    assert late[0] == np.float32(in_order)


@pytest.mark.parametrize(("late", "seen"), [(0, [0.5, 0.0]), (1, [0.5, 1.0])])
def test_an_outcome_counts_whole_a_microsecond_after_its_window(late, seen):
    """A click of second 5 is known at second 8, and decays from then on; it was shown a half-life ago."""
    assert counts(fed(spec(), [(1, 10, 5, 1)]), 8 + late / tiny.SECOND) == pytest.approx(seen, abs=1e-6)


def test_what_comes_late_is_what_would_have_been_there(tmp_path):
    """Bit for bit, saved in between, at any later moment; without events there is 0, and without a key nothing."""
    rows = [(1, 10, s, s % 2) for s in (2, 3, 5, 7, 11, 13)]
    late, on_time = fed(spec(), rows[1:]), fed(spec(), rows)
    assert counts(late, 50) != counts(on_time, 50)
    late.feed(tiny.frame(rows[:1]))
    state.save(late, tmp_path / "state")
    late = state.load(spec(), tmp_path / "state")
    for second in (50, 50.000001, 61.3, 90):
        assert counts(late, second) == counts(on_time, second)
    assert (counts(late, 91, item=99), counts(late, 91, item=None)) == ([0.0, 0.0], [None, None])


def test_what_is_too_late_for_a_bit_of_it_does_not_count():
    """An impression 33 half-lives before the newest of its key: 2^-33 of one."""
    store = fed(spec(), [(1, 10, 1000, 0)])
    before = counts(store, 1001)
    store.feed(tiny.frame([(1, 10, 1000 - 33 * 3, 0)]))
    assert counts(store, 1001) == before == [pytest.approx(2 ** (-1 / 3), rel=1e-6), 0.0]


def test_slices_of_any_length_give_the_same_bits():
    """A queue that is advanced past some events, and asked for the rest."""
    rows = [(7, t, 1) for t in range(0, 3000, 7)]
    whole = asked(*group([fading(1000)], rows), [1500, 2999])["n"]
    made, queue = group([fading(1000)], rows)
    for clock in range(0, 1500, 100):
        made.advance(queue, "key", clock - 100, clock)
    part = asked(made, queue, [1500, 2999], clock=1400)["n"]
    assert part == whole
