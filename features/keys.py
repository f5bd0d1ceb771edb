"""Keys as 64 bits: who goes to which partition, and which events are of one value.

Int keys are mixed by a bijection, so two of them never meet in one hash. Text and tuples may: among 100 million of them
the chance that any two do is under one in a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from rec.encode import mix
from rec.errors import SpecError

GRAINS = 4096  # the finest division of a hash's range: no partition and no part is smaller
_SEED = 20_260_302


def hashed(values: pl.Series) -> np.ndarray:
    """The hash of every value [n] uint64; that of a null means nothing. SpecError for lists."""
    kind = values.dtype
    if kind.is_nested():
        raise SpecError(f"column {values.name!r}: expected one value per row to count by, got {kind}")
    if kind.is_integer() or kind == pl.Boolean:
        return mix(values.fill_null(0).cast(pl.Int64).to_numpy())
    return mix(values.cast(pl.String).hash(_SEED).to_numpy().astype(np.int64))


def together(columns: Sequence[pl.Series]) -> tuple[np.ndarray, np.ndarray]:
    """The hash of every tuple [n] uint64, and whether any part of it is null [n] bool."""
    code = combined([hashed(column) for column in columns])
    missing = np.zeros(len(code), bool)
    for column in columns:
        if column.null_count():
            missing |= column.is_null().to_numpy()
    return code, missing


def combined(codes: Sequence[np.ndarray]) -> np.ndarray:
    """The hash of every tuple [n] uint64, of the hashes of its parts; that of one part is its own."""
    code = codes[0]
    for other in codes[1:]:
        with np.errstate(over="ignore"):
            code = mix((code * np.uint64(3) + other).astype(np.int64))
    return code


def grain(code: np.ndarray) -> np.ndarray:
    """The grain of a hash, 0 .. GRAINS - 1 [n] int64: its first bits, so that grains are ranges of hashes."""
    return (code >> np.uint64(52)).astype(np.int64)


def bucket(code: np.ndarray, count: int) -> np.ndarray:
    """Which of `count` equal ranges a hash falls into [n] int64."""
    return ((code >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)


def order(first: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """The places of rows in the order of several arrays [n] int64, equal rows as they were."""
    by = (first, *others)
    if _ordered(by):
        return np.arange(len(first))
    return np.lexsort(by[::-1]) if others else np.argsort(first, kind="stable")


def _ordered(by: Sequence[np.ndarray]) -> bool:
    """Whether rows stand in order already, as those of a user mostly do."""
    tied = np.ones(max(0, len(by[0]) - 1), bool)
    for one in by:
        if np.any(tied & (one[1:] < one[:-1])):
            return False
        tied &= one[1:] == one[:-1]
    return True


def grouped(place: np.ndarray) -> np.ndarray:
    """The places of rows in the order of small numbers of 0 or more [n] int64, equal ones as they were."""
    small = len(place) and place.max() < 1 << 16  # of 16 bits numpy counts instead of comparing
    return np.argsort(place.astype(np.uint16) if small else place, kind="stable")
