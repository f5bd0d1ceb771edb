"""The newest row of every key, as a log goes by."""

from __future__ import annotations

import numba
import numpy as np
import polars as pl

from features.sweep.key_rows import KeyRows, resized

_FIRST = np.iinfo(np.int64).min
_SPARE = 1024  # rows beyond twice as many as there are keys, before those that are not the newest are dropped

_kernel = numba.njit(cache=True, nogil=True)


class NewestRows:
    """Rows of a frame, one per key: the last by time, and of those of one timestamp by line."""

    def __init__(self) -> None:
        """No key has a row."""
        self.table = KeyRows()
        self._time, self._line = np.full(1, _FIRST), np.full(1, _FIRST)
        self._place = np.zeros(1, np.int64)
        self._held: list[pl.DataFrame] = []
        self._count = 0

    def add(
        self, code: np.ndarray, known: np.ndarray, rows: pl.DataFrame, time: np.ndarray, line: np.ndarray
    ) -> np.ndarray:
        """Rows [n] of keys by their hashes, in any order; those whose key is not `known` are left out.

        Gives the row of each key in `table` [n].
        """
        key = self.table.add(code, known)
        self._time, self._line = (resized(array, len(self.table), _FIRST) for array in (self._time, self._line))
        self._place = resized(self._place, len(self.table))
        chosen = _newest(key, time, line, self._time, self._line)
        self._place[key[chosen]] = self._count + np.arange(len(chosen))
        self._held.append(rows[chosen])
        self._count += len(chosen)
        if self._count > 2 * self.table.count + _SPARE:
            self._held, self._count = [self.rows()], self.table.count
            self._place[1 : self._count + 1] = np.arange(self._count)
        return key

    def rows(self) -> pl.DataFrame:
        """The newest row of every key, in the order in which keys came."""
        return pl.concat(self._held).rechunk()[self._place[1 : self.table.count + 1]]

    def times(self) -> np.ndarray:
        """The timestamps of these rows [keys]."""
        return self._time[1 : self.table.count + 1]


@_kernel
def _newest(  # pragma: no cover  # compiled
    key: np.ndarray, time: np.ndarray, line: np.ndarray, last_time: np.ndarray, last_line: np.ndarray
) -> np.ndarray:
    """The places of rows that are newer than all of their key."""
    for i in range(len(key)):
        k = key[i]
        if k >= 0 and (time[i] > last_time[k] or (time[i] == last_time[k] and line[i] > last_line[k])):
            last_time[k], last_line[k] = time[i], line[i]
    chosen = [0][:0]
    for i in range(len(key)):
        k = key[i]
        if k >= 0 and time[i] == last_time[k] and line[i] == last_line[k]:
            chosen.append(i)
    return np.array(chosen)
