"""The base rate of a behaviour as the hours pass: its rate over all users, as known before the hour of the request.

base(T) = (H + 1) / (N + 2)        H events among N impressions whose outcome was known before T's whole hour
missing where N = 0                the formula's 1/2 would be far too high for rare events
"""

from __future__ import annotations

import numba
import numpy as np

from features.sweep.event_queue import EventQueue

HOUR = 3_600_000_000  # microseconds
_START = -(1 << 40)  # an hour before all others

_kernel = numba.njit(cache=True, nogil=True)


class RunningBase:
    """Outcomes known before the present hour and in it: how many were observed, and how many happened."""

    def __init__(self, task: int, delay: int) -> None:
        """`task` is the place of the behaviour among the queued labels, `delay` how long until an outcome is known."""
        self.task, self.delay = task, delay
        self.known = np.array([0, 0, 0, 0, _START])  # before: observed, happened; in the hour: the same; the hour

    def ask(self, queue: EventQueue, *, clock: int, time: np.ndarray) -> np.ndarray:
        """The rates as of requests at `time` [B], ascending; float64, NaN where nothing is known."""
        first = queue.before(clock - self.delay)
        shown, happened = _hourly(queue.time, queue.labels, self.task, self.delay, first, time, self.known)
        with np.errstate(invalid="ignore"):
            return np.where(shown > 0, (happened + 1) / (shown + 2), np.nan)

    def change(self, time: np.ndarray, label: np.ndarray, sign: int) -> None:
        """Outcomes [n] of events at `time` that are known by now enter (1) or leave (-1)."""
        for inside, place in ((False, 0), (True, 2)):
            here = label[((time + self.delay) // HOUR >= self.known[4]) == inside]
            self.known[place : place + 2] += sign * np.array([(here >= 0).sum(), (here == 1).sum()])


@_kernel
def _hourly(  # pragma: no cover  # compiled
    time: np.ndarray,
    labels: np.ndarray,
    task: int,
    delay: int,
    first: int,
    request_time: np.ndarray,
    known: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    shown, happened = np.empty(len(request_time), np.int64), np.empty(len(request_time), np.int64)
    p = first
    for r in range(len(request_time)):
        hour = request_time[r] // HOUR
        if hour > known[4]:
            known[0] += known[2]
            known[1] += known[3]
            known[2], known[3], known[4] = 0, 0, hour
        while p < len(time) and time[p] + delay < request_time[r]:
            place = 2 if (time[p] + delay) // HOUR >= hour else 0
            if labels[task, p] >= 0:
                known[place] += 1
            if labels[task, p] == 1:
                known[place + 1] += 1
            p += 1
        shown[r], happened[r] = known[0], known[1]
    return shown, happened
