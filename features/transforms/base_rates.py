"""The base rate of a behaviour: its rate over all users, as known before the hour of the request.

    base(T) = (H + 1) / (N + 2)        H events among N impressions whose outcome was known before T's whole hour
    missing where N = 0                the formula's 1/2 would be far too high for rare events

By the hour, so that the rate does not depend on the partitioning, and a store keeps it as one small table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

HOUR = 3_600_000_000  # microseconds
_FEW = 1 << 20  # hours between the first and the last: more than a hundred years


@dataclass(frozen=True)
class BaseRates:
    """Counts by hour since 1970 [h], ascending: outcomes that became known in it, and events among them."""

    hour: np.ndarray
    shown: np.ndarray
    happened: np.ndarray

    @classmethod
    def of(cls, known_E: np.ndarray, label_E: np.ndarray) -> BaseRates:
        """From the times at which outcomes became known [E], and labels [E] (1, 0; -1 is not counted)."""
        if not len(known_E):
            return cls.merged([])
        hour = known_E // HOUR
        first = int(hour.min())
        if int(hour.max()) - first > _FEW:  # a clock that jumps: no array for every hour between
            hours, hour = np.unique(hour, return_inverse=True)
        else:
            hours, hour = np.arange(first, int(hour.max()) + 1), hour - first
        shown = np.bincount(hour[label_E >= 0], minlength=len(hours))
        happened = np.bincount(hour[label_E == 1], minlength=len(hours))
        return cls(hours[shown > 0], shown[shown > 0], happened[shown > 0])

    @classmethod
    def merged(cls, parts: Iterable[BaseRates]) -> BaseRates:
        """The summed counts of several partitions."""
        counts = list(parts)
        if not counts:
            return cls(*(np.zeros(0, np.int64) for _ in range(3)))
        hour, place = np.unique(np.concatenate([part.hour for part in counts]), return_inverse=True)
        shown, happened = np.zeros(len(hour), np.int64), np.zeros(len(hour), np.int64)
        np.add.at(shown, place, np.concatenate([part.shown for part in counts]))
        np.add.at(happened, place, np.concatenate([part.happened for part in counts]))
        return cls(hour, shown, happened)

    def base(self, time_Q: np.ndarray) -> np.ndarray:
        """The base rate as of some timestamps, float64 [Q]; NaN before any outcome is known."""
        shown = np.concatenate([[0], np.cumsum(self.shown)])
        happened = np.concatenate([[0], np.cumsum(self.happened)])
        rate = np.where(shown > 0, (happened + 1) / (shown + 2), np.nan)
        if not len(time_Q):
            return np.zeros(0)
        hour = time_Q // HOUR
        first, last = int(hour.min()), int(hour.max())
        if last - first > _FEW:
            return rate[np.searchsorted(self.hour, hour)]
        return rate[np.searchsorted(self.hour, np.arange(first, last + 1))][hour - first]

    def plain(self) -> list[list[int]]:
        """As three lists, for a JSON file."""
        return [self.hour.tolist(), self.shown.tolist(), self.happened.tolist()]

    @classmethod
    def from_plain(cls, lists: list[list[int]]) -> BaseRates:
        """From the lists of `plain`."""
        return cls(*(np.array(values, np.int64) for values in lists))
