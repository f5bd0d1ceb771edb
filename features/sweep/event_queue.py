"""Events in order of time that some counter has still to see: a queue of arrays.

Every delay is constant, so that for each there is one position in the queue: the events before it have been counted,
those behind it have not. It follows from the clock alone, by bisection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numba
import numpy as np

_FIRST = 1024  # events there is room for from the beginning

_kernel = numba.njit(cache=True, nogil=True)


@dataclass(frozen=True)
class Merge:
    """Where new events went: they were put at the end, and then those from `start` on were taken in `order` [n].

    What is behind these n stayed; `order` is None where all did.
    """

    start: int
    order: np.ndarray | None


class EventQueue:
    """Arrays of one length [E], in the order of `time`, then of `place`: where an event stands in its log.

    Labels int8, keys int32 and values int64, each a block of columns [columns, room].

    >>> queue = EventQueue(keys=["user"], values=[], labels=1)
    >>> queue.add(time, place, {"user": user}, {}, labels)
    """

    def __init__(self, *, keys: Iterable[str], values: Iterable[str], labels: int) -> None:
        """No events; `labels` is how many outcomes an event has."""
        self.columns = {name: place for place, name in enumerate(["time", "place", *values])}
        self.keys = {name: place for place, name in enumerate(keys)}
        self._wide = np.zeros((len(self.columns), _FIRST), np.int64)
        self._rows = np.zeros((len(self.keys), _FIRST), np.int32)
        self._labels = np.zeros((labels, _FIRST), np.int8)
        self._begin = self._end = 0

    def __len__(self) -> int:
        """How many events are queued."""
        return self._end - self._begin

    def of(self, name: str) -> np.ndarray:
        """One of the arrays [E], as a view: what is written there stays."""
        block, place = (self._rows, self.keys[name]) if name in self.keys else (self._wide, self.columns[name])
        return block[place, self._begin : self._end]

    @property
    def labels(self) -> np.ndarray:
        """Outcomes [labels, E], as a view."""
        return self._labels[:, self._begin : self._end]

    @property
    def time(self) -> np.ndarray:
        """Timestamps [E], as a view."""
        return self._wide[0, self._begin : self._end]

    def before(self, moment: int) -> int:
        """How many events are earlier than a timestamp."""
        return int(np.searchsorted(self.time, moment))

    def add(self, wide: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray], labels: np.ndarray) -> Merge:
        """Insert events in any order, their labels [labels, n]; those of equal time and place stay as they came."""
        count = len(wide["time"])
        if not count:
            return Merge(len(self), None)
        self._room(count)
        merge = self._merge(wide["time"], wide["place"])
        begin, end = self._end, self._end + count
        for name, place in self.columns.items():
            self._wide[place, begin:end] = wide[name]
        for name, place in self.keys.items():
            self._rows[place, begin:end] = rows[name]
        self._labels[:, begin:end] = labels
        if merge.order is not None:
            for block in (self._wide, self._rows, self._labels):
                first = self._begin + merge.start
                zone = block[:, first : first + len(merge.order)]
                zone[:] = zone[:, merge.order]
        self._end = end
        return merge

    def add_one(self, wide: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> bool:
        """Insert one event at the end, columns in the order of the blocks; False where it is not the last in time."""
        if self._end == self._wide.shape[1]:
            self._room(1)
        if not _append(self._wide, self._rows, self._labels, self._begin, self._end, wide, rows, labels):
            return False
        self._end += 1
        return True

    def forget(self, moment: int) -> int:
        """Drop events that are earlier than a timestamp; how many they were."""
        dropped = self.before(moment)
        self._begin += dropped
        return dropped

    def _merge(self, time: np.ndarray, place: np.ndarray) -> Merge:
        start = int(np.searchsorted(self.time, time.min()))
        last = self.time[-1:]
        # new events in order themselves only need sorting where they overlap what is queued
        zone = (
            len(time) if not in_order(time, place) else int(np.searchsorted(time, last[0], "right")) if len(last) else 0
        )
        both = np.concatenate([self.time[start:], time[:zone]])
        beside = np.concatenate([self.of("place")[start:], place[:zone]])
        return Merge(start, None if in_order(both, beside) else np.lexsort((beside, both)))

    def _room(self, more: int) -> None:
        """Room at the end; what was forgotten is given back when there is none, so that this is rare."""
        if self._end + more <= self._wide.shape[1]:
            return
        live = len(self)
        if self._begin >= live and 2 * (live + more) <= self._wide.shape[1]:
            for block in (self._wide, self._rows, self._labels):
                block[:, :live] = block[:, self._begin : self._end]
        else:
            room = max(_FIRST, 3 * (live + more))
            self._wide, self._rows, self._labels = (
                _grown(block, self._begin, self._end, room) for block in (self._wide, self._rows, self._labels)
            )
        self._begin, self._end = 0, live

    def saved(self) -> Sequence[np.ndarray]:
        """All columns of all blocks, to be saved."""
        return [
            column for block in (self._wide, self._rows, self._labels) for column in block[:, self._begin : self._end]
        ]

    def restore(self, columns: Sequence[np.ndarray]) -> None:
        """What `saved` gave, back."""
        self._begin = self._end = 0
        self._room(len(columns[0]))
        self._end = len(columns[0])
        rows = [row for block in (self._wide, self._rows, self._labels) for row in block]
        for row, column in zip(rows, columns, strict=True):
            row[: self._end] = column


def in_order(value: np.ndarray, then: np.ndarray) -> bool:
    """Whether rows are in the order of a column of whole numbers, and where that is equal of another."""
    step = np.diff(value)
    return bool(np.all((step > 0) | ((step == 0) & (np.diff(then) >= 0))))


def _grown(block: np.ndarray, begin: int, end: int, room: int) -> np.ndarray:
    grown = np.empty((len(block), room), block.dtype)
    grown[:, : end - begin] = block[:, begin:end]
    return grown


@_kernel
def _append(  # pragma: no cover  # compiled
    wide: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
    begin: int,
    end: int,
    new_wide: np.ndarray,
    new_rows: np.ndarray,
    new_labels: np.ndarray,
) -> bool:
    if end > begin and (
        wide[0, end - 1] > new_wide[0] or (wide[0, end - 1] == new_wide[0] and wide[1, end - 1] > new_wide[1])
    ):
        return False
    for c in range(len(new_wide)):
        wide[c, end] = new_wide[c]
    for c in range(len(new_rows)):
        rows[c, end] = new_rows[c]
    for c in range(len(new_labels)):
        labels[c, end] = new_labels[c]
    return True
