"""Slow, obvious twin of numbers made of many events: sums that decay, means, sums and last values, expected clicks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np


def decayed(known: Sequence[int], half_life: int, time: int) -> float:
    """How often, of what became `known` when, each weighing half as much a half-life later.

    Whole weights by epochs of a half-life; here all epochs are added before anything is rounded down.
    """
    total = Fraction(0)
    for moment in known:
        epoch, part = divmod(moment, half_life)
        total += weight(part, half_life) * Fraction(2) ** (epoch - time // half_life + 32)
    return math.floor(total) * (weight(half_life - time % half_life, half_life) / 2**25) / 2**56


def weight(part: int, half_life: int) -> int:
    """2^(24 + part / half_life) to the nearest whole number, on straight lines between 2048 points of an epoch."""
    point, rest = divmod(part * 2048, half_life)
    low, high = (round(2 ** (24 + of / 2048)) for of in (point, point + 1))
    return low + round((high - low) * (rest / half_life))


UNIT = 1_163_962_800  # shares of requests are whole numbers of its parts


def expected(sizes: Sequence[int]) -> float:
    """The sum of 1/size, each rounded to a whole number of parts."""
    return sum(math.floor(Fraction(UNIT, size) + Fraction(1, 2)) for size in sizes) / UNIT


def of_values(values: Sequence[float | None], make: str) -> float | None:
    """Their mean, sum or last, as float32."""
    fixed = [round(v * 2**24) for v in values if v is not None and math.isfinite(v)]
    if make == "sum":
        return single(sum(fixed) / 2**24)
    if not fixed:
        return None
    return single(sum(fixed) / 2**24 / len(fixed) if make == "mean" else fixed[-1] / 2**24)


def single(number: float) -> float | None:
    """A number as float32; what is no number is nothing."""
    return None if math.isnan(number) else float(np.float32(number))


def bucket(number: float) -> int:
    """0 -> 1, 1 and 2 -> 2, 3 to 6 -> 3, ...; what is below 0 as 0."""
    return 1 + math.floor(math.log2(1 + max(number, 0)))


def measure(number: float | None) -> float | None:
    """How much there was, if that is known."""
    return None if number is None else single(number)
