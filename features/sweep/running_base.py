"""The base rate of a behaviour as the hours pass: its rate over all users, as known before the hour of the request.

base(T) = (H + 1) / (N + 2)        H events among N impressions whose outcome was known before T's whole hour
missing where N = 0                the formula's 1/2 would be far too high for rare events

Over expected clicks, base(T) = (H + 1) / (E + 1): E is the sum of 1/size of these impressions (request_shares.py), and
of nobody it would be what is expected, 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numba
import numpy as np

from features.sweep.event_queue import EventQueue
from features.sweep.request_shares import UNIT
from features.sweep.value_totals import value_of
from features.transforms.counters import SHARE, Counter, base_names

HOUR = 3_600_000_000  # microseconds
_START = -(1 << 40)  # an hour before all others
_NONE = np.zeros(0, np.int64)

_kernel = numba.njit(cache=True, nogil=True)


class RunningBase:
    """Outcomes known before the present hour and in it: how many were observed, and how many happened."""

    def __init__(self, task: int, delay: int, *, expected: bool = False) -> None:
        """`task` is the place of the behaviour among the queued labels, `delay` how long until an outcome is known.

        `expected`: an impression counts 1 / UNIT as often as its share is, instead of once.
        """
        self.task, self.delay, self._expected = task, delay, expected
        self.known = np.array([0, 0, 0, 0, _START])  # before: observed, happened; in the hour: the same; the hour

    def ask(self, queue: EventQueue, *, clock: int, time: np.ndarray) -> np.ndarray:
        """The rates as of requests at `time` [B], ascending; float64, NaN where nothing is known."""
        first = queue.before(clock - self.delay)
        weight = queue.of(value_of(SHARE)) if self._expected else _NONE
        shown, happened = _hourly(queue.time, queue.labels, self.task, self.delay, weight, first, time, self.known)
        rate = (happened + 1) / (shown / UNIT + 1 if self._expected else shown + 2)
        return np.where(shown > 0, rate, np.nan)

    def change(self, time: np.ndarray, label: np.ndarray, share: np.ndarray | None, sign: int) -> None:
        """Outcomes [n] of events at `time`, with their shares, that are known by now enter (1) or leave (-1)."""
        weight = share if self._expected and share is not None else np.ones(len(time), np.int64)
        for inside, place in ((False, 0), (True, 2)):
            here = ((time + self.delay) // HOUR >= self.known[4]) == inside
            shown = weight[here & (label >= 0)].sum()
            self.known[place : place + 2] += sign * np.array([shown, (label[here] == 1).sum()])


def running_bases(every: Sequence[Counter], tasks: Sequence[str], lags: Mapping[str, int]) -> dict[str, RunningBase]:
    """The bases that counters are drawn to, by their names.

    `tasks` are the behaviours whose labels are queued, `lags` how long until their outcomes are known.
    """
    rated = {counter.task for counter in every if counter.make == "rate"}
    of = {name: name.removeprefix("coec ") for name in base_names(every, tasks)}
    return {
        name: RunningBase(tasks.index(task), lags[task], expected=name != task)
        for name, task in of.items()
        if name != task or task in rated
    }


@_kernel
def _hourly(  # pragma: no cover  # compiled
    time: np.ndarray,
    labels: np.ndarray,
    task: int,
    delay: int,
    weight: np.ndarray,
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
                known[place] += weight[p] if len(weight) else 1
            if labels[task, p] == 1:
                known[place + 1] += 1
            p += 1
        shown[r], happened[r] = known[0], known[1]
    return shown, happened
