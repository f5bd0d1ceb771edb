"""Point-in-time counters of a key: impressions, events, rates, and the time of the last event.

    an impression at t, behaviour with window w:   its outcome is known at t + w
    a request at T uses it when                    t + w < T          events at exactly the request time are excluded
    and, in a window W, when                       T - W <= t + w

Events are sorted by key and time once. Every counter of the key, whatever its delay and window, is then two binary
searches in that order and a difference of running sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from features import hashing
from features.transforms.base_rates import BaseRates
from rec.spec import Spec
from rec.spec.features import PAST, Number, keys_of
from rec.spec.tasks import behaviours

_US = timedelta(microseconds=1)
_ROOM = 1 << 62  # what a line of moments may span in all


@dataclass(frozen=True)
class Counter:
    """A point-in-time counter of a key: a count, a rate, or the time of the last event."""

    side: str
    name: str
    per: tuple[str, ...]
    make: str
    task: str | None
    lag: int
    window: int | None
    prior: float

    def value(self, past: EventIndex, places: np.ndarray, time_Q: np.ndarray, base_Q: np.ndarray | float) -> np.ndarray:
        """The value for keys as of timestamps: float64 [Q], or the last time, int64 microseconds (0: none)."""
        if self.make == "since":
            return past.last(self.task, places, time_Q - self.lag)
        shown, happened = past.count(self.task, places, time_Q - self.lag, self.window)
        if self.make == "count":
            return (shown if self.task is None else happened).astype(np.float64)
        return (happened + self.prior * base_Q) / (shown + self.prior)


def counters(spec: Spec) -> list[Counter]:
    """Every counter of a spec, in its order."""
    declared = []
    lags = {name: behaviour.window // _US for name, behaviour in behaviours(spec).items()}
    for side, features in spec.sides():
        for name, feature in features.items():
            if isinstance(feature, Number) and feature.make in PAST:
                per = keys_of(feature) or (str(spec.keys.user),)
                window = None if feature.window is None else feature.window // _US
                lag = 0 if feature.task is None else lags[feature.task]
                declared.append(Counter(side, name, per, feature.make, feature.task, lag, window, feature.prior))
    return declared


class EventIndex:
    """The events of many keys, sorted by key and time, for point-in-time lookups.

    >>> clicks = {"click": np.array([1, 0, 1], np.int8)}
    >>> past = EventIndex(np.array([7, 7, 9], np.uint64), np.array([10, 20, 10]), clicks)
    >>> past.count("click", past.places(np.array([7, 7], np.uint64)), np.array([20, 21]), None)
    (array([1, 2]), array([1, 1]))
    """

    def __init__(
        self,
        code_E: np.ndarray,
        time_E: np.ndarray,
        labels: Mapping[str, np.ndarray],
        *,
        place_E: np.ndarray | None = None,
    ) -> None:
        """Keys uint64 [E], timestamps int64 microseconds [E], and the labels of behaviours int8 [E] (1, 0, -1).

        `place_E` orders events of one key and timestamp.
        """
        self.order = hashing.order(code_E, time_E, *(() if place_E is None else (place_E,)))
        code, self._time = code_E[self.order], time_E[self.order]
        new = np.ones(len(code), bool)
        new[1:] = code[1:] != code[:-1]
        self._starts = np.flatnonzero(new)
        self.keys = code[self._starts]
        self.of = np.cumsum(new) - 1  # the place of each event's own key, in their order
        self._ends = np.append(self._starts[1:], len(code))
        self._labels = labels
        self._sums: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._draw_line()

    @property
    def own(self) -> np.ndarray:
        """The place of each event's own key, in the given order of events [E]."""
        places = np.empty(len(self.order), np.int64)
        places[self.order] = self.of
        return places

    def places(self, code_Q: np.ndarray) -> np.ndarray:
        """The places of keys [Q]; -1 where a key has no event."""
        if not len(self.keys):
            return np.full(len(code_Q), -1)
        place = np.minimum(np.searchsorted(self.keys, code_Q), len(self.keys) - 1)
        return np.where(self.keys[place] == code_Q, place, -1)

    def between(self, places: np.ndarray, before: np.ndarray, window: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Events of each key earlier than `before`, and no earlier than `window` before that: a range in `order`."""
        last = self._first_from(places, before)
        if window is not None:
            return self._first_from(places, before - window), last
        return np.where(places < 0, 0, self._starts[places]) if len(self.keys) else last, last

    def count(
        self, task: str | None, places: np.ndarray, before: np.ndarray, window: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The number of observed outcomes, and of events among them, in the range of `between`."""
        first, last = self.between(places, before, window)
        if task is None:
            return last - first, last - first
        observed, happened = self._summed(task)
        return observed[last] - observed[first], happened[last] - happened[first]

    def last(self, task: str | None, places: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The time of the last event of each key before a timestamp; 0 where there is none."""
        if not len(self._time):
            return np.zeros(len(places), np.int64)
        last = self._first_from(places, before)
        index = np.arange(len(self._time))
        if task is not None:
            index = np.maximum.accumulate(np.where(self._labels[task][self.order] == 1, index, -1))
        at = np.append(index, -1)[last - 1]  # nothing before the first: the -1 appended
        known = (places >= 0) & (last > 0) & (at >= np.where(places < 0, 0, self._starts[places]))
        return np.where(known, self._time[np.maximum(at, 0)], 0)

    def _summed(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        if task not in self._sums:
            label = self._labels[task][self.order]
            sums = (np.cumsum(label >= 0, dtype=np.int64), np.cumsum(label == 1, dtype=np.int64))
            self._sums[task] = (np.concatenate([[0], sums[0]]), np.concatenate([[0], sums[1]]))
        return self._sums[task]

    def _draw_line(self) -> None:
        """One sorted array of all keys' timestamps, key by key, so that one binary search serves all keys."""
        self._ranks = None
        if not len(self._time):
            return
        span = self._time[self._ends - 1] - self._time[self._starts] + 2
        time = self._time
        if span.sum(dtype=np.float64) > _ROOM:  # too wide in microseconds: their ranks are not
            self._ranks = np.unique(self._time)
            time = np.searchsorted(self._ranks, self._time)
            span = time[self._ends - 1] - time[self._starts] + 2
        self._first, self._span = time[self._starts], span
        self._base = np.cumsum(span) - span
        self._line = time + (self._base - self._first)[self.of]

    def _first_from(self, places: np.ndarray, time: np.ndarray) -> np.ndarray:
        """The index in the order of each key's first event at or after a timestamp; 0 for a key without events."""
        if not len(self._time):
            return np.zeros(len(places), np.int64)
        if self._ranks is not None:
            time = np.searchsorted(self._ranks, time)
        at = np.clip(time - self._first[places], 0, self._span[places] - 1) + self._base[places]
        return np.where(places < 0, 0, np.searchsorted(self._line, at))


def answers(
    past: EventIndex, counters: list[Counter], places: np.ndarray, time_Q: np.ndarray, hours: Mapping[str, BaseRates]
) -> dict[str, np.ndarray]:
    """The values of several counters for keys (by their places) as of timestamps."""
    base: dict[str, np.ndarray] = {}
    columns = {}
    for counter in counters:
        if counter.make == "rate" and counter.task not in base:
            base[str(counter.task)] = hours[str(counter.task)].base(time_Q)
        columns[counter.name] = counter.value(past, places, time_Q, base.get(str(counter.task), 0.0))
    return columns
