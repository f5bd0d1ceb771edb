"""Quantile sketch: exact counts for few distinct numbers, then buckets of equal relative width.

A bucket's key is a float32 as an order-preserving uint32 without its `level` lowest bits. `level` is the smallest that
leaves at most MOST buckets. So merging is exact: the sketch of several parts is the same, bit for bit, however the
numbers were partitioned and in whichever order the parts are merged.

    level 0     a bucket per distinct number
    level 12    numbers that agree in 12 of 24 significant bits: 0.05% wide

The mean of a bucket is kept exactly, as the integer sum of the bits that were cut. Buckets of equal relative width
are those of DDSketch (Masson, Rim and Lee, VLDB 2019, section 2.1); here they widen as numbers differ more.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

MOST = 4096  # buckets
_TOP = 23  # beyond, a bucket would hold numbers of different binary exponents, between which bits are not evenly spaced
_MANY = 1 << 15  # so many numbers are not sorted, but counted
_COARSE, _STEP = 12, 6  # the level of the first buckets that are counted, and the bits by which they are cut
_SIGN = np.uint32(1 << 31)


@dataclass(frozen=True)
class QuantileSketch:
    """Buckets in order: first key [K] uint32, numbers in each [K] int64, sum of the bits cut from them [K] int64."""

    level: int
    key: np.ndarray
    count: np.ndarray
    rest: np.ndarray

    def total(self) -> int:
        """How many numbers were counted."""
        return int(self.count.sum())

    def lower(self) -> np.ndarray:
        """The smallest number that belongs to each bucket [K] float32."""
        return numbers(self.key)

    def upper(self) -> np.ndarray:
        """The largest number that belongs to each bucket [K] float32."""
        return numbers(self.key | _mask(self.level))

    def mean(self) -> np.ndarray:
        """The mean of the numbers in each bucket [K] float64."""
        lower = self.lower().astype(np.float64)
        width = self.upper().astype(np.float64) - lower
        return lower + width * (self.rest / self.count) / max(1, int(_mask(self.level)))


def of(values: np.ndarray, *, most: int = MOST) -> QuantileSketch:
    """The sketch of values [n], taken as float32; NaN is not counted, infinities are not allowed.

    >>> of(np.array([2.0, 1.0, float("nan"), 2.0])).count
    array([1, 2])
    """
    values = values.astype(np.float32, copy=False)
    unknown = np.isnan(values)
    known = values[~unknown] if unknown.any() else values
    key = keys(known)
    if len(key) >= _MANY:
        return _spread(key, most)
    key.sort()
    first = _first(key, 0)
    key, count = key[first], np.diff(first, append=len(key))
    return _coarser(QuantileSketch(0, key, count, np.zeros(len(key), np.int64)), 0, most)


def merged(left: QuantileSketch, right: QuantileSketch, *, most: int = MOST) -> QuantileSketch:
    """The sketch of the numbers of both."""
    level = max(left.level, right.level)
    both = [_coarser(half, level, most) for half in (left, right)]
    order = np.argsort(np.concatenate([half.key for half in both]), kind="stable")
    key, count, rest = (
        np.concatenate([getattr(half, name) for half in both])[order] for name in ("key", "count", "rest")
    )
    return _coarser(QuantileSketch(level, key, count, rest), level, most)


def _coarser(histogram: QuantileSketch, level: int, most: int) -> QuantileSketch:
    """The sketch at the smallest level, `level` or above, that has at most `most` buckets."""
    if not len(histogram.key):
        return QuantileSketch(0, histogram.key, histogram.count, histogram.rest)
    # coarser levels never have more buckets, so the least that is coarse enough can be bisected for
    level = (
        bisect_left(range(level, _TOP), x=True, key=lambda candidate: len(_first(histogram.key, candidate)) <= most)
        + level
    )
    first = _first(histogram.key, level)
    mask = _mask(level)
    cut = (histogram.key & mask).astype(np.int64) * histogram.count if level > histogram.level else 0
    return QuantileSketch(
        level=level,
        key=histogram.key[first] & ~mask,
        count=np.add.reduceat(histogram.count, first),
        rest=np.add.reduceat(histogram.rest + cut, first),
    )


def _spread(key: np.ndarray, most: int) -> QuantileSketch:
    """The sketch of unsorted keys: buckets of level _COARSE, refined _STEP bits at a time while few are filled."""
    level, lowest = _COARSE, key.min() >> _COARSE
    bucket = (key >> level) - lowest
    first = np.arange(int(bucket.max()) + 1, dtype=np.uint32) + lowest  # the bits that a bucket's keys share
    while True:
        count = np.bincount(bucket)
        filled = np.flatnonzero(count > 0)
        if level == 0 or len(filled) > most:
            break
        level -= _STEP
        number = np.zeros(len(count), np.uint32)
        number[filled] = np.arange(len(filled)) << _STEP
        bucket = number[bucket] | (key >> level & _mask(_STEP))
        first = (first[filled, None] << _STEP | np.arange(1 << _STEP, dtype=np.uint32)).ravel()
    # a bucket's bits that were cut add up to less than 2^53: exact
    rest = np.bincount(bucket, weights=key & _mask(level))[filled].astype(np.int64)
    return _coarser(QuantileSketch(level, first[filled] << level, count[filled], rest), level, most)


def _first(key: np.ndarray, level: int) -> np.ndarray:
    """Where each bucket of a level begins among sorted keys."""
    cut = key >> np.uint32(level) if level else key
    if not len(key):
        return np.zeros(0, np.int64)
    return np.concatenate([[0], np.flatnonzero(cut[1:] != cut[:-1]) + 1])


def _mask(level: int) -> np.uint32:
    return np.uint32((1 << level) - 1)


def keys(values: np.ndarray) -> np.ndarray:
    """The bits of float32 numbers [n] as uint32 in the order of the numbers; -0 and 0 are one, NaN has no place."""
    bits = (values + np.float32(0.0)).view(np.int32)  # -0 becomes 0
    return (bits ^ (bits >> 31 | -(2**31))).view(np.uint32)


def numbers(key: np.ndarray) -> np.ndarray:
    """The float32 numbers that have these keys [n]."""
    return np.where(key & _SIGN, key ^ _SIGN, ~key).astype(np.uint32).view(np.float32)


def divisor(std: float, mean: float) -> float:
    """The standard deviation to divide by; 1 of numbers that are all equal, but for rounding.

    A number that is small everywhere, such as a rate of one in ten million, is scaled like any other.

    >>> divisor(3e-8, 5e-8), divisor(1e-17, 0.7)
    (3e-08, 1.0)
    """
    return std if std > min(1e-6, max(1e-6 * abs(mean), 1e-30)) else 1.0
