"""Features of a request's own candidates: each number among those of its neighbours, and how many there are.

    rank     share of the others that are smaller; of those that are equal, half                       0 .. 1
    gap      x - mean of the request
    share    x / largest |x| of the request, 0 where all are 0                                        -1 .. 1
    zscore   (x - mean) / standard deviation of the request, 0 where all are equal
    best     x - largest of the others: above 0 for the best candidate alone, 0 where the best are equal
    size     candidates of the request, known or not

Missing numbers stay missing, and take no part: the others are compared as if they were not there. Equal numbers are
treated equally. A candidate without another known one is compared with itself: rank 1/2, gap, zscore and best 0.

A request's values depend on its own numbers alone, not on their order nor on the batch, to the bit: sums are in fp64,
over the numbers in order of size. All requests of a batch are computed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rec.data.sketch import keys
from rec.spec import Number, Spec
from rec.spec.features import COMPARED, IN_REQUEST

_MISSING = np.uint64(0xFFFFFFFF)  # after every number
_MOST = np.finfo(np.float32).max


@dataclass(frozen=True)
class SortedNumbers:
    """The numbers of N candidates [N] in order of request and size, missing ones last in each of B requests.

    `place` is a candidate's place in that order inside its request, `known`, `first` and `last` are of a request [B]:
    how many numbers it has, and where its smallest and its largest are.
    """

    order: np.ndarray
    owner: np.ndarray
    value: np.ndarray
    place: np.ndarray
    known: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def of(self, make: str) -> np.ndarray:
        """One feature of every candidate, in the order of the candidates [N] float32; NaN where missing."""
        with np.errstate(invalid="ignore", divide="ignore"):
            value_N = _MAKES[make](self)
        out = np.full(len(self.order), np.float32("nan"))
        known = self.place < self.known[self.owner]
        out[self.order[known]] = value_N[known].clip(-_MOST, _MOST)
        return out

    def mean(self) -> np.ndarray:
        """Of the known numbers of each request [B]."""
        return self._sum(self.value) / self.known

    def _sum(self, value_N: np.ndarray) -> np.ndarray:
        known = self.place < self.known[self.owner]
        return np.bincount(self.owner, np.where(known, value_N, 0.0), len(self.known))


def compared(number_N: np.ndarray, owner_N: np.ndarray, size: int) -> SortedNumbers:
    """Numbers [N] float32, NaN where missing, of `size` requests, ready to be compared; `owner` is sorted."""
    key_N = np.where(np.isnan(number_N), _MISSING, keys(number_N).astype(np.uint64))
    order = np.argsort(key_N | owner_N.astype(np.uint64) << np.uint64(32), kind="stable")
    known = np.bincount(owner_N[~np.isnan(number_N)], minlength=size)
    first = np.concatenate([[0], np.cumsum(np.bincount(owner_N, minlength=size))])[:-1]
    value = number_N[order].astype(np.float64) + 0.0  # -0 is 0
    place = np.arange(len(order)) - first[owner_N]
    return SortedNumbers(order, owner_N, value, place, known, first, first + known - 1)


def of_requests(
    spec: Spec, number: Callable[[str], np.ndarray], owner_N: np.ndarray, size: int
) -> dict[str, dict[str, np.ndarray]]:
    """{side: {feature: its values}} of `size` requests; `number` gives unscaled numbers of candidates [N] by name."""
    out: dict[str, dict[str, np.ndarray]] = {"context": {}, "candidates": {}}
    ready: dict[str, SortedNumbers] = {}
    for side, features in spec.sides():
        for name, feature in features.items():
            if not isinstance(feature, Number) or feature.make not in IN_REQUEST:
                continue
            if feature.make == "size":
                out[side][name] = np.bincount(owner_N, minlength=size).astype(np.float32)
                continue
            of = str(feature.of)
            if of not in ready:
                ready[of] = compared(number(of), owner_N, size)
            out[side][name] = ready[of].of(feature.make)
    return out


def _rank(of: SortedNumbers) -> np.ndarray:
    """Those before the first equal one, and half of the other equal ones, over the others."""
    if not len(of.order):
        return of.value
    new = np.r_[True, (of.value[1:] != of.value[:-1]) | (of.owner[1:] != of.owner[:-1])]
    start = np.flatnonzero(new)
    count = np.diff(np.r_[start, len(new)])
    run = np.cumsum(new) - 1
    others = of.known[of.owner] - 1
    below = of.place[start][run] + (count[run] - 1) / 2
    return np.where(others > 0, below / np.maximum(others, 1), 0.5)


def _gap(of: SortedNumbers) -> np.ndarray:
    return of.value - of.mean()[of.owner]


def _share(of: SortedNumbers) -> np.ndarray:
    largest = np.zeros(len(of.known))
    has_known = of.known > 0
    largest[has_known] = np.maximum(np.abs(of.value[of.first[has_known]]), np.abs(of.value[of.last[has_known]]))
    largest_N = largest[of.owner]
    return np.where(largest_N > 0, of.value / largest_N, 0.0)


def _zscore(of: SortedNumbers) -> np.ndarray:
    gap = _gap(of)
    deviation = np.sqrt(of._sum(gap**2) / of.known)  # noqa: SLF001  its own piece
    has_known = of.known > 0
    # equal numbers may differ by rounding
    deviation[has_known] *= of.value[of.first[has_known]] < of.value[of.last[has_known]]
    deviation_N = deviation[of.owner]
    return np.where(deviation_N > 0, gap / deviation_N, 0.0)


def _best(of: SortedNumbers) -> np.ndarray:
    largest, second = np.zeros(len(of.known)), np.zeros(len(of.known))
    has_known = of.known > 0
    largest[has_known] = of.value[of.last[has_known]]
    second[has_known] = of.value[np.maximum(of.last, of.first)[has_known] - (of.known[has_known] > 1)]
    is_last = of.place == of.known[of.owner] - 1
    return of.value - np.where(is_last, second[of.owner], largest[of.owner])


_MAKES: dict[str, Callable[[SortedNumbers], np.ndarray]] = {
    "rank": _rank,
    "gap": _gap,
    "share": _share,
    "zscore": _zscore,
    "best": _best,
}
assert set(_MAKES) == set(COMPARED)
