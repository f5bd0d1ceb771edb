"""Metrics of one output of a regression task with sample weights: exact, over any number of candidates.

A candidate of weight 2 counts as two of weight 1, one of weight 0 not at all: means of errors, calibration and the
normalised error are weighted; concordance is that of weighted pairs (rec/evaluation/weighted_pairs.py), of groups too;
bins of reliability have equal weight. The best constant of a quantile is the least label at which so much of the
weight is reached. Rows lie in files where they do not fit in memory; a group that is spread over them is held whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rec.data import sketch
from rec.evaluation import classification, passes, regression, reliability, weighted_pairs
from rec.evaluation.accumulator import ROW
from rec.evaluation.block_pairs import upper_labels
from rec.evaluation.external_sort import SortedRuns, Spool
from rec.evaluation.passes import Rows
from rec.evaluation.ranks import Alone, Ranks, by_group
from rec.spec import Task


class WeightedRegressionAccumulator:
    """The candidates of one output of a regression with sample weights; as `accumulator.Accumulator`."""

    def __init__(
        self,
        task: Task,
        *,
        weight: str,
        whole_groups: bool,
        expected: bool = False,
        memory: int = 64 << 20,
        sort_memory: int = 64 << 20,
    ) -> None:
        self._predict, self._quantile = regression.error_of(task, expected=expected), task.quantile
        self._weight, self._whole_groups = weight, whole_groups
        self._most = max(sort_memory // ROW, 1)
        self._sums = np.zeros(9)
        self._groups = np.zeros(4)
        self._rows = Spool(2 if whole_groups else 3, memory=memory)

    def add(self, score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, weight_N: np.ndarray) -> None:
        """Candidates with known labels, the int64 keys of their groups, and their weights, 0 or more.

        DataError where a score is not finite.
        """
        passes.refuse_infinite(score_N)
        some = weight_N > 0
        score, label, group, weight = score_N[some], label_N[some], group_N[some], weight_N[some].astype(np.float64)
        self._sums = regression.merged([self._sums, self._sums_of(score, label, weight)])
        rows = [passes.packed(score, label), weight.view(np.uint64)]
        if self._whole_groups:
            self._groups += weighted_pairs.counted(score, label, group, weight).sums(weight=self._weight)
        else:
            rows.insert(0, group.astype(np.int64).view(np.uint64))
        self._rows.add(np.stack(rows, 1))

    def merge(self, other: WeightedRegressionAccumulator) -> None:
        """Add the candidates of an accumulator of the same output; groups that come whole are in one of both."""
        self._sums = regression.merged([self._sums, other._sums])
        self._groups += other._groups
        for block in other._rows.blocks(self._most):
            self._rows.add(block)

    def summary(self, ranks: Ranks | None = None) -> dict[str, object]:
        """Every metric, named as without weights, and `sample_weight`, their sum; all ranks call it at once."""
        rows = Rows(self._rows, ranks or Alone(), self._most)
        sums = regression.merged(rows.ranks.gathered(self._sums))
        groups = rows.total(self._groups if self._whole_groups else self._spread(rows))
        by_label = _by_label(rows)
        concordant, pairs, edges = _inside_blocks(rows, by_label)
        more, more_pairs, bins = _by_score(rows, edges, float(sums[0]))
        order = (concordant + more) / (pairs + more_pairs) if pairs + more_pairs > 0 else None
        bins[:, [0, 1, 3]] *= sums[8] / sums[0] if sums[0] > 0 else 1.0  # counts of candidates of mean weight
        least, inside = self._least(rows, by_label), classification.grouped(groups)
        figures = regression.figures(sums, least, order, inside, reliability.figures(bins, errors=True))
        return {**figures, "candidates": int(sums[8]), "sample_weight": float(sums[0])}

    def _sums_of(self, score_N: np.ndarray, label_N: np.ndarray, weight_N: np.ndarray) -> np.ndarray:
        """`regression.regression_sums` of weighted candidates, and their number [9]."""
        if not len(label_N):
            return np.zeros(9)
        error = label_N.astype(np.float64) - score_N
        label, score = regression.scaled(label_N, self._predict), regression.scaled(score_N, self._predict)
        total, short = weight_N.sum(), label - score
        own = _pinball(short, weight_N, self._quantile) if self._predict == "quantile" else weight_N @ short**2
        mean = weight_N @ label / total
        sums = [weight_N @ score_N.astype(np.float64), weight_N @ label_N.astype(np.float64), weight_N @ np.abs(error)]
        spread = weight_N @ (label - mean) ** 2
        return np.array([total, *sums, weight_N @ error**2, own, mean, spread, len(label_N)])

    def _spread(self, rows: Rows) -> np.ndarray:
        """The sums of groups that are spread over the data, each of which is held whole."""
        runs = rows.sorted(rows.blocks, by_group(rows.ranks, 0), 3)
        sums, held = np.zeros(4), np.zeros((0, 3), np.uint64)
        for chunk in runs.chunks():
            block = np.concatenate([held, chunk])
            complete = block[:, 0] != block[-1, 0]
            sums += _of_groups(block[complete]).sums(weight=self._weight)
            held = block[~complete]
        return sums + _of_groups(held).sums(weight=self._weight)

    def _least(self, rows: Rows, by_label: SortedRuns) -> float | None:
        """The error of the best constant where that is a quantile."""
        if self._predict != "quantile":
            return None
        mine = np.array([sum(chunk[:, 1].copy().view(np.float64).sum() for chunk in by_label.chunks())])
        ends = np.cumsum(np.concatenate(rows.ranks.gathered(mine)))
        target_weight = self._quantile * ends[-1] * (1 - 1e-12)
        position, rank, label_bits = 0.0 if not rows.ranks.rank else ends[rows.ranks.rank - 1], rows.ranks.rank, 0
        if rank == np.searchsorted(ends, target_weight):
            for chunk in by_label.chunks():
                reached = position + np.cumsum(chunk[:, 1].copy().view(np.float64))
                if reached[-1] >= target_weight or len(reached) == 0:
                    label_bits = int(passes.unpacked(chunk[:, 0])[0][np.searchsorted(reached, target_weight)])
                    break
                position = reached[-1]
        label = sketch.numbers(rows.total(np.array([label_bits])).astype(np.uint32))
        constant = float(regression.scaled(label, self._predict)[0])
        total = 0.0
        for _, label, weight in map(_unpacked, rows.blocks()):
            short = regression.scaled(sketch.numbers(label), self._predict) - constant
            total += _pinball(short, weight, self._quantile)
        return float(rows.total(np.array([total]))[0])


def _pinball(short_N: np.ndarray, weight_N: np.ndarray, quantile: float) -> float:
    """The weighted sum of pinball losses of what is missing [N]."""
    return float(weight_N @ np.maximum(quantile * short_N, (quantile - 1) * short_N))


def _by_label(rows: Rows) -> SortedRuns:
    """The rows of this rank's range of labels, in order of label."""

    def flipped() -> Iterator[np.ndarray]:
        for block in rows.blocks():
            yield np.concatenate([passes.flipped(block[:, -2:-1]), block[:, -1:]], 1)

    return rows.sorted(flipped, passes.owner_by_range(rows.ranks, flipped), 2)


