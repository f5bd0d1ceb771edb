"""Counts of every key in which an event weighs half as much after each half-life.

    weight of what became known at k, to a request at T        2^(-(T - k) / half-life)

Time is cut into epochs of one half-life since 1970. An event in epoch e weighs w = 2^(24 + its part of the epoch), a
whole number, and a key has the sum of w * 2^(e - E + 32) rounded down, E the epoch of its newest event: forward decay
(Cormode et al., Forward Decay, ICDE 2009), whose landmark goes on by halving. Rounding down a half of what was rounded
down is rounding down the quarter, and events add whole numbers, so that the sum is that of the exact one whatever came
first, and in which slices. Only an event that comes 32 half-lives later than another of its key does not count: of one
event that is 2^-32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import TYPE_CHECKING

import numba
import numpy as np

from features.sweep.event_queue import EventQueue
from features.sweep.key_rows import resized
from features.transforms.counters import NEVER

if TYPE_CHECKING:
    from features.transforms.counters import Counter

_FIRST = 256  # rows there is room for in the beginning
_BITS = 24  # of a weight, behind the point
_STEPS = 2048  # of an epoch, between which weights lie on straight lines
_KEPT = 32  # half-lives for which a late event still counts: bits of the low half of a sum
_LOW = (1 << _KEPT) - 1
_ONE = 2.0 ** -(_BITS + _KEPT)

_kernel = numba.njit(cache=True, nogil=True)


def _powers() -> np.ndarray:
    """2^(24 + i / 2048) for i = 0 to 2049, to the nearest whole number; by whole numbers, the same on every machine."""
    bits = 128
    root = 2 << bits
    for _ in range(_STEPS.bit_length() - 1):
        root = isqrt(root << bits)
    power, powers = 1 << bits, []
    for _ in range(_STEPS + 2):
        powers.append(((power >> (bits - _BITS - 1)) + 1) >> 1)
        power = power * root >> bits
    return np.array(powers, np.int64)


_POWERS = _powers()


class DecayedTotals:
    """Of one behaviour and half-life: per key how many outcomes were observed and happened. 40 bytes per key."""

    def __init__(self, counters: Sequence[Counter], tasks: Sequence[str]) -> None:
        """Of counters of one key, behaviour and half-life; `tasks` are the behaviours whose labels are queued."""
        of = counters[0]
        self._task, self._lag = -1 if of.task is None else tasks.index(of.task), of.lag
        self._half_life = int(of.half_life or 0)
        self.sums = np.zeros((_FIRST, 4), np.int64)  # observed: high and low half of the sum; happened: the same
        self.epoch = np.full((_FIRST, 1), NEVER)
        self._readers: dict[str, tuple[list[str], np.ndarray, np.ndarray]] = {}
        for side in ("context", "candidates"):
            own = [counter for counter in counters if counter.side == side]
            layout = [(c.make == "rate", max(0, self._task)) for c in own]
            priors = np.array([c.prior for c in own], np.float64)
            self._readers[side] = [c.name for c in own], np.array(layout, np.int64).reshape(-1, 2), priors

    @property
    def delays(self) -> list[int]:
        """How long after an event something changes, in microseconds."""
        return [self._lag]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is known of keys, by name: arrays of rows."""
        return {"sum": self.sums, "epoch": self.epoch}

    def room(self, rows: int) -> None:
        """Room for so many keys."""
        self.sums, self.epoch = resized(self.sums, rows), resized(self.epoch, rows, NEVER)

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
        """The values of both sides as of requests at `time` [B], as `KeyGroup.ask` has them."""
        numbers = {
            side: np.empty((len(names), len(rows[side])), np.float32) for side, (names, _, _) in self._readers.items()
        }
        (_, one, one_priors), (_, many, priors) = self._readers["context"], self._readers["candidates"]
        events = queue.time, queue.of(name), queue.labels
        _ask(
            time, int(np.searchsorted(queue.time, clock - self._lag)), *events,
            self._task, self._lag, self._half_life, self.sums, self.epoch, _POWERS, bases,
            rows["context"], one, one_priors, numbers["context"],
            rows["candidates"], offsets, many, priors, numbers["candidates"],
        )  # fmt: skip
        return {side: dict(zip(self._readers[side][0], values, strict=True)) for side, values in numbers.items()}

    def read(self, side: str, rows: np.ndarray, bases: np.ndarray, time: int) -> dict[str, np.ndarray]:
        """The values of a side for some rows [n] int32 as they stand, to a request at `time`; bases [tasks, 1]."""
        names, layout, priors = self._readers[side]
        numbers = np.empty((len(layout), len(rows)), np.float32)
        _read(
            rows, 0, self.sums, self.epoch, time, self._half_life, _POWERS, bases, 0, layout, priors, numbers
        )  # fmt: skip
        return dict(zip(names, numbers, strict=True))

    def change(
        self, wide: Mapping[str, np.ndarray], rows: np.ndarray, labels: np.ndarray, *, clock: int, enters: bool
    ) -> None:
        """Events [n] of keys by rows enter what the clock has passed, or leave it."""
        passed = (wide["time"] < clock - self._lag) & (rows >= 0)
        label = np.ones(len(rows), np.int8) if self._task < 0 else labels[self._task]
        for place in np.flatnonzero(passed & (label >= 0)).tolist():
            known = int(wide["time"][place]) + self._lag
            _add(
                self.sums, self.epoch, int(rows[place]), known, self._half_life, _POWERS,
                1 if enters else -1, int(label[place]),
            )  # fmt: skip


