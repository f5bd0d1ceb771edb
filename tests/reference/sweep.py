"""Slow, obvious twin of features/sweep: all events ever fed, and a loop over them for every question.

It needs no compiler, no queue and no clock: what is known at a moment is asked of all events anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

HOUR = 3_600_000_000
UNIT = 1_163_962_800  # shares of requests are whole numbers of its parts


@dataclass
class Event:
    """An impression: its time and place, outcomes by behaviour (1, 0, -1), keys by what they are of, and values.

    `numbers` are those of columns, as whole numbers of 2^-24.
    """

    time: int
    place: int
    labels: dict[str, int]
    keys: dict[tuple[str, ...], int | None]
    person: int | None = None
    values: dict[str, int | None] = field(default_factory=dict)
    numbers: dict[str, int | None] = field(default_factory=dict)


@dataclass
class SlowSweep:
    """Every event, in whatever order they came."""

    lags: Mapping[str | None, int]
    events: list[Event] = field(default_factory=list)

    def known(self, task: str | None, time: int, window: int | None = None) -> list[Event]:
        """Events whose outcome became known before a timestamp, and no longer ago than a window; oldest first."""
        lag = self.lags[task]
        seen = [event for event in self.events if event.time + lag < time]
        seen = [event for event in seen if window is None or event.time + lag >= time - window]
        return sorted(seen, key=lambda event: (event.time, event.place))

    def counter(self, counter, key: int | None, time: int) -> float | int | None:
        """A count, a rate, or the time of the first or last event; None where the key is missing or there is none."""
        if key is None:
            return None
        own = [e for e in self.known(counter.task, time, counter.window) if e.keys[counter.per] == key]
        happened = [e for e in own if counter.task is None or e.labels[counter.task] == 1]
        if counter.column == "@share":
            observed = [e for e in own if counter.task is None or e.labels[counter.task] >= 0]
            total = sum(e.numbers["@share"] for e in observed) / UNIT
            if counter.make == "expected":
                return total
            base = self.expected_base(counter.task, time)
            return None if base is None else (len(happened) + counter.prior * base) / (total + counter.prior)
        if counter.column is not None:
            fixed = [e.numbers[counter.column] for e in happened if e.numbers[counter.column] is not None]
            if counter.make == "sum":
                return sum(fixed) / 2**24
            return (sum(fixed) / len(fixed) if counter.make == "mean" else fixed[-1]) / 2**24 if fixed else None
        if counter.make == "since":
            return max((e.time for e in happened), default=None)
        if counter.make == "since_first":
            return min((e.time for e in happened), default=None)

        def many(of: Sequence[Event]) -> float:
            half, lag = counter.half_life, self.lags[counter.task]
            return len(of) if half is None else math.fsum(2 ** -((time - e.time - lag) / half) for e in of)

        if counter.make == "count":
            return many(happened)
        base, observed = self.base(counter.task, time), many([e for e in own if e.labels[counter.task] >= 0])
        return None if base is None else (many(happened) + counter.prior * base) / (observed + counter.prior)

    def base(self, task: str, time: int) -> float | None:
        """The rate of a behaviour over everybody before the whole hour; None where nothing is known."""
        seen = [e.labels[task] for e in self.known(task, time // HOUR * HOUR) if e.labels[task] >= 0]
        return None if not seen else (seen.count(1) + 1) / (len(seen) + 2)

    def expected_base(self, task: str, time: int) -> float | None:
        """Clicks per expected one of everybody before the whole hour; None where nothing is known."""
        seen = [e for e in self.known(task, time // HOUR * HOUR) if e.labels[task] >= 0]
        total = sum(e.numbers["@share"] for e in seen) / UNIT
        return None if not seen else (sum(e.labels[task] for e in seen) + 1) / (total + 1)

    def history(self, name: str, task: str | None, person: int | None, time: int, last: int) -> Sequence[int | None]:
        """The last values of somebody, oldest first."""
        if person is None:
            return []
        own = [e for e in self.known(task, time) if e.person == person and e.values[name] is not None]
        return [e.values[name] for e in own if task is None or e.labels[task] == 1][-last:]


def same(made: float, expected: float | None) -> bool:
    """Whether a float32 is what the twin says; NaN, and the least of all times, are none."""
    if expected is None:
        return made <= -(2.0**63) or math.isnan(made)
    return abs(made - expected) <= 1e-6 * max(1.0, abs(expected))