def _inside_blocks(rows: Rows, runs: SortedRuns) -> tuple[float, float, np.ndarray]:
    """Concordant and all pairs inside blocks of labels, over all ranks, and where blocks end [T - 1]."""
    cuts, counts = list[int](), np.zeros(2)
    chunks = ((label, score, weight) for label, score, weight in map(_unpacked, runs.chunks()))
    for block in weighted_pairs.within(chunks, cuts):
        counts += block.concordant.sum(), block.pairs.sum()
    mine = upper_labels((0, cut) for cut in cuts).get(0, np.zeros(0, np.int64))
    concordant, pairs = rows.total(counts).tolist()
    return concordant, pairs, np.unique(np.concatenate(rows.ranks.gathered(mine)))


def _by_score(rows: Rows, edges: np.ndarray, total: float) -> tuple[float, float, np.ndarray]:
    """Concordant and all pairs between blocks, over all ranks, and the bins of reliability [15, 6]."""

    def plain() -> Iterator[np.ndarray]:
        for block in rows.blocks():
            yield block[:, -2:]

    runs = rows.sorted(plain, passes.owner_by_range(rows.ranks, plain), 2)
    mine = np.array([sum(chunk[:, 1].copy().view(np.float64).sum() for chunk in runs.chunks())])
    start = float(np.concatenate(rows.ranks.gathered(mine))[: rows.ranks.rank].sum())
    bins = reliability.ReliabilityBins(total, start=start)

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for score, label, weight in map(_unpacked, runs.chunks()):
            bins.add(sketch.numbers(score), sketch.numbers(label), weight)
            yield score, np.searchsorted(edges, label), weight

    own, of_blocks = weighted_pairs.across(chunks(), len(edges) + 1)
    over_ranks, pairs = weighted_pairs.between(np.stack(rows.ranks.gathered(of_blocks)))
    concordant = float(rows.total(np.array([own]))[0]) + over_ranks
    return concordant, float(pairs), reliability.merged(rows.ranks.gathered(bins.sums()))


def _of_groups(block: np.ndarray) -> weighted_pairs.WeightedPairs:
    score, label, weight = _unpacked(block)
    return weighted_pairs.counted(score, label, block[:, 0], weight)


def _unpacked(block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The keys of score and label of rows, or of label and score where they are flipped, and the weights [n]."""
    first, second = passes.unpacked(block[:, -2])
    return first, second, block[:, -1].copy().view(np.float64)
