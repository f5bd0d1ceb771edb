"""Hashes of keys: alike for what is alike, whatever it was stored as, and spread evenly."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from features import keys
from rec.errors import SpecError


def test_alike_values_have_one_hash():
    """An int of whichever width, a truth as 0 or 1, a word as a word or a category."""
    numbers = pl.Series([1, 0, 300])
    assert keys.hashed(numbers).tolist() == keys.hashed(numbers.cast(pl.UInt16)).tolist()
    assert keys.hashed(pl.Series([True, False])).tolist() == keys.hashed(numbers)[:2].tolist()
    words = pl.Series(["a", "b"])
    assert keys.hashed(words).tolist() == keys.hashed(words.cast(pl.Categorical)).tolist()
    assert len(set(keys.hashed(pl.Series(np.arange(10_000))).tolist())) == 10_000


def test_a_tuple_is_not_its_turned_self():
    """Nor a tuple with the same words cut elsewhere; a tuple with a missing part is missing."""
    code, missing = keys.together([pl.Series([1, 2, None, 1]), pl.Series([2, 1, 1, 2])])
    assert (code[0] == code[3], code[0] == code[1], missing.tolist()) == (True, False, [False, False, True, False])
    words, _ = keys.together([pl.Series(["ab", "a"]), pl.Series(["c", "bc"])])
    assert words[0] != words[1]
    assert keys.hashed(pl.Series([1]))[0] != keys.together([pl.Series([1]), pl.Series([0])])[0][0]


def test_grains_and_buckets_are_ranges_of_hashes_of_about_one_size():
    """So that a larger hash is never in an earlier one, and a bucket of grains is a range of grains."""
    code = np.sort(keys.hashed(pl.Series(np.arange(100_000))))
    for place, count in ((keys.grain(code), keys.GRAINS), (keys.bucket(code, 7), 7)):
        assert (np.diff(place) >= 0).all()
        sizes = np.bincount(place, minlength=count)
        assert len(sizes) == count
        assert abs(sizes - 100_000 / count).max() < 6 * (100_000 / count) ** 0.5


def test_lists_cannot_be_counted_by():
    """A list is not one value."""
    with pytest.raises(SpecError, match=r"column 'tags': expected one value per row to count by, got List\(Int64\)"):
        keys.hashed(pl.Series("tags", [[1]]))
