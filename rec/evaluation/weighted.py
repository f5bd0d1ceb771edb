"""Metrics of one output of a task with sample weights: exact, over any number of candidates, in bounded memory.

A candidate of weight 2 counts as two of weight 1, one of weight 0 not at all:

    log loss = sum(w l) / sum(w)     base rate = sum(w y) / sum(w)     calibration = sum(w p) / sum(w y)
    AUC      = sum over positives i and negatives j of w_i w_j [p_i > p_j] / (sum w_i sum w_j)      a tie counts half

GAUC is that of each group, averaged by the groups' sums of weights, or evenly. Reliability has bins of equal weight.
`candidates` and `positives` are numbers of candidates whose weight is above 0. A row is a score and a label as in
rec/evaluation/passes.py, then the bits of the weight; where groups are spread over the data, the group before them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from rec.data import sketch
from rec.evaluation import classification, passes, reliability
from rec.evaluation.accumulator import ROW
from rec.evaluation.external_sort import Spool
from rec.evaluation.passes import Rows
from rec.evaluation.ranks import Alone, Ranks, by_group

Chunk = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # group, score, weight of positives, of negatives [n]


class WeightedAccumulator:
    """The candidates of one output of an event with sample weights; as `accumulator.Accumulator`."""

    def __init__(self, *, weight: str, whole_groups: bool, memory: int = 64 << 20, sort_memory: int = 64 << 20) -> None:
        self._weight, self._whole_groups = weight, whole_groups
        self._most = max(sort_memory // ROW, 1)
        self._sums = np.zeros(6)  # of weights, of those of positives, predictions and losses; candidates, positives
        self._groups = np.zeros(4)
        self._rows = Spool(2 if whole_groups else 3, memory=memory)

    def add(self, score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, weight_N: np.ndarray) -> None:
        """Candidates with known labels, the int64 keys of their groups, and their weights, 0 or more.

        DataError where a score is not finite.
        """
        passes.refuse_infinite(score_N)
        some = weight_N > 0
        score, label, group, weight = score_N[some], label_N[some], group_N[some], weight_N[some].astype(np.float64)
        self._sums += event_sums(score, label, weight)
        rows = [passes.packed(score, label), weight.view(np.uint64)]
        if self._whole_groups:
            self._groups += sum_groups(weighted_pairs([ordered(score, label, group, weight)]), self._weight)
        else:
            rows.insert(0, group.astype(np.int64).view(np.uint64))
        self._rows.add(np.stack(rows, 1))

    def merge(self, other: WeightedAccumulator) -> None:
        """Add the candidates of an accumulator of the same output; groups that come whole are in one of both."""
        self._sums += other._sums
        self._groups += other._groups
        for block in other._rows.blocks(self._most):
            self._rows.add(block)

    def summary(self, ranks: Ranks | None = None) -> dict[str, object]:
        """Every metric, named as without weights, and `sample_weight`, their sum; all ranks call it at once."""
        rows = Rows(self._rows, ranks or Alone(), self._most)
        sums = rows.total(self._sums)
        groups = rows.total(self._groups if self._whole_groups else self._spread(rows))
        area, bins = self._by_score(rows, sums)
        figures = classification.figures(sums[:4], area, classification.grouped(groups), bins)
        counts = {"candidates": int(sums[4]), "positives": int(sums[5])}
        return {**figures, **counts, "sample_weight": float(sums[0])}

    def _spread(self, rows: Rows) -> np.ndarray:
        runs = rows.sorted(rows.blocks, by_group(rows.ranks, 0), 3)
        return sum_groups(weighted_pairs(_unpacked(chunk) for chunk in runs.chunks()), self._weight)

    def _by_score(self, rows: Rows, sums: np.ndarray) -> tuple[float | None, list[dict[str, float]]]:
        """The AUC, and the bins of reliability."""
        plain = lambda: (block[:, -2:] for block in rows.blocks())  # noqa: E731
        runs = rows.sorted(plain, passes.owner_by_range(rows.ranks, plain), 2)
        own = np.zeros(3)
        chunks = (_unpacked(chunk) for chunk in runs.chunks())
        for groups in weighted_pairs(chunks):
            own += groups[:, :3].sum(0)
        of_ranks = np.stack(rows.ranks.gathered(own))
        concordant, positive, negative = of_ranks.T
        below = np.cumsum(negative) - negative  # ranks have rising ranges of scores
        pairs = positive.sum() * negative.sum()
        area = float((concordant + positive * below).sum() / pairs) if pairs > 0 else None
        start = float(of_ranks[: rows.ranks.rank, 1:].sum())
        bins = reliability.ReliabilityBins(float(sums[0]), start=start)
        for _, score, positives, negatives in map(_unpacked, runs.chunks()):
            bins.add(score, (positives > 0).astype(np.float64), positives + negatives)
        whole = reliability.merged(rows.ranks.gathered(bins.sums()))
        whole[:, :2] *= sums[4] / sums[0] if sums[0] > 0 else 1.0  # counts of candidates of mean weight
        return area, reliability.figures(whole, errors=False)


def event_sums(score_N: np.ndarray, label_N: np.ndarray, weight_N: np.ndarray) -> np.ndarray:
    """What the means of an event are made of [6]: sums of weights, and the numbers of candidates and positives."""
    yes = label_N == 1
    loss_N = classification.losses(score_N, label_N)
    weighted = [weight_N.sum(), weight_N[yes].sum(), (weight_N * score_N).sum(), (weight_N * loss_N).sum()]
    return np.array([*weighted, len(label_N), yes.sum()], np.float64)


def ordered(score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, weight_N: np.ndarray) -> Chunk:
    """Candidates in order of group and score."""
    order = np.lexsort((score_N, group_N))
    yes, weight = label_N[order] == 1, weight_N[order]
    return group_N[order], score_N[order], np.where(yes, weight, 0.0), np.where(yes, 0.0, weight)


def weighted_pairs(chunks: Iterable[Chunk]) -> Iterator[np.ndarray]:
    """Per group [G, 4]: concordant pairs by weight, weight of positives, of negatives, of both; chunks are in order.

    Of a group that lies in several chunks what is known so far is held: its sums, and its last score.
    """
    held: Chunk | None = None
    open_group, before = None, np.zeros(3)
    for chunk in _with_end(chunks):
        if chunk is None and held is None:
            return
        parts = [part for part in (held, chunk) if part is not None]
        group, score, yes, no = _runs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        if chunk is not None:  # the last score may go on
            held = group[-1:], score[-1:], yes[-1:], no[-1:]
            group, yes, no = group[:-1], yes[:-1], no[:-1]
        if len(group):
            first = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
            below = np.cumsum(no) - no
            below -= np.repeat(below[first], np.diff(first, append=len(group)))
            goes_on = open_group is not None and group[0] == open_group
            if goes_on:
                below[: first[1] if len(first) > 1 else None] += before[2]
            sums = np.add.reduceat(np.stack([yes * (below + no / 2), yes, no], 1), first)
            if goes_on:
                sums[0] += before
            elif open_group is not None:
                sums = np.concatenate([before[None], sums])
            yield _with_both(sums[:-1])
            open_group, before = group[-1], sums[-1]
    yield _with_both(before[None])


def sum_groups(groups: Iterable[np.ndarray], weight: str) -> np.ndarray:
    """What a mean over groups is made of [4], as `classification.group_sums`."""
    total = np.zeros(4)
    for concordant, yes, no, both in (part.T for part in groups):
        pairs = yes * no
        known = pairs > 0
        weight_G = np.where(known, both if weight == "candidates" else 1.0, 0.0)
        share = np.divide(concordant, pairs, out=np.zeros_like(pairs), where=known)
        total += len(pairs), known.sum(), weight_G.sum(), (weight_G * share).sum()
    return total


def _with_end(chunks: Iterable[Chunk]) -> Iterator[Chunk | None]:
    yield from (chunk for chunk in chunks if len(chunk[0]))
    yield None


def _with_both(sums: np.ndarray) -> np.ndarray:
    return np.concatenate([sums, sums[:, 1:2] + sums[:, 2:3]], 1)


def _runs(group: np.ndarray, score: np.ndarray, yes: np.ndarray, no: np.ndarray) -> Chunk:
    """Every score of a group once, of rows in order of group and score."""
    first = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (score[1:] != score[:-1])])
    return group[first], score[first], np.add.reduceat(yes, first), np.add.reduceat(no, first)


def _unpacked(rows: np.ndarray) -> Chunk:
    """Group, score, and weights of positives and negatives of rows [n, 2] or [n, 3]."""
    score, label = passes.unpacked(rows[:, -2])
    weight, yes = rows[:, -1].copy().view(np.float64), sketch.numbers(label) == 1
    group = rows[:, 0] if rows.shape[1] == 3 else np.zeros(len(rows), np.uint64)
    return group, sketch.numbers(score), np.where(yes, weight, 0.0), np.where(yes, 0.0, weight)
