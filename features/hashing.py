"""64-bit hashes of keys: they assign users to partitions, and events to keys.

Int keys are mixed by a bijection, so they never collide. Text and tuples may: among 100 million of them
the chance that any two do is under one in a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from rec.data.encoders import mix
from rec.errors import SpecError
from rec.request import spans

GRAINS = 4096  # the finest division of a hash's range: no partition and no part is smaller
_SEED = 20_260_302
_FEW = 1 << 12  # rows that are sorted at once in any way
_FIRST = 22  # bits for the first of several arrays to sort by


def hashed(values: pl.Series) -> np.ndarray:
    """The hash of every value [n] uint64; undefined for nulls. SpecError for lists."""
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
    """The hash of every tuple [n] uint64 from the hashes of its parts; a single part keeps its hash."""
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
    """The places of rows in the order of several arrays of whole numbers [n] int64, equal rows as they were.

    Rough values and places are packed into 64 bits and sorted, which is quicker than `np.lexsort`; what that leaves in
    disorder is sorted again by the arrays themselves.
    """
    by = (first, *others)
    if not _disorder(by).any():
        return np.arange(len(first))
    if len(first) < _FEW:
        return np.lexsort(by[::-1])
    line = (len(first) - 1).bit_length()
    rough = _rough(first, _FIRST if others else 64 - line)
    width = int(rough.max()).bit_length()
    whole, shift = rough, 0
    if others:
        second = _rough(others[0], 64 - line - width)
        shift = int(second.max()).bit_length()
        whole = rough << np.uint64(shift) | second
    packed = pl.Series(whole << np.uint64(line) | np.arange(len(first), dtype=np.uint64)).sort().to_numpy()
    permutation = (packed & np.uint64((1 << line) - 1)).astype(np.int64)
    return _mended(permutation, packed >> np.uint64(line), shift, by)


def _rough(values: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers from 0 in at most so many bits, in the same order, though some may have become equal [n] uint64."""
    plain = values if values.dtype == np.uint64 else values.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)
    plain = plain - plain.min()
    return plain >> np.uint64(max(0, int(plain.max()).bit_length() - bits))


def _mended(permutation: np.ndarray, rough: np.ndarray, shift: int, by: Sequence[np.ndarray]) -> np.ndarray:
    """Places in the order of rough values, put in that of the exact ones: only runs with a disorder are sorted."""
    ordered = [key[permutation] for key in by]
    wrong = np.flatnonzero(_disorder(ordered)) + 1
    if len(wrong) > len(permutation) // 8:
        return np.lexsort(by[::-1])
    if not len(wrong):
        return permutation
    # where several first values share a rough one, the second says nothing: all rows of the rough one are a run
    mixed = ordered[0][wrong] != ordered[0][wrong - 1]
    low = np.where(mixed, rough[wrong] >> np.uint64(shift) << np.uint64(shift), rough[wrong])
    high = low + np.where(mixed, np.uint64(1 << shift), np.uint64(1))
    start, end = _joined(np.searchsorted(rough, low), np.searchsorted(rough, high))
    places, run = spans(start, end - start), np.repeat(np.arange(len(start)), end - start)
    again = np.lexsort([*(key[places] for key in reversed(ordered)), run])
    permutation[places] = permutation[places[again]]
    return permutation


def _joined(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranges [start, end) that overlap, as one; ascending."""
    order = np.argsort(start)
    start, end = start[order], np.maximum.accumulate(end[order])
    new = np.append(True, start[1:] >= end[:-1])
    return start[new], end[np.append(np.flatnonzero(new)[1:] - 1, len(end) - 1)]


def _disorder(by: Sequence[np.ndarray]) -> np.ndarray:
    """Where a row should stand before the one above it [n - 1] bool."""
    tied = np.ones(max(0, len(by[0]) - 1), bool)
    wrong = np.zeros(len(tied), bool)
    for key in by:
        wrong |= tied & (key[1:] < key[:-1])
        tied &= key[1:] == key[:-1]
    return wrong


def grouped(place: np.ndarray) -> np.ndarray:
    """The places of rows in the order of small numbers of 0 or more [n] int64, equal ones as they were."""
    small = len(place) and place.max() < 1 << 16  # of 16 bits numpy counts instead of comparing
    return np.argsort(place.astype(np.uint16) if small else place, kind="stable")


CODE = "@code"  # the hash of a row's user (anonymous: of its request)


LINE = "@line"  # where a row stood in the logs, for rows that nobody is named in


LINES = 1024  # lines of a log that stay together where nobody is named
