"""Mean, sum and last of a column's values where something happened, of every key and window, as a log goes by.

And expected clicks, the sum of 1/size of requests, with clicks over these: values of the column SHARE.

Values are whole numbers of 2^-24, and their sums exact integers: a value that leaves a window takes away exactly what
it brought, and the order in which events come, late ones too, does not change a bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numba
import numpy as np
import polars as pl

from features.sweep import request_shares
from features.sweep.event_queue import EventQueue
from features.sweep.key_rows import resized
from features.transforms import attributes
from features.transforms.counters import NEVER, SHARE

if TYPE_CHECKING:
    from features.transforms.counters import Counter

UNIT = 1 << 24  # of one
LARGEST = float(1 << 38)  # in size; what is larger counts as this
_FIRST = 256  # rows there is room for in the beginning
_FOREVER = 1 << 60  # what is in no window never leaves
_KINDS = {"mean": 0, "sum": 1, "last": 2, "expected": 1, "coec": 3}  # even: of no value there is none
_HIGH = 4294967296.0

_kernel = numba.njit(cache=True, nogil=True)


def fixed(values: pl.Series, where: str) -> np.ndarray:
    """Numbers [n] as whole numbers of 2^-24, int64; NEVER where missing or infinite. DataError where they are none."""
    numbers = attributes.numeric(values, where).cast(pl.Float64).fill_null(float("nan")).to_numpy()
    known = np.isfinite(numbers)
    clipped = np.clip(np.where(known, numbers, 0.0), -LARGEST, LARGEST)
    return np.where(known, np.rint(clipped * UNIT).astype(np.int64), NEVER)


def value_of(column: str) -> str:
    """The name of the array of a column's values in the queue."""
    return f"value {column}"


