"""Histograms: exact while few numbers differ, coarse by one rule after, the same however the numbers are parted."""

from __future__ import annotations

from collections import Counter
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data import sketch

MOST = 512  # the fewest that a level always has room for
SHORT = st.floats(width=32, allow_nan=False, allow_infinity=False)
FEW = st.sampled_from([0.0, -0.0, 1.0, 1.5, -2.0, 3e38, -1e-45])
values = st.lists(SHORT | FEW | st.just(float("nan")), max_size=30)
# thousands that differ, near each other or over all magnitudes
many = st.builds(
    lambda seed, spread, size: (10.0 ** np.random.default_rng(seed).normal(0, spread, size)).astype(np.float32),
    st.integers(0, 99),
    st.sampled_from([1e-4, 0.1, 3.0]),
    st.integers(1000, 4000),
)


def parted(numbers, cuts, most):
    """The histogram of numbers in parts, which are then merged from the left."""
    parts = np.split(numbers, sorted(cut % (len(numbers) + 1) for cut in cuts))
    return reduce(lambda left, right: sketch.merged(left, right, most=most), _each(parts, most))


def _each(parts, most):
    return [sketch.of(part, most=most) for part in parts]


def same(left, right):
    """Bit for bit."""
    assert left.level == right.level
    for name in ("key", "count", "rest"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
        assert getattr(left, name).dtype == getattr(right, name).dtype


@given(values)
def test_few_numbers_are_counted_as_they_are(numbers):
    """Against a counter: in order, each with how often it occurs; NaN is left out, and -0 is 0."""
    actual = sketch.of(np.float32(numbers))
    counts = Counter(np.float32(v) + 0.0 for v in numbers if not np.isnan(v))
    assert actual.level == 0
    assert dict(zip(actual.lower().tolist(), actual.count.tolist(), strict=True)) == counts
    assert actual.lower().tolist() == actual.upper().tolist() == actual.mean().tolist() == sorted(counts)


@given(many, st.lists(st.integers(0, 10**6), max_size=4))
def test_it_does_not_matter_how_numbers_are_parted(numbers, cuts):
    """Nor in which order: the level and every bucket are those of all numbers at once."""
    whole = sketch.of(numbers, most=MOST)
    same(parted(numbers, cuts, MOST), whole)
    same(parted(numbers[::-1], cuts, MOST), whole)


def test_a_large_part_that_is_not_sorted_is_counted_the_same(monkeypatch):
    """The short way for many numbers that differ much."""
    for spread in (1e-4, 0.1, 3.0):
        numbers = (10.0 ** np.random.default_rng(1).normal(0, spread, 50_000)).astype(np.float32)
        numbers[::2] *= -1
        monkeypatch.setattr(sketch, "_MANY", 1 << 30)
        slow = sketch.of(numbers)
        monkeypatch.setattr(sketch, "_MANY", 1)
        same(sketch.of(numbers), slow)


@given(many)
def test_the_level_is_the_least_that_is_coarse_enough(numbers):
    """Against cutting bits in a loop."""
    counts = sketch.of(numbers, most=MOST)
    bits = numbers.view(np.uint32)
    least = next(level for level in range(24) if len(set((bits >> level).tolist())) <= MOST)
    assert counts.level == least
    assert len(counts.key) == len(set((bits >> least).tolist()))


@pytest.mark.parametrize(("size", "level"), [(511, 0), (512, 0), (513, 1)])
def test_as_many_as_there_is_room_for_are_kept_apart(size, level):
    """One more, and neighbours are counted together."""
    numbers = np.arange(size, dtype=np.uint32) + np.float32(1.0).view(np.uint32)
    assert sketch.of(numbers.view(np.float32), most=MOST).level == level


@given(many, st.booleans())
def test_the_mean_of_a_bucket_is_that_of_its_numbers(numbers, negative):
    """And they lie between its bounds."""
    numbers = -numbers if negative else numbers
    counts = sketch.of(numbers, most=MOST)
    bucket = np.searchsorted(counts.lower(), numbers, side="right") - 1
    assert (numbers <= counts.upper()[bucket]).all()
    sums = np.bincount(bucket, weights=numbers.astype(np.float64))
    np.testing.assert_allclose(counts.mean(), sums / counts.count, rtol=1e-12)
    assert counts.total() == len(numbers)


@pytest.mark.parametrize("size", [0, 1])
def test_of_nothing_and_of_one(size):
    """No bucket, or one; merging nothing changes nothing."""
    counts = sketch.of(np.full(size, 7.0))
    assert counts.lower().tolist() == [7.0] * size
    same(sketch.merged(counts, sketch.of(np.zeros(0))), counts)
