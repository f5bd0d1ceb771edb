"""Keys to rows: a hash table with batched lookups."""

from __future__ import annotations

import numpy as np

_FIRST = 4096  # slots in the beginning; a power of two
_FREE = 4  # slots per key, at least: the fewer are taken, the fewer are tried


class HashIndex:
    """Hashes of keys to rows from 1; row 0 is that of every key nothing is known of.

    Open addressing with linear probing (Knuth, The Art of Computer Programming 3, 6.4, algorithm L). The keys are mixed
    already, so that their last bits say where to look first.

    >>> rows.add(np.array([7, 9], np.uint64)), rows.find(np.array([9, 8], np.uint64))
    (array([1, 2]), array([2, 0]))
    """

    def __init__(self) -> None:
        """No key has a row."""
        self._codes = np.zeros(_FIRST, np.uint64)  # by row, from 1
        self._count = 0
        self._slots = np.zeros(_FIRST, np.int64)  # the row in each slot, 0 where it is free
        self._held = np.zeros(_FIRST, np.uint64)  # the key in each slot

    def __len__(self) -> int:
        """How many rows there are, row 0 included."""
        return self._count + 1

    def find(self, code: np.ndarray) -> np.ndarray:
        """The rows of keys [n]; 0 where a key has none."""
        last = np.uint64(len(self._slots) - 1)
        place = (code & last).view(np.int64)
        rows = self._slots[place]
        # a slot is another key's: the next ones may be ours
        other = np.flatnonzero((self._held[place] != code) & (rows != 0))
        while len(other):
            place[other] = (place[other] + 1) & int(last)
            found = self._slots[place[other]]
            rows[other] = found
            other = other[(self._held[place[other]] != code[other]) & (found != 0)]
        return rows

    def add(self, code: np.ndarray) -> np.ndarray:
        """The rows of keys [n], made where there was none."""
        rows = self.find(code)
        absent = np.flatnonzero(rows == 0)
        if len(absent):
            new = code[absent]
            new = new[np.sort(np.unique(new, return_index=True)[1])]
            self._room(self._count + len(new))
            begin, self._count = self._count + 1, self._count + len(new)
            self._codes[begin : self._count + 1] = new
            self._place(new, np.arange(begin, self._count + 1))
            rows[absent] = self.find(code[absent])
        return rows

    def codes(self) -> np.ndarray:
        """The key of every row from 1 on, uint64."""
        return self._codes[1 : self._count + 1]

    def _room(self, count: int) -> None:
        if count + 1 > len(self._codes):
            grown = np.zeros(2 * (count + 1), np.uint64)
            grown[: self._count + 1] = self._codes[: self._count + 1]
            self._codes = grown
        if _FREE * count > len(self._slots):
            size = 1 << (2 * _FREE * count - 1).bit_length()
            self._slots, self._held = np.zeros(size, np.int64), np.zeros(size, np.uint64)
            self._place(self.codes(), np.arange(1, self._count + 1))

    def _place(self, code: np.ndarray, rows: np.ndarray) -> None:
        """Put keys that are not there into free slots; of several that want one slot the last gets it."""
        last = len(self._slots) - 1
        place = (code & np.uint64(last)).view(np.int64)
        while len(code):
            free = self._slots[place] == 0
            self._slots[place[free]] = rows[free]
            left = self._slots[place] != rows
            done = place[~left]
            self._held[done] = code[~left]
            code, rows, place = code[left], rows[left], (place[left] + 1) & last


def roomy(array: np.ndarray, rows: int) -> np.ndarray:
    """The array, or a copy with more rows of zeros, so that it has `rows` of them."""
    if rows <= len(array):
        return array
    grown = np.zeros((max(rows, 2 * len(array)), *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
