"""How well time gaps alone reproduce the session ids of the logs.

A session by id equals one by gaps if both hold the same impressions. It is split if it contains a pause longer than
the gap, and merged if no such pause separates it from another session of its user.
"""

from __future__ import annotations

from datetime import timedelta

import numba
import numpy as np
import polars as pl

from features import hashing
from features.hashing import CODE
from features.logs.logs import Finding
from features.logs.timestamps import TIME
from features.sweep.key_rows import KeyRows, resized
from rec.spec import Spec

_kernel = numba.njit(cache=True, nogil=True)


class SessionGaps:
    """Native sessions beside those that pauses make, as a log goes by."""

    def __init__(self, spec: Spec) -> None:
        """No impression yet."""
        self._session, self._gap = spec.keys.session, spec.sessions.gap
        self._users, self._sessions = KeyRows(), KeyRows()
        # of every user: his last impression, which pause-made session it lies in, and the first native one in that
        self._last, self._by_gap, self._first = (np.zeros(1, np.int64) for _ in range(3))
        # of every native session: the last pause-made one it was seen in, and whether it was split and merged
        self._seen, self._split, self._merged = np.zeros(1, np.int64), np.zeros(1, bool), np.zeros(1, bool)

    def add(self, rows: pl.DataFrame) -> None:
        """Impressions [n] in order of time, later than those before."""
        if self._session is None or CODE not in rows.columns or TIME not in rows.columns:
            return
        rows = rows.filter(pl.col(self._session).is_not_null())
        code = rows[CODE].to_numpy()
        user = self._users.add(code)
        # a name is one of its user's own: what another user calls so is another session
        session = self._sessions.add(hashing.combined([code, hashing.hashed(rows[self._session])]))
        self._last, self._by_gap, self._first = (
            resized(array, len(self._users)) for array in (self._last, self._by_gap, self._first)
        )
        self._seen, self._split, self._merged = (
            resized(array, len(self._sessions)) for array in (self._seen, self._split, self._merged)
        )
        time, gap = rows[TIME].dt.timestamp("us").to_numpy(), self._gap // timedelta(microseconds=1)
        _compare(user, session, time, gap, self._last, self._by_gap, self._first, self._seen, self._split, self._merged)

    def findings(self) -> list[Finding]:
        """Native sessions that pauses make as they are, split, and merge; nothing where the logs have none."""
        if self._session is None:
            return []
        total = self._sessions.count
        split, merged, gap = self._split[1 : total + 1], self._merged[1 : total + 1], self._gap
        return [
            _finding(~split & ~merged, total, f"sessions of the logs that pauses longer than {gap} reproduce"),
            _finding(split & ~merged, total, f"sessions of the logs with a pause longer than {gap} inside"),
            _finding(merged & ~split, total, f"sessions of the logs less than {gap} from another of their user"),
            _finding(merged & split, total, "sessions of the logs that such pauses both split and merge with another"),
        ]


def _finding(which: np.ndarray, total: int, text: str) -> Finding:
    return Finding("sessions", True, int(which.sum()), total, (), text, "note")


@_kernel
def _compare(  # pragma: no cover  # compiled
    user: np.ndarray,
    session: np.ndarray,
    time: np.ndarray,
    gap: int,
    last: np.ndarray,
    by_gap: np.ndarray,
    first: np.ndarray,
    seen: np.ndarray,
    split: np.ndarray,
    merged: np.ndarray,
) -> None:
    for i in range(len(user)):
        u, s = user[i], session[i]
        if by_gap[u] == 0 or time[i] - last[u] > gap:
            by_gap[u], first[u] = by_gap[u] + 1, s
        elif first[u] != s:
            merged[s] = merged[first[u]] = True
        if seen[s] not in (0, by_gap[u]):
            split[s] = True
        last[u], seen[s] = time[i], by_gap[u]
