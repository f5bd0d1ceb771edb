"""Expected clicks: shares of requests, whatever comes of these later, and in however many posts."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.pipeline import point_in_time
from features.store import state
from features.store.store import FeatureStore
from features.sweep.request_shares import UNIT, shares, sizes
from tests.features import drawn, tiny
from tests.features.test_twins import checked, hastily, quietly

LINES = (
    'ec = { kind = "number", make = "expected", per = "item", windows = ["20s", "ever"] }\n'
    'coec = { kind = "number", make = "coec", per = "item", task = "click", prior = 2.0 }'
)
SPEC = tiny.spec(candidates=LINES, window=1)
ROWS = [(1, 10, 0, 1), (1, 11, 0, 0), (1, 12, 3, 1), (1, 13, 3, 0), (2, 10, 3, 1)]  # of user 1 in one request


def fed(*posts: list[tuple], until: float | None = None) -> FeatureStore:
    """A store fed with posts of rows, which is asked as of a second after the first of them."""
    store = state.empty(SPEC, tiny.logs(ROWS))
    for place, post in enumerate(posts):
        store.feed(tiny.frame(post))
        if place == 0 and until is not None:
            numbers(store, until)
    return store


def numbers(store: FeatureStore, second: float, *items: int) -> list[dict]:
    """What the store says of items as of a second."""
    return store.hydrate(1, items, round(second * tiny.SECOND)).to_pylist()[0]["candidates"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12), st.booleans())
def test_a_size_is_that_of_the_request_until_then(impressions, in_order):
    """Those of one moment are seen together; requests in order or mixed."""
    impressions = sorted(impressions) if in_order else impressions
    request, time = np.array(impressions, np.int64).reshape(-1, 2).T
    expected = [sum(r == other and t <= at for r, t in impressions) for other, at in impressions]
    assert sizes(request, time, (request[:, None] == request).sum(axis=1)).tolist() == expected


def test_shares_of_most_lists_are_exact():
    """Up to 20, and 24, 25, 30, 40, 50 and 100; else to 2^-31, and a huge list counts for something."""
    exact = [size for size in range(1, 101) if size * shares(np.array([size]))[0] == UNIT]
    assert {*range(1, 21), 24, 25, 30, 40, 50, 100} <= set(exact)
    for size in (21, 499, 10**6):
        assert abs(Fraction(int(shares(np.array([size]))[0]), UNIT) - Fraction(1, size)) <= Fraction(1, 2**31)
    assert shares(np.array([10**6]))[0] > 0


@pytest.mark.parametrize(("late", "value"), [(0, 0.0), (1e-6, 1 / 2)])
def test_a_share_is_known_a_microsecond_after_its_impression(late, value):
    """Impressions at the timestamp of the request are not known to it."""
    assert numbers(fed(ROWS), late, 10)[0]["ec_ever"] == value


@pytest.mark.parametrize(("late", "value"), [(0, 1 / 2 + 1), (1e-6, 1.0)])
def test_a_share_leaves_its_window_to_the_microsecond(late, value):
    """The half of second 0 is in a window of 20 s at 20, and is not a microsecond later."""
    assert numbers(fed(ROWS), 20 + late, 10)[0]["ec_20s"] == value


@pytest.mark.parametrize("until", [None, 0.5, 2, 9])
@pytest.mark.parametrize("cut", range(len(ROWS) + 1))
def test_a_request_that_comes_in_two_posts_is_one(cut, until):
    """Also where the first half was counted already; rows of the second may be late, and in any order."""
    whole, items = fed(ROWS), (10, 11, 12, 13)
    for posts in ((ROWS[:cut], ROWS[cut:]), (ROWS[cut:], ROWS[:cut])):
        parts = fed(*posts, until=until)
        assert [numbers(parts, at, *items) for at in (10, 20, 3600)] == [
            numbers(store, at, *items) for store in [fed(ROWS)] for at in (10, 20, 3600)
        ]
    assert [row["ec_ever"] for row in numbers(whole, 10, *items)] == [1.5, 0.5, 0.25, 0.25]
    base = (3 + 1) / (1 / 2 + 1 / 2 + 1 / 4 + 1 / 4 + 1 + 1)
    assert numbers(whole, 3600, 12)[0]["coec"] == pytest.approx((1 + 2 * base) / (1 / 4 + 2))


def test_a_request_goes_on_in_a_store_that_was_saved(tmp_path):
    """It is the same request afterwards, and what was counted of it is corrected."""
    store = fed(ROWS[:1], until=1)
    state.save(store, tmp_path / "state")
    again = state.load(SPEC, tmp_path / "state")
    again.feed(tiny.frame(ROWS[1:]))
    assert numbers(again, 10, 10, 12) == numbers(fed(ROWS), 10, 10, 12)


def test_the_size_that_a_request_will_have_is_a_leak_that_is_noticed(monkeypatch):
    """If an impression counted by the whole of its request, the twin would notice."""
    monkeypatch.setattr(point_in_time, "sizes", lambda _request, _time, total: total)
    soon = settings(**quietly, **hastily, max_examples=200)
    with pytest.raises(AssertionError):
        soon(given(drawn.logs(only=("item_x", "item_y", "user_x")))(checked))()
