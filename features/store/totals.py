"""Running totals per key, each user's last values, and base rates, as of the store's clock.

    impression at t, behaviour with window w       its outcome is known at t + w
    enters a total when  t + w < T                 and leaves a total over a window W when  t + w + W < T

Both times are that of the impression plus a constant. So totals are updated incrementally as the clock advances, and a
request only reads them. A later change of an outcome changes the totals by the difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from features.store.hash_index import HashIndex, roomy
from features.transforms.base_rates import HOUR, BaseRates
from features.transforms.counters import Counter
from rec.request import spans

_FIRST = 1024  # rows that are there from the beginning
NEVER = -1  # the label of an outcome that no total holds yet


@dataclass(frozen=True)
class ScheduledUpdate:
    """A change of counters `delay` microseconds after an impression: its outcome enters or leaves a window."""

    task: str | None
    window: int | None
    delay: int


class Totals:
    """The totals of one key: for each behaviour and window the observed outcomes and events, and the last event.

    >>> totals = Totals(("item_id",), {(None, None), ("click", 3_600_000_000)}, {"click"})
    """

    def __init__(
        self, per: tuple[str, ...], counted: Iterable[tuple[str | None, int | None]], last: set[str | None]
    ) -> None:
        """`counted` are behaviours (None: being shown) and windows, `last` those whose last event's time is kept."""
        self.per = per
        self.keys = HashIndex()
        # what ever was comes before every window
        ordered = sorted(set(counted), key=lambda one: (one[0] or "", one[1] or 0))
        self.place = {one: 2 * place for place, one in enumerate(ordered)}
        self.last_place = {task: place for place, task in enumerate(sorted(last, key=lambda one: one or ""))}
        # whole numbers, as floats because rates are made of them: exact up to 2^53
        self.sums = np.zeros((_FIRST, 2 * len(self.place)))
        self.moments = np.zeros((_FIRST, len(self.last_place)), np.int64)

    @classmethod
    def of(cls, per: tuple[str, ...], counters: Iterable[Counter]) -> Totals:
        """Those that some counters of a key read."""
        own = [counter for counter in counters if counter.per == per]
        counted = {(counter.task, counter.window) for counter in own if counter.make != "since"}
        return cls(per, counted, {counter.task for counter in own if counter.make == "since"})

    def add(self, code: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """The rows of keys [n], made where there was none; -1 where a key is missing."""
        rows = np.full(len(code), -1)
        rows[~missing] = self.keys.add(code[~missing])
        self.sums = roomy(self.sums, len(self.keys))
        self.moments = roomy(self.moments, len(self.keys))
        return rows

    def change(
        self, step: ScheduledUpdate, rows: np.ndarray, *, old: np.ndarray, new: np.ndarray, time: np.ndarray
    ) -> None:
        """Outcomes of some keys enter or leave: labels were `old` [n] and are `new`, of impressions at `time`."""
        present = rows >= 0
        if not present.all():
            rows, old, new, time = rows[present], old[present], new[present], time[present]
        observed = (new >= 0).astype(np.float64) - (old >= 0)
        happened = (new == 1).astype(np.float64) - (old == 1)
        for (task, window), place in self.place.items():
            if task == step.task and step.window in (None, window):
                sign = 1 if step.window is None else -1
                np.add.at(self.sums[:, place], rows, sign * observed)
                np.add.at(self.sums[:, place + 1], rows, sign * happened)
        if step.window is None and step.task in self.last_place:
            did = new == 1
            np.maximum.at(self.moments[:, self.last_place[step.task]], rows[did], time[did])

    def table(self) -> pa.Table:
        """Every key's totals, to be saved."""
        count = len(self.keys)
        return totals_table(self.keys.codes(), self.sums[1:count].T, self.moments[1:count].T)

    def fill(self, table: pa.Table) -> None:
        """What `table` gave, back."""
        rows = self.add(table["key"].to_numpy(), np.zeros(len(table), bool))
        for place in range(self.sums.shape[1]):
            self.sums[rows, place] = table[f"sum {place}"].to_numpy()
        for place in range(self.moments.shape[1]):
            self.moments[rows, place] = table[f"last {place}"].to_numpy()


class CounterReader:
    """Reads some counters of one key together: all of a kind in one sum, however many there are."""

    def __init__(self, totals: Totals, counters: Sequence[Counter]) -> None:
        """Of counters that are per the key of `totals`."""
        self._totals = totals
        self._counts = [counter for counter in counters if counter.make == "count"]
        self._rates = [counter for counter in counters if counter.make == "rate"]
        self._lasts = [counter for counter in counters if counter.make == "since"]
        place = totals.place
        self._count_places = [place[counter.task, counter.window] + 1 for counter in self._counts]
        self._rate_places = np.array([place[counter.task, counter.window] for counter in self._rates], np.int64)
        self._priors = np.array([[counter.prior] for counter in self._rates])

    def numbers(self, rows: np.ndarray, bases: Mapping[str | None, float]) -> dict[str, np.ndarray]:
        """Counts and rates of some rows, float32 [n]; a rate is NaN where its base is."""
        if not self._counts and not self._rates:
            return {}
        sums = np.ascontiguousarray(self._totals.sums[rows].T)
        made = {c.name: sums[p].astype(np.float32) for c, p in zip(self._counts, self._count_places, strict=True)}
        if self._rates:
            base = np.array([[bases[counter.task]] for counter in self._rates])
            shown, happened = sums[self._rate_places], sums[self._rate_places + 1]
            rates = ((happened + self._priors * base) / (shown + self._priors)).astype(np.float32)
            made |= {counter.name: rate for counter, rate in zip(self._rates, rates, strict=True)}
        return made

    def moments(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Times of the last events of some rows, int64 microseconds [n]; 0 where there is none."""
        places = self._totals.last_place
        return {counter.name: self._totals.moments[rows, places[counter.task]] for counter in self._lasts}


def totals_table(code: np.ndarray, sums: Iterable[np.ndarray], moments: Iterable[np.ndarray]) -> pa.Table:
    """Totals of keys by their hashes [n], column by column, as they are saved."""
    made = {"key": code}
    made |= {f"sum {place}": column.astype(np.int64) for place, column in enumerate(sums)}
    made |= {f"last {place}": column for place, column in enumerate(moments)}
    return pa.table({name: pa.array(column) for name, column in made.items()})


class HistoryBuffers:
    """The last values of every user where something happened, oldest first; a user's newest stands rightmost."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.size = np.zeros(_FIRST, np.int32)
        self.time = np.zeros((_FIRST, last), np.int64)
        self.value = np.zeros((_FIRST, last), np.int64)

    def grow(self, count: int) -> None:
        """Room for `count` users."""
        self.size, self.time, self.value = (roomy(one, count) for one in (self.size, self.time, self.value))

    def insert(self, row: int, time: int, value: int) -> None:
        """One more of a user, behind those of its timestamp; the oldest makes room."""
        size, times, values = int(self.size[row]), self.time[row], self.value[row]
        begin = self.last - size
        place = begin + int(np.searchsorted(times[begin:], time, side="right"))
        if size == self.last:
            if place == 0:
                return
            begin = 1
        times[begin - 1 : place - 1], values[begin - 1 : place - 1] = times[begin:place], values[begin:place]
        times[place - 1], values[place - 1] = time, value
        self.size[row] = min(size + 1, self.last)

    def remove(self, row: int, time: int, value: int) -> None:
        """Remove an event that was revoked; the oldest one, dropped to make room for it, does not come back."""
        begin = self.last - int(self.size[row])
        times, values = self.time[row], self.value[row]
        found = np.flatnonzero((times[begin:] == time) & (values[begin:] == value))
        if len(found):
            place = begin + int(found[-1])
            times[begin + 1 : place + 1], values[begin + 1 : place + 1] = times[begin:place], values[begin:place]
            self.size[row] -= 1

    def read(self, row: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Timestamps and values of a user's newest `last`, oldest first."""
        begin = self.last - min(int(self.size[row]), last)
        return self.time[row, begin:], self.value[row, begin:]

    def table(self, code: np.ndarray) -> pa.Table:
        """Every user's moments and values, to be saved; `code` [n] are the hashes of rows 1 to n."""
        size = np.minimum(self.size, self.last)[1 : len(code) + 1]
        kept = np.flatnonzero(size)
        length = size[kept].astype(np.int64)
        row, place = np.repeat(kept + 1, length), spans(self.last - length, length)
        return track_table(code[kept], np.append(0, np.cumsum(length)), self.time[row, place], self.value[row, place])

    def fill(self, rows: np.ndarray, table: pa.Table, values: np.ndarray) -> None:
        """What `table` gave, back, for users in `rows`; `values` are the flat values as numbers."""
        length = table["time"].combine_chunks().value_lengths().to_numpy().astype(np.int64)
        self.size[rows] = length
        row, place = np.repeat(rows, length), spans(self.last - length, length)
        self.time[row, place] = table["time"].combine_chunks().flatten().to_numpy()
        self.value[row, place] = values


def track_table(code: np.ndarray, offsets: np.ndarray, time: np.ndarray, values: np.ndarray | pa.Array) -> pa.Table:
    """What users did, flat and oldest first, and where each user's begins [n + 1], as it is saved."""
    begin = pa.array(offsets, pa.int32())
    lists = [pa.ListArray.from_arrays(begin, pa.array(one)) for one in (time, values)]
    return pa.table([pa.array(code), *lists], names=["key", "time", "value"])


class RunningBaseRate:
    """The base rate of a behaviour as the hours pass: see `features.transforms.base_rates`."""

    def __init__(self, known: BaseRates) -> None:
        """From the outcomes known so far."""
        self._hour = 0
        self._before = [0, 0]
        triples = zip(known.hour.tolist(), known.shown.tolist(), known.happened.tolist(), strict=True)
        self._of = {hour: [shown, happened] for hour, shown, happened in triples}

    def change(self, known: np.ndarray, *, old: np.ndarray, new: np.ndarray) -> None:
        """Outcomes that became known at some timestamps [n]: their labels were `old` and are `new`."""
        hour, place = np.unique(known // HOUR, return_inverse=True)
        shown = np.bincount(place, weights=(new >= 0).astype(float) - (old >= 0), minlength=len(hour))
        happened = np.bincount(place, weights=(new == 1).astype(float) - (old == 1), minlength=len(hour))
        for one, seen, did in zip(hour.tolist(), shown.tolist(), happened.tolist(), strict=True):
            total = self._before if one < self._hour else self._of.setdefault(one, [0, 0])
            total[0] += int(seen)
            total[1] += int(did)

    def at(self, time: int) -> float:
        """The rate as of a timestamp, no earlier than the previous one; NaN where nothing is known."""
        if time // HOUR > self._hour:
            self._hour = time // HOUR
            for hour in [hour for hour in self._of if hour < self._hour]:
                shown, happened = self._of.pop(hour)
                self._before[0] += shown
                self._before[1] += happened
        shown, happened = self._before
        return (happened + 1) / (shown + 2) if shown else math.nan

    def hours(self) -> BaseRates:
        """What is known, to be saved; all before the present hour is in one."""
        rows = [[self._hour - 1, *self._before], *([hour, *both] for hour, both in sorted(self._of.items()))]
        return BaseRates.from_plain([list(column) for column in zip(*rows, strict=True)])
