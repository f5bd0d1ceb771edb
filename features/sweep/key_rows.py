"""Keys to dense rows: a hash table whose rows are places in arrays."""

from __future__ import annotations

import numba
import numpy as np
import polars as pl

from features import hashing
from rec.memory import uncollected

_FIRST = 1024  # slots in the beginning; a power of two
_STEP = np.uint64(1)
_ALL = np.zeros(0, bool)

_kernel = numba.njit(cache=True, nogil=True)


class KeyRows:
    """Hashes of keys to rows from 1, in the order of first appearance; row 0 is of keys nobody has seen.

    Open addressing with linear probing (Knuth, The Art of Computer Programming 3, 6.4, algorithm L). The hashes are
    mixed already, so that their last bits say where to look first. 24 to 48 bytes a key.

    >>> table.add(np.array([7, 9], np.uint64)), table.find(np.array([9, 8], np.uint64))
    (array([1, 2]), array([2, 0]))
    """

    def __init__(self, room: int = _FIRST) -> None:
        """No key has a row; there is room for `room` / 2, and more when it is needed."""
        slots = 1 << max(room - 1, 1).bit_length()
        self._held = np.zeros(slots, np.uint64)
        self._slots = np.zeros(slots, np.int32)
        self.count = 0

    def __len__(self) -> int:
        """How many rows there are, row 0 included."""
        return self.count + 1

    def add(self, code: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """The rows of keys [n] int32, made where there was none; -1 where a key is not `known` [n] bool."""
        rows, done = np.empty(len(code), np.int32), 0
        while done < len(code):
            done, self.count = _add(
                code, _ALL if known is None else known, self._held, self._slots, self.count, rows, done
            )
            if done < len(code):
                self._held, self._slots = _grown(self._held, self._slots)
        return rows

    def find(self, code: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """The rows of keys [n] int32; 0 where a key has none, -1 where it is not `known`."""
        return _find(code, _ALL if known is None else known, self._held, self._slots)

    def codes(self) -> np.ndarray:
        """The hash of every row from 1 on, uint64."""
        filled = self._slots > 0
        codes = np.empty(self.count, np.uint64)
        codes[self._slots[filled] - 1] = self._held[filled]
        return codes


def load_compiled() -> None:
    """Load the compiler's runtime, which takes a second, and compile what is not compiled yet."""
    with uncollected():
        KeyRows().add(np.zeros(1, np.uint64))


def resized(array: np.ndarray, rows: int, nothing: int = 0) -> np.ndarray:
    """The array, or a copy with more rows of `nothing`, so that it has at least `rows` of them."""
    if rows <= len(array):
        return array
    grown = np.full((max(rows, 2 * len(array)), *array.shape[1:]), nothing, array.dtype)
    grown[: len(array)] = array
    return grown


def hashed(values: pl.Series) -> np.ndarray:
    """`features.hashing.hashed`, in one pass where values are whole numbers."""
    if values.dtype.is_integer() and not values.null_count():
        return _mixed(values.cast(pl.Int64).to_numpy())
    return hashing.hashed(values)


@_kernel
def _mixed(values: np.ndarray) -> np.ndarray:  # pragma: no cover  # compiled
    """`rec.data.encoders.mix`: SplitMix64."""
    mixed = np.empty(len(values), np.uint64)
    for i in range(len(values)):
        z = np.uint64(values[i]) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed[i] = z ^ (z >> np.uint64(31))
    return mixed


@_kernel
def _add(  # pragma: no cover  # compiled
    code: np.ndarray,
    known: np.ndarray,
    held: np.ndarray,
    slots: np.ndarray,
    count: int,
    rows: np.ndarray,
    begin: int,
) -> tuple[int, int]:
    """Fill `rows` from `begin` on, as far as the table has room; how far that is, and the rows there are.

    The table grows outside: a loop that may replace its arrays counts references to them at every key, and is slower
    eightfold.
    """
    mask, most = np.uint64(len(slots) - 1), len(slots) // 2
    for i in range(begin, len(code)):
        if len(known) and not known[i]:
            rows[i] = -1
            continue
        if i and code[i] == code[i - 1] and rows[i - 1] > 0:  # impressions of one request have the same user
            rows[i] = rows[i - 1]
            continue
        at = code[i] & mask
        while slots[at] != 0 and held[at] != code[i]:
            at = (at + _STEP) & mask
        if slots[at] == 0:
            if count == most:
                return i, count
            count += 1
            slots[at], held[at] = count, code[i]
        rows[i] = slots[at]
    return len(code), count


@_kernel
def _grown(held: np.ndarray, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # pragma: no cover  # compiled
    size = 4 * len(slots)
    mask = np.uint64(size - 1)
    wide_held, wide_slots = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    for i in range(len(slots)):
        if slots[i] != 0:
            at = held[i] & mask
            while wide_slots[at] != 0:
                at = (at + _STEP) & mask
            wide_slots[at], wide_held[at] = slots[i], held[i]
    return wide_held, wide_slots


@_kernel
def _find(  # pragma: no cover  # compiled
    code: np.ndarray, known: np.ndarray, held: np.ndarray, slots: np.ndarray
) -> np.ndarray:
    rows = np.empty(len(code), np.int32)
    mask = np.uint64(len(slots) - 1)
    for i in range(len(code)):
        if len(known) and not known[i]:
            rows[i] = -1
            continue
        if i and code[i] == code[i - 1] and rows[i - 1] > 0:
            rows[i] = rows[i - 1]
            continue
        at = code[i] & mask
        while slots[at] != 0 and held[at] != code[i]:
            at = (at + _STEP) & mask
        rows[i] = slots[at]
    return rows
