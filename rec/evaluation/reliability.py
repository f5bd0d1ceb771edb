"""Reliability: mean prediction and mean label in bins of equally many candidates, in order of score.

Where scores are tied over the edge of a bin, each side has its share of the tied candidates, with their mean label: a
bin does not depend on the order of rows. Rows come in chunks in order of score; what is held is 15 bins and one score.

DeGroot and Fienberg, The Comparison and Evaluation of Forecasters, The Statistician 1983; bins of equal mass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Scores:
    """Distinct scores in order [K]; the candidates of each, and the mean and squared deviations of their labels [K]."""

    score: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    def of(self, chosen: slice) -> Scores:
        """Some of them."""
        return Scores(self.score[chosen], self.count[chosen], self.mean[chosen], self.squares[chosen])


class ReliabilityBins:
    """Bins over `total` candidates, of which those added come after `start` others with lower scores.

    With sample weights both are sums of weights, as floats, and bins have equal weight.
    """

    def __init__(self, total: float, *, start: float = 0, bins: int = BINS) -> None:
        if isinstance(total, float):
            self._ends = np.append(total * np.arange(1, bins) / bins, np.inf)
        else:
            size, larger = divmod(total, bins)
            self._ends = np.cumsum([size + (place < larger) for place in range(bins)])
        self._position = start
        self._held: Scores | None = None  # the last score: more candidates may have it
        # per bin: candidates, sum of scores, mean label, squared deviations of labels, lowest and highest score
        self._sums = np.zeros((bins, 6))
        self._sums[:, 4], self._sums[:, 5] = np.inf, -np.inf

    def add(self, score_N: np.ndarray, label_N: np.ndarray, weight_N: np.ndarray | None = None) -> None:
        """Candidates in order of score."""
        if not len(score_N):
            return
        scores = distinct(score_N, label_N, weight_N)
        if self._held is not None:
            scores = _appended(self._held, scores)
        self._settle(scores.of(slice(None, -1)))
        self._held = scores.of(slice(-1, None))

    def sums(self) -> np.ndarray:
        """What `figures` are made of [bins, 6]; of several ranks they are merged."""
        if self._held is not None:
            self._settle(self._held)
            self._held = None
        return self._sums

    def _settle(self, scores: Scores) -> None:
        """Share complete scores out over the bins."""
        if not len(scores.score):
            return
        first = self._position + np.cumsum(scores.count) - scores.count
        end = self._position + scores.count.sum().item()
        inner = self._ends[(self._ends > self._position) & (self._ends < end)]
        begin = np.unique(np.concatenate([first, inner]))
        share = np.diff(begin, append=end)
        of_score = np.searchsorted(first, begin, "right") - 1
        of_bin = np.searchsorted(self._ends, begin, "right")
        bins = len(self._ends)
        weight = np.bincount(of_bin, share, bins)
        filled = np.where(weight > 0, weight, 1)
        mean = np.bincount(of_bin, share * scores.mean[of_score], bins) / filled
        apart = scores.mean[of_score] - mean[of_bin]
        squares = share * (scores.squares / scores.count)[of_score] + share * apart**2
        added = np.empty_like(self._sums)
        added[:, 0], added[:, 1] = weight, np.bincount(of_bin, share * scores.score[of_score], bins)
        added[:, 2], added[:, 3] = mean, np.bincount(of_bin, squares, bins)
        added[:, 4], added[:, 5] = np.inf, -np.inf
        np.minimum.at(added[:, 4], of_bin, scores.score[of_score])
        np.maximum.at(added[:, 5], of_bin, scores.score[of_score])
        self._sums = merged([self._sums, added])
        self._position = end


def merged(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The bins of candidates that several parts share [bins, 6].

    Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
    """
    count, sums, mean, squares, low, high = np.moveaxis(np.stack(parts), 2, 0)
    whole = np.where(count.sum(0) > 0, count.sum(0), 1)
    overall = (count * mean).sum(0) / whole
    squares = (squares + count * (mean - overall) ** 2).sum(0)
    return np.stack([count.sum(0), sums.sum(0), overall, squares, low.min(0), high.max(0)], 1)


def figures(sums: np.ndarray, *, errors: bool) -> list[dict[str, float]]:
    """The bins that hold candidates, as report.json has them; `errors` adds the standard error of each mean label."""
    rows = []
    for count, total, mean, squares, low, high in sums[sums[:, 0] > 0].tolist():
        of_bin = {"low": low, "high": high, "mean_p": total / count, "mean_y": mean, "count": round(count)}
        rows.append({**of_bin, "error_y": squares**0.5 / count} if errors else of_bin)
    return rows


def reliability(score_N: np.ndarray, label_N: np.ndarray, *, bins: int = BINS, errors: bool) -> list[dict[str, float]]:
    """The bins of candidates in any order that fit in memory."""
    order = np.argsort(score_N, kind="stable")
    binned = ReliabilityBins(len(score_N), bins=bins)
    binned.add(score_N[order], label_N[order])
    return figures(binned.sums(), errors=errors)


def distinct(score_N: np.ndarray, label_N: np.ndarray, weight_N: np.ndarray | None = None) -> Scores:
    """Every score once, of candidates in order of score; with weights, above 0, `count` is their sum."""
    first = np.flatnonzero(np.r_[True, score_N[1:] != score_N[:-1]])
    count = np.diff(first, append=len(score_N))
    label = label_N.astype(np.float64)
    if weight_N is not None:
        total = np.add.reduceat(weight_N, first)
        mean = np.add.reduceat(weight_N * label, first) / total
        squares = np.add.reduceat(weight_N * (label - np.repeat(mean, count)) ** 2, first)
        return Scores(score_N[first].astype(np.float64), total, mean, squares)
    mean = np.add.reduceat(label, first) / count
    squares = np.add.reduceat((label - np.repeat(mean, count)) ** 2, first)
    return Scores(score_N[first].astype(np.float64), count, mean, squares)


def _appended(held: Scores, more: Scores) -> Scores:
    """One score, then others that are not lower; where the first of them is the same, it becomes one."""
    both = Scores(*(np.concatenate([getattr(held, name), getattr(more, name)]) for name in Scores.__annotations__))
    if held.score[0] != more.score[0]:
        return both
    count = both.count[:2].sum()
    mean = (both.count[:2] * both.mean[:2]).sum() / count
    squares = (both.squares[:2] + both.count[:2] * (both.mean[:2] - mean) ** 2).sum()
    first = np.array([count]), np.array([mean]), np.array([squares])
    rest = both.of(slice(2, None))
    return Scores(
        more.score,
        np.concatenate([first[0], rest.count]),
        np.concatenate([first[1], rest.mean]),
        np.concatenate([first[2], rest.squares]),
    )