class ValueTotals:
    """Of one column where one behaviour happened: per key and window how many values and their sum, and the newest.

    24 bytes per key and window, 24 per key.
    """

    def __init__(self, counters: Sequence[Counter], tasks: Sequence[str], bases: Sequence[str]) -> None:
        """Of counters of one key, column and behaviour; `tasks` are the behaviours whose labels are queued.

        `bases` are the names of base rates in their order.
        """
        of = counters[0]
        self._unit = float(request_shares.UNIT if of.column == SHARE else UNIT)
        self._observed = of.make == "coec"  # whether what was observed is summed, and what happened counted
        self.column, self._task = str(of.column), -1 if of.task is None else tasks.index(of.task)
        windows = sorted({_FOREVER if counter.window is None else counter.window for counter in counters})
        self._delay = np.array([of.lag, *(of.lag + window for window in windows)], np.int64)
        self.sums = np.zeros((_FIRST, 3 * len(windows)), np.int64)  # of each: how many, high and low half of the sum
        self.newest = np.full((_FIRST, 3), NEVER)  # time, place, value
        self._readers: dict[str, tuple[list[str], np.ndarray, np.ndarray]] = {}
        base = bases.index(f"coec {of.task}") if self._observed else 0
        for side in ("context", "candidates"):
            own = [counter for counter in counters if counter.side == side]
            places = [windows.index(_FOREVER if c.window is None else c.window) for c in own]
            layout = [(_KINDS[c.make], place, base) for c, place in zip(own, places, strict=True)]
            priors = np.array([c.prior for c in own], np.float64)
            self._readers[side] = [c.name for c in own], np.array(layout, np.int64).reshape(-1, 3), priors

    @property
    def delays(self) -> list[int]:
        """How long after an event something changes, in microseconds."""
        return [delay for delay in self._delay.tolist() if delay < _FOREVER]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is known of keys, by name: arrays of rows."""
        return {"sum": self.sums, "newest": self.newest}

    def room(self, rows: int) -> None:
        """Room for so many keys."""
        self.sums, self.newest = resized(self.sums, rows), resized(self.newest, rows, NEVER)

    def ask(
        self,
        queue: EventQueue,
        name: str,
        *,
        clock: int,
        time: np.ndarray,
        bases: np.ndarray,
        rows: Mapping[str, np.ndarray],
        offsets: np.ndarray,
    ) -> dict[str, dict[str, np.ndarray]]:
        """The values of both sides as of requests at `time` [B], as `KeyGroup.ask` has them; NaN for none."""
        (one_names, one, one_priors), (names, many, priors) = self._readers["context"], self._readers["candidates"]
        context, candidates = (
            np.empty((len(layout), len(rows[side])), np.float32)
            for side, layout in (("context", one), ("candidates", many))
        )
        events = queue.time, queue.of("place"), queue.of(name), queue.of(value_of(self.column)), queue.labels
        pointers = np.searchsorted(queue.time, clock - self._delay)
        _ask(
            time, pointers, *events, self._task, self._observed, self._delay, self.sums, self.newest,
            self._unit, bases, rows["context"], one, one_priors, context,
            rows["candidates"], offsets, many, priors, candidates,
        )  # fmt: skip
        return {
            "context": dict(zip(one_names, context, strict=True)),
            "candidates": dict(zip(names, candidates, strict=True)),
        }

    def read(self, side: str, rows: np.ndarray, bases: np.ndarray, _time: int) -> dict[str, np.ndarray]:
        """The values of a side for some rows [n] int32 as they stand; bases [bases, 1]."""
        names, layout, priors = self._readers[side]
        numbers = np.empty((len(layout), len(rows)), np.float32)
        _read(rows, 0, self.sums, self.newest, self._unit, bases, 0, layout, priors, numbers)
        return dict(zip(names, numbers, strict=True))

    def change(
        self, wide: Mapping[str, np.ndarray], rows: np.ndarray, labels: np.ndarray, *, clock: int, enters: bool
    ) -> None:
        """Events [n] of keys by rows enter what the clock has passed, or leave it; a newest value stays."""
        events = wide["time"], wide["place"], rows, wide[value_of(self.column)], labels
        _change(clock, 1 if enters else -1, *events, self._task, self._observed, self._delay, self.sums, self.newest)


@_kernel
def _counts(value: int, label: int, observed: bool) -> bool:  # pragma: no cover  # compiled  # noqa: FBT001
    return value != NEVER and (label == 1 or (observed and label == 0))


@_kernel
def _add(sums: np.ndarray, k: int, w: int, value: int, label: int, sign: int) -> None:  # pragma: no cover  # compiled
    sums[k, 3 * w] += sign * label
    sums[k, 3 * w + 1] += sign * (value >> 32)
    sums[k, 3 * w + 2] += sign * (value & 0xFFFFFFFF)


@_kernel
def _renew(newest: np.ndarray, k: int, time: int, place: int, value: int) -> None:  # pragma: no cover  # compiled
    if time > newest[k, 0] or (time == newest[k, 0] and place >= newest[k, 1]):
        newest[k, 0], newest[k, 1], newest[k, 2] = time, place, value


@_kernel
def _change(  # pragma: no cover  # compiled
    clock: int,
    sign: int,
    time: np.ndarray,
    place: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    labels: np.ndarray,
    task: int,
    observed: bool,  # noqa: FBT001
    delay: np.ndarray,
    sums: np.ndarray,
    newest: np.ndarray,
) -> None:
    for p in range(len(time)):
        label = 1 if task < 0 else labels[task, p]
        if key[p] < 0 or not _counts(value[p], label, observed) or time[p] >= clock - delay[0]:
            continue
        for w in range(len(delay) - 1):
            if time[p] >= clock - delay[w + 1]:
                _add(sums, key[p], w, value[p], label, sign)
        if sign > 0:
            _renew(newest, key[p], time[p], place[p], value[p])


@_kernel
def _read(  # pragma: no cover  # compiled
    rows: np.ndarray,
    first: int,
    sums: np.ndarray,
    newest: np.ndarray,
    unit: float,
    bases: np.ndarray,
    request: int,
    layout: np.ndarray,
    priors: np.ndarray,
    out: np.ndarray,
) -> None:
    for i in range(first, first + len(rows)):
        k = rows[i - first]
        for j in range(len(layout)):
            kind, w, base = layout[j]
            count = 0 if k < 0 else sums[k, 3 * w]
            if k < 0 or (count == 0 and kind % 2 == 0):
                out[j, i] = np.nan
            elif kind == 2:
                out[j, i] = newest[k, 2] / unit
            else:
                total = (sums[k, 3 * w + 1] * _HIGH + sums[k, 3 * w + 2]) / unit
                if kind == 0:
                    total /= count
                elif kind == 3:
                    total = (count + priors[j] * bases[base, request]) / (total + priors[j])
                out[j, i] = total


@_kernel
def _ask(  # pragma: no cover  # compiled
    request_time: np.ndarray,
    pointers: np.ndarray,
    time: np.ndarray,
    place: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    labels: np.ndarray,
    task: int,
    observed: bool,  # noqa: FBT001
    delay: np.ndarray,
    sums: np.ndarray,
    newest: np.ndarray,
    unit: float,
    bases: np.ndarray,
    context: np.ndarray,
    one: np.ndarray,
    one_priors: np.ndarray,
    one_out: np.ndarray,
    candidates: np.ndarray,
    offsets: np.ndarray,
    many: np.ndarray,
    priors: np.ndarray,
    out: np.ndarray,
) -> None:
    for r in range(len(request_time)):
        for s in range(len(delay)):
            p, before = int(pointers[s]), request_time[r] - delay[s]
            while p < len(time) and time[p] < before:
                k, label = key[p], 1 if task < 0 else labels[task, p]
                if k >= 0 and _counts(value[p], label, observed):
                    if s > 0:
                        _add(sums, k, s - 1, value[p], label, -1)
                    else:
                        for w in range(len(delay) - 1):
                            _add(sums, k, w, value[p], label, 1)
                        _renew(newest, k, time[p], place[p], value[p])
                p += 1
            pointers[s] = p
        if len(context):
            _read(context[r : r + 1], r, sums, newest, unit, bases, r, one, one_priors, one_out)
        if len(candidates):
            low, high = offsets[r], offsets[r + 1]
            _read(candidates[low:high], low, sums, newest, unit, bases, r, many, priors, out)
