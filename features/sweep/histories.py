"""The last values of every user where something happened, oldest first; a user's newest stands rightmost."""

from __future__ import annotations

import numba
import numpy as np

from features.sweep.event_queue import EventQueue
from features.sweep.key_rows import resized

_FIRST = 256  # rows there is room for in the beginning

_kernel = numba.njit(cache=True, nogil=True)


class Histories:
    """Times and values of one history, of every user by his row.

    `task` is the place of its behaviour among the queued labels (-1: being shown), `delay` how long after an event it
    is known, in microseconds, `last` how many are kept. 16 bytes for each of these.
    """

    def __init__(self, task: int, delay: int, last: int) -> None:
        """Nobody did anything."""
        self.task, self.delay, self.last = task, delay, last
        self.size = np.zeros(_FIRST, np.int32)
        self.time = np.zeros((_FIRST, last), np.int64)
        self.value = np.zeros((_FIRST, last), np.int64)

    def room(self, rows: int) -> None:
        """Room for so many users."""
        self.size, self.time, self.value = (resized(array, rows) for array in (self.size, self.time, self.value))

    def ask(
        self, queue: EventQueue, names: tuple[str, str], *, clock: int, time: np.ndarray, people: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What users (rows [B], -1: nobody) did before requests at `time` [B], ascending: times, values, offsets.

        `names` are the arrays of users and of values in the queue; a user of -1 there has no such value.
        """
        queued = (queue.time, queue.of(names[0]), queue.of(names[1]), queue.labels)
        first = queue.before(clock - self.delay)
        return _remembered(*queued, self.task, self.delay, first, time, people, self.size, self.time, self.value)

    def advance(self, queue: EventQueue, names: tuple[str, str], clock: int, until: int) -> None:
        """Take in what became known from `clock` on and before `until`."""
        nobody = np.full(1, -1, np.int32)
        self.ask(queue, names, clock=clock, time=np.array([until]), people=nobody)

    def insert(self, row: int, time: int, value: int) -> None:
        """One more of a user, behind those of its timestamp; the oldest makes room."""
        _insert(row, time, value, self.size, self.time, self.value)

    def remove(self, row: int, time: int, value: int) -> None:
        """Remove an event that was revoked; the oldest one, dropped to make room for it, does not come back."""
        begin = self.last - int(self.size[row])
        times, values = self.time[row], self.value[row]
        matches = np.flatnonzero((times[begin:] == time) & (values[begin:] == value))
        if len(matches):
            place = begin + int(matches[-1])
            times[begin + 1 : place + 1], values[begin + 1 : place + 1] = times[begin:place], values[begin:place]
            self.size[row] -= 1

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Times and values of a user, oldest first."""
        begin = self.last - int(self.size[row])
        return self.time[row, begin:], self.value[row, begin:]


@_kernel
def _insert(  # pragma: no cover  # compiled
    row: int, time: int, value: int, size: np.ndarray, times: np.ndarray, values: np.ndarray
) -> None:
    last = times.shape[1]
    begin = last - size[row]
    place = last  # behind all of its timestamp or before it
    while place > begin and times[row, place - 1] > time:
        place -= 1
    if size[row] == last:
        if place == 0:
            return
        begin = 1
    else:
        size[row] += 1
    for j in range(place - begin):
        times[row, begin - 1 + j], values[row, begin - 1 + j] = times[row, begin + j], values[row, begin + j]
    times[row, place - 1], values[row, place - 1] = time, value


@_kernel
def _remembered(  # pragma: no cover  # compiled
    time: np.ndarray,
    person: np.ndarray,
    value: np.ndarray,
    labels: np.ndarray,
    task: int,
    delay: int,
    first: int,
    request_time: np.ndarray,
    people: np.ndarray,
    size: np.ndarray,
    times: np.ndarray,
    values: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    last, p, filled = times.shape[1], first, 0
    moments, held = np.empty(len(request_time) * last, np.int64), np.empty(len(request_time) * last, np.int64)
    offsets = np.zeros(len(request_time) + 1, np.int64)
    for r in range(len(request_time)):
        while p < len(time) and time[p] < request_time[r] - delay:
            if person[p] >= 0 and (task < 0 or labels[task, p] == 1):
                _insert(person[p], time[p], value[p], size, times, values)
            p += 1
        who = people[r]
        if who >= 0:
            begin = last - size[who]
            for j in range(size[who]):  # from 0 on: ten times as fast as from `begin`
                moments[filled + j], held[filled + j] = times[who, begin + j], values[who, begin + j]
            filled += size[who]
        offsets[r + 1] = filled
    return moments[:filled], held[:filled], offsets
