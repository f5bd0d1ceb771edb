"""The loops of `features.sweep.key_group`, compiled: totals of keys [K, 2 x totals] as events pass, and reading."""

from __future__ import annotations

import numba
import numpy as np

from features.transforms.counters import NEVER

_kernel = numba.njit(cache=True, nogil=True)


@_kernel
def advance(  # pragma: no cover  # compiled
    until: int,
    pointers: np.ndarray,
    time: np.ndarray,
    key: np.ndarray,
    labels: np.ndarray,
    delay: np.ndarray,
    shape: np.ndarray,
    totals: np.ndarray,
    sums: np.ndarray,
    moments: np.ndarray,
) -> None:
    """Events [E] that became known before `until` change totals, from `pointers` [S] on, which go on."""
    for s in range(len(delay)):
        p, before = pointers[s], until - delay[s]
        if p >= len(time) or time[p] >= before:
            continue  # most steps of most requests, which read no more than this
        task, sign, last, first = shape[s, 0], shape[s, 1], shape[s, 2], shape[s, 3]
        timed = last >= 0 or first >= 0
        while p < len(time) and time[p] < before:
            k = key[p]
            label = 1 if task < 0 else labels[task, p]
            if k >= 0 and label >= 0:
                for j in range(totals.shape[1]):
                    place = totals[s, j]
                    if place < 0:
                        break
                    sums[k, 2 * place] += sign
                    if label == 1:
                        sums[k, 2 * place + 1] += sign
                if timed and label == 1:
                    _move(moments, int(k), int(time[p]), last, first)
            p += 1
        pointers[s] = p


@_kernel
def _move(moments: np.ndarray, k: int, time: int, last: int, first: int) -> None:  # pragma: no cover  # compiled
    if last >= 0 and time > moments[k, last]:
        moments[k, last] = time
    if first >= 0 and (moments[k, first] == NEVER or time < moments[k, first]):
        moments[k, first] = time


@_kernel
def keep_earliest(earliest: np.ndarray, rows: np.ndarray, time: np.ndarray) -> None:  # pragma: no cover  # compiled
    """Events [n] of keys by rows that come late: the earliest of each [K] is no later than these."""
    for i in range(len(rows)):
        if earliest[rows[i]] == NEVER or time[i] < earliest[rows[i]]:
            earliest[rows[i]] = time[i]


@_kernel
def read(  # pragma: no cover  # compiled
    rows: np.ndarray,
    first: int,
    sums: np.ndarray,
    moments: np.ndarray,
    bases: np.ndarray,
    layout: np.ndarray,
    priors: np.ndarray,
    last: np.ndarray,
    request: int,
    numbers_out: np.ndarray,
    moments_out: np.ndarray,
) -> None:
    """The numbers and moments of keys of one request, into places from `first` on."""
    for i in range(first, first + len(rows)):
        k = rows[i - first]
        for j in range(len(layout)):
            place, rate, base = layout[j]
            if k < 0:
                numbers_out[j, i] = np.nan
            elif rate:
                prior = priors[j]
                numbers_out[j, i] = (sums[k, 2 * place + 1] + prior * bases[base, request]) / (
                    sums[k, 2 * place] + prior
                )
            else:
                numbers_out[j, i] = sums[k, 2 * place + 1]
        for j in range(len(last)):
            moments_out[j, i] = NEVER if k < 0 else moments[k, last[j]]


@_kernel
def ask(  # pragma: no cover  # compiled
    request_time: np.ndarray,
    pointers: np.ndarray,
    time: np.ndarray,
    key: np.ndarray,
    labels: np.ndarray,
    delay: np.ndarray,
    shape: np.ndarray,
    totals: np.ndarray,
    sums: np.ndarray,
    moments: np.ndarray,
    bases: np.ndarray,
    context: np.ndarray,
    one_layout: np.ndarray,
    one_priors: np.ndarray,
    one_last: np.ndarray,
    one_numbers: np.ndarray,
    one_moments: np.ndarray,
    candidates: np.ndarray,
    offsets: np.ndarray,
    layout: np.ndarray,
    priors: np.ndarray,
    last: np.ndarray,
    numbers: np.ndarray,
    moments_out: np.ndarray,
) -> None:
    """Both sides of requests at `asked` [B], ascending: counted up to each, then read."""
    for r in range(len(request_time)):
        advance(request_time[r], pointers, time, key, labels, delay, shape, totals, sums, moments)
        if len(context):
            read(
                context[r : r + 1],
                r,
                sums,
                moments,
                bases,
                one_layout,
                one_priors,
                one_last,
                r,
                one_numbers,
                one_moments,
            )
        if len(candidates):
            low, high = offsets[r], offsets[r + 1]
            read(candidates[low:high], low, sums, moments, bases, layout, priors, last, r, numbers, moments_out)