@_kernel
def _weight(part: int, half_life: int, powers: np.ndarray) -> int:  # pragma: no cover  # compiled
    """2^(24 + part / half_life), `part` microseconds of an epoch."""
    step = part * _STEPS // half_life
    rest = part * _STEPS - step * half_life
    return powers[step] + np.int64(np.rint((powers[step + 1] - powers[step]) * (rest / half_life)))


@_kernel
def _halved(high: int, low: int, times: int) -> tuple[int, int]:  # pragma: no cover  # compiled
    """A sum divided by 2^times, rounded down."""
    while times >= _KEPT and (high != 0 or low != 0):
        high, low, times = high >> _KEPT, high & _LOW, times - _KEPT
    if times >= _KEPT:
        return 0, 0
    return high >> times, ((high << (_KEPT - times)) & _LOW) | (low >> times)


@_kernel
def _add(  # pragma: no cover  # compiled
    sums: np.ndarray,
    epochs: np.ndarray,
    k: int,
    known: int,
    half_life: int,
    powers: np.ndarray,
    sign: int,
    label: int,
) -> None:
    epoch = known // half_life
    weight = _weight(known - epoch * half_life, half_life, powers)
    if epochs[k, 0] == NEVER:
        epochs[k, 0] = epoch
    later = epoch - epochs[k, 0]
    if later > 0:
        for j in (0, 2):
            sums[k, j], sums[k, j + 1] = _halved(sums[k, j], sums[k, j + 1], later)
        epochs[k, 0], later = epoch, 0
    if later < -_KEPT:
        return
    high = weight >> -later
    low = (weight << (_KEPT + later)) & _LOW
    for j in range(0, 2 + 2 * label, 2):
        low_of = sums[k, j + 1] + sign * low
        sums[k, j] += sign * high + (low_of >> _KEPT)
        sums[k, j + 1] = low_of & _LOW


@_kernel
def _read(  # pragma: no cover  # compiled
    rows: np.ndarray,
    first: int,
    sums: np.ndarray,
    epochs: np.ndarray,
    time: int,
    half_life: int,
    powers: np.ndarray,
    bases: np.ndarray,
    request: int,
    layout: np.ndarray,
    priors: np.ndarray,
    out: np.ndarray,
) -> None:
    epoch = time // half_life
    down = _weight((epoch + 1) * half_life - time, half_life, powers) / powers[_STEPS] * _ONE
    for i in range(first, first + len(rows)):
        k = rows[i - first]
        for j in range(len(layout)):
            if k < 0:
                out[j, i] = np.nan
                continue
            observed = happened = 0.0
            if epochs[k, 0] != NEVER:
                high, low = _halved(sums[k, 2], sums[k, 3], epoch - epochs[k, 0])
                happened = (high * (_LOW + 1.0) + low) * down
                if layout[j, 0]:
                    high, low = _halved(sums[k, 0], sums[k, 1], epoch - epochs[k, 0])
                    observed = (high * (_LOW + 1.0) + low) * down
            if layout[j, 0]:
                happened = (happened + priors[j] * bases[layout[j, 1], request]) / (observed + priors[j])
            out[j, i] = happened


@_kernel
def _ask(  # pragma: no cover  # compiled
    request_time: np.ndarray,
    pointer: int,
    time: np.ndarray,
    key: np.ndarray,
    labels: np.ndarray,
    task: int,
    lag: int,
    half_life: int,
    sums: np.ndarray,
    epochs: np.ndarray,
    powers: np.ndarray,
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
    p = pointer
    for r in range(len(request_time)):
        at = request_time[r]
        while p < len(time) and time[p] < at - lag:
            label = 1 if task < 0 else labels[task, p]
            if key[p] >= 0 and label >= 0:
                _add(sums, epochs, key[p], time[p] + lag, half_life, powers, 1, label)
            p += 1
        if len(context):
            _read(
                context[r : r + 1], r, sums, epochs, at, half_life, powers, bases, r, one, one_priors, one_out
            )  # fmt: skip
        if len(candidates):
            low, high = offsets[r], offsets[r + 1]
            _read(
                candidates[low:high], low, sums, epochs, at, half_life, powers, bases, r, many, priors, out
            )  # fmt: skip
