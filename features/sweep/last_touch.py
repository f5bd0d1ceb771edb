"""Last-touch attribution as a log goes by: what each user was shown last of each item, and when.

An event belongs to the latest impression with its keys at or before it, of its own request if it names one; ties go to
the later row of the logs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from features.sweep.key_rows import KeyRows, resized

_NEVER = np.iinfo(np.int64).min
_ALWAYS = np.iinfo(np.int64).max

_kernel = numba.njit(cache=True, nogil=True)


@dataclass(frozen=True)
class Touched:
    """Impressions or events [n] in order of time: `time` in microseconds, and hashes of their keys.

    `pair` is the hash of user and item, and whether both are known; `wide` that of user, item and request.
    """

    time: np.ndarray
    pair: tuple[np.ndarray, np.ndarray]
    wide: tuple[np.ndarray, np.ndarray] | None = None


class LastTouch:
    """The latest impression of every user and item, and of every request; 40 bytes for each."""

    def __init__(self, within: int | None) -> None:
        """`within` is how long after an impression an event may belong to it, in microseconds; None: however long."""
        self._within = _ALWAYS if within is None else within
        self._pairs, self._wides = _Latest(), _Latest()

    def attribute(self, shown: Touched, line: np.ndarray, events: Touched) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The impression of each event [E], by its `line` and time, -1 where it has none; and the row of its keys.

        `shown` are the impressions since the last call, each with its line [n]; no event is later than what is shown
        afterwards.
        """
        rows = self._pairs.rows(*events.pair)
        places, at = self._pairs.matched(
            shown.time, self._pairs.rows(*shown.pair), line, events.time, rows, self._within
        )
        if shown.wide is not None and events.wide is not None:
            wide = self._wides.rows(*events.wide)
            own, moment = self._wides.matched(
                shown.time, self._wides.rows(*shown.wide), line, events.time, wide, self._within
            )
            places, at = np.where(own >= 0, own, places), np.where(own >= 0, moment, at)
        return places, at, rows

    def shown_later(self, rows: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Whether the keys of events without an impression were shown, and for the first time after them [n] bool."""
        first = self._pairs.first[np.maximum(rows, 0)]
        return (rows > 0) & (first != _NEVER) & (first > time)


class _Latest:
    """The latest impression of every key: its line and its time, and the time of the first."""

    def __init__(self) -> None:
        self._table = KeyRows()
        self.line, self.time, self.first = np.full(1, -1), np.full(1, _NEVER), np.full(1, _NEVER)

    def rows(self, code: np.ndarray, known: np.ndarray) -> np.ndarray:
        rows = self._table.add(code, known)
        self.line = resized(self.line, len(self._table), -1)
        self.time, self.first = (resized(array, len(self._table), _NEVER) for array in (self.time, self.first))
        return rows

    def matched(
        self,
        shown_time: np.ndarray,
        shown: np.ndarray,
        line: np.ndarray,
        event_time: np.ndarray,
        event: np.ndarray,
        within: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        return _matched(shown_time, shown, line, event_time, event, within, self.line, self.time, self.first)


@_kernel
def _matched(  # pragma: no cover  # compiled
    shown_time: np.ndarray,
    shown: np.ndarray,
    line: np.ndarray,
    event_time: np.ndarray,
    event: np.ndarray,
    within: int,
    last_line: np.ndarray,
    last_time: np.ndarray,
    first_time: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    places, at, p = np.full(len(event), -1), np.zeros(len(event), np.int64), 0
    for e in range(len(event) + 1):
        while p < len(shown) and (e == len(event) or shown_time[p] <= event_time[e]):
            k = shown[p]
            if k >= 0:
                last_line[k], last_time[k] = line[p], shown_time[p]
                if first_time[k] == _NEVER:
                    first_time[k] = shown_time[p]
            p += 1
        if e < len(event):
            k = event[e]
            if k >= 0 and last_line[k] >= 0 and event_time[e] - last_time[k] <= within:
                places[e], at[e] = last_line[k], last_time[k]
    return places, at
