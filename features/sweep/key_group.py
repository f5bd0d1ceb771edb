"""The totals of one key (an item, or a pair of user and category), swept in order of time.

    an event at t, behaviour with window w     its outcome is known at t + w: it enters a total when t + w < T,
                                               and leaves a total over a window W when t + w + W < T

Both are the event's time plus a constant, so that each is a pointer into the queue of events, which only goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from features.sweep import totals
from features.sweep.decayed_totals import DecayedTotals
from features.sweep.event_queue import EventQueue
from features.sweep.key_rows import KeyRows, resized
from features.sweep.value_totals import ValueTotals
from features.transforms.counters import NEVER, base_names
from rec.spec.features import EXPECTED, MOMENTS, VALUED

if TYPE_CHECKING:
    from features.transforms.counters import Counter

_FIRST = 256  # rows there is room for in the beginning
_COUNT, _RATE = 0, 1
_NO_BASE = np.full((1, 1), np.nan)
_NOBODY = {side: np.zeros(0, np.int32) for side in ("context", "candidates")}


@dataclass(frozen=True)
class Step:
    """A change of totals `delay` microseconds after an event: its outcome enters or leaves (`sign`) some `totals`.

    `last` and `first` are the places of the times of the last and of the first event that it moves; -1 for none.
    """

    task: str | None
    delay: int
    sign: int
    totals: tuple[int, ...]
    last: int = -1
    first: int = -1


@dataclass(frozen=True)
class SideReader:
    """What is read of a key for one side: the counters, and where each stands."""

    numbers: Sequence[Counter]
    moments: Sequence[Counter]
    layout: np.ndarray  # [numbers, 3]: place of the total, whether it is a rate, place of its base
    priors: np.ndarray
    last: np.ndarray


class KeyGroup:
    """Observed outcomes and events of every key, by behaviour and window, and the times of first and last events.

    >>> group = KeyGroup(("item_id",), counters, tasks=["click"])
    """

    def __init__(self, per: tuple[str, ...], counters: Sequence[Counter], tasks: Sequence[str]) -> None:
        """Of the counters that are per this key; `tasks` are the behaviours whose labels are queued, in their order."""
        own = [counter for counter in counters if counter.per == per]
        self.per, self.table = per, KeyRows()
        counted = sorted(
            {(c.task, c.window) for c in own if _is_plain(c)},
            key=lambda pair: (pair[0] or "", pair[1] or 0),
        )
        self.place = {pair: place for place, pair in enumerate(counted)}
        timed = {(c.make, c.task) for c in own if c.make in MOMENTS}
        timed_in_order = sorted(timed, key=lambda pair: (pair[0], pair[1] or ""))
        self.moment_place = {pair: place for place, pair in enumerate(timed_in_order)}
        self.sums = np.zeros((_FIRST, 2 * len(self.place)), np.int64)
        self.moments = np.full((_FIRST, len(self.moment_place)), NEVER)
        self.steps = self._steps(own)
        self._plan = _arrays(self.steps, tasks)
        self._bases = base_names(counters, tasks)
        self.values = _others(own, tasks, self._bases)
        self.readers = {side: self._reader(own, side, tasks) for side in ("context", "candidates")}

    def rows(self, code: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        """The rows of keys [n] int32, made where there was none; -1 where a key is missing."""
        rows = self.table.add(code, known)
        self.sums = resized(self.sums, len(self.table))
        self.moments = resized(self.moments, len(self.table), NEVER)
        for values in self.values:
            values.room(len(self.table))
        return rows

    @property
    def delays(self) -> list[int]:
        """How long after an event something changes, in microseconds."""
        return [step.delay for step in self.steps] + [delay for values in self.values for delay in values.delays]

    def advance(self, queue: EventQueue, name: str, clock: int, until: int) -> None:
        """Count what became known from `clock` on and before `until`; `name` is the array of rows in the queue."""
        pointers = self._pointers(queue, clock)
        delay, shape, places = self._plan
        events = (queue.time, queue.of(name), queue.labels)
        totals.advance(until, pointers, *events, delay, shape, places, self.sums, self.moments)
        for values in self.values:
            values.ask(
                queue, name, clock=clock, time=np.array([until]), bases=_NO_BASE, rows=_NOBODY,
                offsets=np.zeros(2, np.int64),
            )  # fmt: skip

    def ask(
        self,
        queue: EventQueue,
        name: str,
        *,
        clock: int,
        time: np.ndarray,
        bases: np.ndarray,
        context: np.ndarray,
        candidates: np.ndarray,
        offsets: np.ndarray,
    ) -> dict[str, dict[str, np.ndarray]]:
        """The values of both sides as of requests at `time` [B], ascending; the clock is the last of them afterwards.

        `bases` [bases, B] are base rates. `context` [B] and `candidates` [N] are rows of keys, empty where a side has
        no counter of this key; `offsets` [B + 1]. Numbers are float32, NaN where a key is missing; moments int64, 0
        where there is none.
        """
        pointers = self._pointers(queue, clock)
        rows = {"context": context, "candidates": candidates}
        values = {
            side: (
                np.empty((len(reader.numbers), len(rows[side])), np.float32),
                np.empty((len(reader.moments), len(rows[side])), np.int64),
            )
            for side, reader in self.readers.items()
        }
        context_reader, many = self.readers["context"], self.readers["candidates"]
        delay, shape, places = self._plan
        events = (queue.time, queue.of(name), queue.labels)
        totals.ask(
            time, pointers, *events, delay, shape, places, self.sums, self.moments, bases,
            context, context_reader.layout, context_reader.priors, context_reader.last, *values["context"],
            candidates, offsets, many.layout, many.priors, many.last, *values["candidates"],
        )  # fmt: skip
        answers = {side: self._named(side, *values[side]) for side in values}
        for of in self.values:
            more = of.ask(queue, name, clock=clock, time=time, bases=bases, rows=rows, offsets=offsets)
            for side, numbers in more.items():
                answers[side] |= numbers
        return answers

    def change(self, step: Step, rows: np.ndarray, *, old: np.ndarray, new: np.ndarray, time: np.ndarray) -> None:
        """Outcomes [n] that a step has seen already were `old` (int8; -1: never seen) and are `new`."""
        present = rows >= 0
        rows, old, new, time = rows[present], old[present], new[present], time[present]
        for total in step.totals:
            np.add.at(self.sums[:, 2 * total], rows, step.sign * ((new >= 0).astype(np.int64) - (old >= 0)))
            np.add.at(self.sums[:, 2 * total + 1], rows, step.sign * ((new == 1).astype(np.int64) - (old == 1)))
        if step.last >= 0:
            np.maximum.at(self.moments[:, step.last], rows[new == 1], time[new == 1])
        if step.first >= 0:
            totals.keep_earliest(self.moments[:, step.first], rows[new == 1], time[new == 1])

    def read(self, side: str, rows: np.ndarray, bases: Mapping[str, float], time: int) -> dict[str, np.ndarray]:
        """The values of a side for some rows [n] as they stand, to a request at `time`."""
        reader, rows = self.readers[side], rows.astype(np.int32, copy=False)
        numbers = np.empty((len(reader.numbers), len(rows)), np.float32)
        moments = np.empty((len(reader.moments), len(rows)), np.int64)
        base = np.array([[bases.get(name, np.nan)] for name in self._bases], np.float64).reshape(-1, 1)
        totals.read(
            rows, 0, self.sums, self.moments, base, reader.layout, reader.priors, reader.last, 0, numbers, moments
        )
        named = self._named(side, numbers, moments)
        for values in self.values:
            named |= values.read(side, rows, base, time)
        return named

    def _pointers(self, queue: EventQueue, clock: int) -> np.ndarray:
        return np.searchsorted(queue.time, clock - self._plan[0])

    def _named(self, side: str, numbers: np.ndarray, moments: np.ndarray) -> dict[str, np.ndarray]:
        reader = self.readers[side]
        named = {counter.name: values for counter, values in zip(reader.numbers, numbers, strict=True)}
        return named | {counter.name: values for counter, values in zip(reader.moments, moments, strict=True)}

    def _steps(self, own: Sequence[Counter]) -> list[Step]:
        """An outcome enters every total of its behaviour at once, and leaves each window when that has passed."""
        lags = {counter.task: counter.lag for counter in own if _is_plain(counter) or counter.make in MOMENTS}
        steps = []
        for task, lag in lags.items():
            totals = tuple(place for (of, _), place in self.place.items() if of == task)
            last, first = (self.moment_place.get((make, task), -1) for make in MOMENTS)
            steps.append(Step(task, lag, 1, totals, last, first))
        for (task, window), place in self.place.items():
            if window is not None:
                steps.append(Step(task, lags[task] + window, -1, (place,)))
        return steps

    def _reader(self, own: Sequence[Counter], side: str, tasks: Sequence[str]) -> SideReader:
        numbers = [counter for counter in own if counter.side == side and _is_plain(counter)]
        moments = [counter for counter in own if counter.side == side and counter.make in MOMENTS]
        layout = [
            (self.place[c.task, c.window], _RATE if c.make == "rate" else _COUNT, tasks.index(c.task) if c.task else 0)
            for c in numbers
        ]
        return SideReader(
            numbers,
            moments,
            np.array(layout, np.int64).reshape(-1, 3),
            np.array([counter.prior for counter in numbers], np.float64),
            np.array([self.moment_place[counter.make, counter.task] for counter in moments], np.int64),
        )


def _is_plain(counter: Counter) -> bool:
    """Whether it counts outcomes, each as much as another."""
    return counter.make in ("count", "rate") and counter.half_life is None


def _others(own: Sequence[Counter], tasks: Sequence[str], bases: Sequence[str]) -> list[ValueTotals | DecayedTotals]:
    """Totals that are no plain counts: of values of a column, and of what decays."""
    valued: dict[tuple[str | None, str | None], list[Counter]] = {}
    decayed: dict[tuple[int, str | None], list[Counter]] = {}
    for counter in own:
        if counter.make in (*VALUED, *EXPECTED):
            valued.setdefault((counter.column, counter.task), []).append(counter)
        elif counter.half_life is not None:
            decayed.setdefault((counter.half_life, counter.task), []).append(counter)
    of_values = [ValueTotals(counters, tasks, bases) for counters in valued.values()]
    return [*of_values, *(DecayedTotals(counters, tasks) for counters in decayed.values())]


def _arrays(steps: Sequence[Step], tasks: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps as arrays: delays [S], (task, sign, last, first) [S, 4], totals of each [S, most], -1 behind the last."""
    most = max((len(step.totals) for step in steps), default=0)
    totals = np.full((len(steps), most), -1)
    for place, step in enumerate(steps):
        totals[place, : len(step.totals)] = step.totals
    shape = [(-1 if step.task is None else tasks.index(step.task), step.sign, step.last, step.first) for step in steps]
    return np.array([step.delay for step in steps], np.int64), np.array(shape, np.int64).reshape(-1, 4), totals
