"""Hashes of keys: alike for what is alike, whatever it was stored as, and spread evenly."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import hashing
from rec.errors import SpecError


def test_alike_values_have_one_hash():
    """An int of whichever width, a truth as 0 or 1, a word as a word or a category."""
    numbers = pl.Series([1, 0, 300])
    assert hashing.hashed(numbers).tolist() == hashing.hashed(numbers.cast(pl.UInt16)).tolist()
    assert hashing.hashed(pl.Series([True, False])).tolist() == hashing.hashed(numbers)[:2].tolist()
    words = pl.Series(["a", "b"])
    assert hashing.hashed(words).tolist() == hashing.hashed(words.cast(pl.Categorical)).tolist()
    assert len(set(hashing.hashed(pl.Series(np.arange(10_000))).tolist())) == 10_000


def test_a_tuple_is_not_its_turned_self():
    """Nor a tuple with the same words cut elsewhere; a tuple with a missing part is missing."""
    code, missing = hashing.together([pl.Series([1, 2, None, 1]), pl.Series([2, 1, 1, 2])])
    assert (code[0] == code[3], code[0] == code[1], missing.tolist()) == (True, False, [False, False, True, False])
    words, _ = hashing.together([pl.Series(["ab", "a"]), pl.Series(["c", "bc"])])
    assert words[0] != words[1]
    assert hashing.hashed(pl.Series([1]))[0] != hashing.together([pl.Series([1]), pl.Series([0])])[0][0]


def test_grains_and_buckets_are_ranges_of_hashes_of_about_one_size():
    """So that a larger hash is never in an earlier one, and a bucket of grains is a range of grains."""
    code = np.sort(hashing.hashed(pl.Series(np.arange(100_000))))
    for place, count in ((hashing.grain(code), hashing.GRAINS), (hashing.bucket(code, 7), 7)):
        assert (np.diff(place) >= 0).all()
        sizes = np.bincount(place, minlength=count)
        assert len(sizes) == count
        assert abs(sizes - 100_000 / count).max() < 6 * (100_000 / count) ** 0.5


def test_lists_cannot_be_counted_by():
    """A list is not one value."""
    with pytest.raises(SpecError, match=r"column 'tags': expected one value per row to count by, got List\(Int64\)"):
        hashing.hashed(pl.Series("tags", [[1]]))


ROWS = hashing._FEW + 77  # more than are sorted at once in any way


def drawn(kind: str, rng: np.random.Generator) -> np.ndarray:
    """An array to sort by: as user hashes, moments, small numbers or far outliers are."""
    return {
        "hashes of many": lambda: rng.integers(0, 2**64, ROWS, dtype=np.uint64),
        "hashes of few": lambda: rng.integers(0, 2**64, 5, dtype=np.uint64)[rng.integers(0, 5, ROWS)],
        "near hashes": lambda: np.uint64(2**63) + rng.integers(0, 3, ROWS).astype(np.uint64),
        "moments": lambda: rng.integers(-(10**15), 10**15, ROWS),
        "moments in order": lambda: np.sort(rng.integers(0, 10**15, ROWS)),
        "small": lambda: rng.integers(-2, 3, ROWS),
        "outlier": lambda: np.append(rng.integers(0, 50, ROWS - 2), [-(2**63), 2**63 - 1]),
        "one": lambda: np.zeros(ROWS, np.int64),
    }[kind]()


KINDS = ["hashes of many", "hashes of few", "near hashes", "moments", "moments in order", "small", "outlier", "one"]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3), st.integers(0, 2**32))
def test_rows_stand_in_the_order_of_several_arrays(kinds, seed):
    """As numpy's slow sort has them: however near the values are, and equal rows as they were."""
    rng = np.random.default_rng(seed)
    by = [drawn(kind, rng) for kind in kinds]
    assert hashing.order(*by).tolist() == np.lexsort(by[::-1]).tolist()


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_rows_and_none_have_an_order(count):
    """A partition may be empty."""
    first = np.arange(count)[::-1].astype(np.uint64)
    assert hashing.order(first, np.zeros(count, np.int64)).tolist() == list(range(count))[::-1]
