"""Hashes of keys: alike for what is alike, whatever it was stored as, and spread evenly."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

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


def test_buckets_are_ranges_of_hashes_of_about_one_size():
    """So that a larger hash is never in an earlier one."""
    code = np.sort(hashing.hashed(pl.Series(np.arange(100_000))))
    place = hashing.bucket(code, 7)
    assert (np.diff(place) >= 0).all()
    assert abs(np.bincount(place, minlength=7) - 100_000 / 7).max() < 6 * (100_000 / 7) ** 0.5


def test_lists_cannot_be_counted_by():
    """A list is not one value."""
    with pytest.raises(SpecError, match=r"column 'tags': expected one value per row to count by, got List\(Int64\)"):
        hashing.hashed(pl.Series("tags", [[1]]))
