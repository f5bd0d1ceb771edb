"""Sessions so far, as the clock passes: how many requests each has seen, and when it began."""

from __future__ import annotations

import numba
import numpy as np

from features.sweep.key_rows import KeyRows, resized

_FIRST = 256  # rows there is room for in the beginning

_kernel = numba.njit(cache=True, nogil=True)


class OpenSessions:
    """The newest session of every user, or every session where they have ids: first and last request, and how many.

    A request does not see those of its own timestamp: what was asked waits until the clock has passed.
    """

    def __init__(self, gap: int | None) -> None:
        """`gap` is the longest pause inside a session in microseconds; None where sessions have ids."""
        self.table, self._gap = KeyRows(), -1 if gap is None else gap
        self.first, self.last, self.count = (np.zeros(_FIRST, np.int64) for _ in range(3))
        self.waiting_time, self.waiting_row = np.zeros(0, np.int64), np.zeros(0, np.int32)

    def rows(self, code: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        """The rows of sessions [B] int32, made where there was none; -1 where one is missing."""
        rows = self.table.add(code, known)
        self.first, self.last, self.count = (
            resized(array, len(self.table)) for array in (self.first, self.last, self.count)
        )
        return rows

    def feed(self, time: np.ndarray, rows: np.ndarray) -> None:
        """Requests that begin at some timestamps [B], of sessions by their rows; those of -1 are of nobody."""
        time, rows = time[rows >= 0], rows[rows >= 0]
        time, rows = np.concatenate([self.waiting_time, time]), np.concatenate([self.waiting_row, rows])
        order = np.argsort(time, kind="stable")
        self.waiting_time, self.waiting_row = time[order], rows[order]

    def ask(self, time: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Requests earlier in the session of each request at `time` [B], ascending, and microseconds since it began."""
        earlier, passed, seen = _so_far(
            self.waiting_time, self.waiting_row, time, rows, self._gap, self.first, self.last, self.count
        )
        self.waiting_time, self.waiting_row = self.waiting_time[seen:], self.waiting_row[seen:]
        return earlier, passed

    def read(self, row: int, time: int) -> tuple[int, int]:
        """The same of one session as of a timestamp, which nothing that waits is before."""
        if row <= 0 or not self.count[row] or 0 <= self._gap < time - self.last[row]:
            return 0, 0
        return int(self.count[row]), int(time - self.first[row])


@_kernel
def _so_far(  # pragma: no cover  # compiled
    begin: np.ndarray,
    whose: np.ndarray,
    request_time: np.ndarray,
    rows: np.ndarray,
    gap: int,
    first: np.ndarray,
    last: np.ndarray,
    count: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, int]:
    earlier, passed, p = np.zeros(len(request_time), np.int64), np.zeros(len(request_time), np.int64), 0
    for r in range(len(request_time)):
        while p < len(begin) and begin[p] < request_time[r]:
            k, at = whose[p], begin[p]
            if count[k] == 0:
                first[k], last[k] = at, at
            if gap >= 0 and at - last[k] > gap:
                first[k], count[k] = at, 0
            if gap < 0 or first[k] - at <= gap:  # what is fed later than that belongs to an earlier session
                first[k], last[k], count[k] = min(first[k], at), max(last[k], at), count[k] + 1
            p += 1
        k = rows[r]
        if k >= 0 and count[k] > 0 and not (gap >= 0 and request_time[r] - last[k] > gap):
            earlier[r], passed[r] = count[k], request_time[r] - first[k]
    return earlier, passed, p
