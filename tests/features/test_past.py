"""Counts, rates and histories against their slow twins, and the leak of a microsecond."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.past import Past, as_keys
from rec.errors import SpecError
from tests.features import tiny
from tests.reference import features as slow


def asked(values: list) -> pl.Series:
    """Values to be asked about."""
    return pl.Series(values, dtype=pl.Int64)


@settings(deadline=None)
@given(tiny.impressions, st.integers(0, 4))
def test_counts_are_those_of_the_slow_twin(rows, window):
    """Earlier impressions and earlier known clicks of a user, for every user and one never seen, at every second."""
    _, past = tiny.known(tiny.spec(window=window), rows)
    moments = range(20)
    for user in (None, 1, 2, 3, 99):
        users = asked([user] * 20)
        shown = past.count("user", None, users, np.array(moments) * tiny.SECOND)
        clicked = past.count("user", "click", users, np.array(moments) * tiny.SECOND)
        assert slow.same(shown, [slow.count(rows, 0, user, m) for m in moments])
        assert slow.same(clicked, [slow.events(rows, 0, user, m, window=window) for m in moments])


@settings(deadline=None)
@given(tiny.impressions, st.integers(0, 4), st.sampled_from([0.5, 20.0]))
def test_rates_are_those_of_the_slow_twin(rows, window, prior):
    """Clicks per impression of an item, smoothed by the rate of all at that moment; the unobserved are left out."""
    _, past = tiny.known(tiny.spec(window=window), rows)
    moments = range(20)
    for item in (None, 10, 11, 99):
        made = past.rate("item", "click", asked([item] * 20), np.array(moments) * tiny.SECOND, prior=prior)
        assert slow.same(made, [slow.rate(rows, 1, item, m, window=window, prior=prior) for m in moments])


@settings(deadline=None)
@given(tiny.impressions, st.integers(0, 4), st.booleans(), st.integers(1, 4))
def test_histories_are_those_of_the_slow_twin(rows, window, clicked, last):
    """The last items of a user, oldest first, whatever ties and repeats there are."""
    _, past = tiny.known(tiny.spec(window=window), rows)
    moments = range(20)
    for user in (None, 1, 2, 99):
        users, task = asked([user] * 20), "click" if clicked else None
        made = past.latest("item", task, users, np.array(moments) * tiny.SECOND, last=last).to_pylist()
        window_of = window if clicked else 0
        assert made == [slow.history(rows, user, m, window=window_of, last=last, clicked=clicked) for m in moments]


@pytest.mark.parametrize(("late", "seen"), [(0, 0), (1, 1)])
def test_a_leak_of_one_microsecond_is_caught(late, seen):
    """A click known at T is not known to a request at T; one microsecond later it is."""
    _, past = tiny.known(tiny.spec(window=3), [(1, 10, 5, 1)])
    moment = np.array([8 * tiny.SECOND + late])
    assert past.count("user", "click", asked([1]), moment).tolist() == [seen]
    assert len(past.latest("item", "click", asked([1]), moment, last=5).to_pylist()[0]) == seen


def test_a_planted_leak_of_one_microsecond_changes_the_count(monkeypatch):
    """If ties were broken for us, the twin would notice: the test above is not blind."""
    _, past = tiny.known(tiny.spec(), [(1, 10, 5, 1)])
    honest = past.count("user", "click", asked([1]), np.array([5 * tiny.SECOND]))
    monkeypatch.setattr(Past, "before", lambda self, code, time, plain=Past.before: plain(self, code, time + 1))
    assert past.count("user", "click", asked([1]), np.array([5 * tiny.SECOND])) != honest


def test_what_happens_later_changes_nothing_before():
    """Rewriting every row from second 6 on leaves all features of earlier moments as they were."""
    rows = [(1, 10, 1, 1), (2, 10, 3, 0), (1, 11, 5, 1)]
    at = np.arange(7) * tiny.SECOND
    made = []
    for future in ([(1, 10, 6, 0)], [(1, 10, 6, 1), (1, 12, 7, 1), (3, 10, 9, 1)]):
        _, past = tiny.known(tiny.spec(), rows + future)
        made.append(past.rate("item", "click", asked([10] * 7), at, prior=2.0).tolist())
    assert made[0] == made[1]


def test_keys_of_any_type_can_be_counted():
    """Words, truths, days and numbers all become int64 or text."""
    assert as_keys(pl.Series([True, None])).to_pylist() == [1, None]
    assert as_keys(pl.Series(["a", None])).to_pylist() == ["a", None]
    assert as_keys(pl.Series([1.5])).to_pylist() == ["1.5"]


def test_lists_cannot_be_counted_by():
    """A list is not one value."""
    with pytest.raises(SpecError, match=r"column 'tags': expected one value per row to count by, got List\(Int64\)"):
        as_keys(pl.Series("tags", [[1]]))
