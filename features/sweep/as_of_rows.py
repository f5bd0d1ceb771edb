"""Which row of a table of users or items holds for a key as of a request: the last that began strictly before it."""

from __future__ import annotations

import numba
import numpy as np

from features.sweep.key_rows import KeyRows

_kernel = numba.njit(cache=True, nogil=True)
ALWAYS = np.iinfo(np.int64).min  # when a row begins that always holds


class AsOfRows:
    """The rows of a table [R] in the order in which they begin to hold.

    >>> rows = AsOfRows(code, since)
    >>> rows.held(time, offsets, rows.table.find(code_N))        # places of rows [N]; R where there is none
    """

    def __init__(self, code: np.ndarray, since: np.ndarray | None) -> None:
        """Hashes of keys uint64 [R] and when each row begins, microseconds [R], ascending; None: they always hold."""
        self.table = KeyRows()
        self._row = self.table.add(code)
        self._since = np.full(len(code), ALWAYS) if since is None else since
        self._held = np.full(len(self.table), len(code), np.int32)
        self._next = 0
        if since is None:
            self._held[self._row] = np.arange(len(code))
            self._next = len(code)

    def __len__(self) -> int:
        """R."""
        return len(self._row)

    def held(self, time: np.ndarray, offsets: np.ndarray, key: np.ndarray) -> np.ndarray:
        """The places of the rows of keys [N] as of requests at `time` [B], ascending; int32, R where none holds.

        `key` are rows of `table`; `offsets` [B + 1] say which belong to a request.
        """
        if self._next == len(self._row):
            return np.where(key > 0, self._held[np.maximum(key, 0)], np.int32(len(self)))
        places, self._next = _held(time, offsets, key, self._since, self._row, self._held, self._next)
        return places

    def latest(self) -> np.ndarray:
        """The place of the last row of every key [keys], by its row in `table` from 1 on."""
        last = np.zeros(len(self.table), np.int64)
        last[self._row] = np.arange(len(self._row))
        return last[1:]


@_kernel
def _held(  # pragma: no cover  # compiled
    time: np.ndarray,
    offsets: np.ndarray,
    key: np.ndarray,
    since: np.ndarray,
    row: np.ndarray,
    held: np.ndarray,
    first: int,
) -> tuple[np.ndarray, int]:
    places, p = np.empty(len(key), np.int32), first
    for r in range(len(time)):
        while p < len(since) and since[p] < time[r]:
            held[row[p]] = p
            p += 1
        for i in range(offsets[r], offsets[r + 1]):
            places[i] = held[key[i]] if key[i] > 0 else len(row)
    return places, p
