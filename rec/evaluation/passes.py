"""The passes over the rows of one output, in order of score, label or group, that metrics need which are no sums.

A row is a score and a label in one uint64, so that sorting rows sorts scores, and of tied scores the highest label
comes first; where groups are spread over the data, the key of the group stands before it:

    row [n, 1] or [n, 2]      (group,)  score << 32 | ~label        both as `rec.data.sketch.keys`
    flipped                   (group,)  label << 32 | ~score        sorts by label

Rows are shared out over ranks by range of score, by range of label, or by group, so that each counts what is inside its
part, and pairs of rows on different ranks follow from the counts alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rec.data import sketch
from rec.errors import DataError
from rec.evaluation import classification, regression, reliability
from rec.evaluation.block_pairs import BlockPairs, across, upper_labels, within
from rec.evaluation.external_sort import SortedRuns, Spool
from rec.evaluation.pairs import Pairs
from rec.evaluation.ranks import Owner, Ranks, by_group, by_range, upper

_LOWER = np.uint64(0xFFFFFFFF)
_UPPER = np.uint64(32)
_ZERO = int(sketch.keys(np.zeros(1, np.float32))[0])
EVENT_BLOCKS = np.array([_ZERO])  # labels of events: those up to 0, and those above


@dataclass(frozen=True)
class Rows:
    """The rows of one output on this rank, the other ranks, and how many rows are held at once when they are sorted."""

    spool: Spool
    ranks: Ranks
    most: int

    def blocks(self) -> Iterator[np.ndarray]:
        """As they came."""
        return self.spool.blocks(self.most)

    def sorted(self, blocks: Callable[[], Iterable[np.ndarray]], owner: Owner, columns: int) -> SortedRuns:
        """The rows of all ranks that are this one's by `owner`, in order."""
        runs = SortedRuns(columns, most=self.most)
        for block in self.ranks.exchanged(blocks(), owner, columns):
            runs.add(block)
        return runs

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sums over ranks."""
        return np.sum(self.ranks.gathered(values[None]), axis=0)[0]


@dataclass(frozen=True)
class Labels:
    """What the pass by label leaves: twice the concordant pairs inside blocks, the pairs, and where blocks end [T - 1].

    `at` are the labels at the places that were asked for, in order of label.
    """

    twice: int
    pairs: int
    edges: np.ndarray
    at: np.ndarray


def refuse_infinite(score_N: np.ndarray) -> None:
    """Raise DataError where a score is NaN or infinite."""
    wrong = int(np.count_nonzero(~np.isfinite(score_N)))
    if wrong:
        raise DataError(f"{wrong:,} of {len(score_N):,} scores are NaN or infinite; there are no metrics of them")


def packed(score_N: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """Scores and labels as rows [N] uint64; both are taken as float32."""
    score, label = (sketch.keys(values.astype(np.float32)).astype(np.uint64) for values in (score_N, label_N))
    return score << _UPPER | (_LOWER - label)


def by_score(rows: Rows, edges: np.ndarray) -> tuple[Pairs, np.ndarray]:
    """The pairs between blocks of labels over all ranks, and the bins of reliability [15, 6]."""
    plain = lambda: (block[:, -1:] for block in rows.blocks())  # noqa: E731
    runs = rows.sorted(plain, owner_by_range(rows.ranks, plain), 1)
    start, total = _place(rows.ranks, runs)
    bins = reliability.ReliabilityBins(total, start=start)

    def chunks() -> Iterator[tuple[np.ndarray, ...]]:
        for chunk in runs.chunks():
            score, label = unpacked(chunk[:, 0])
            bins.add(sketch.numbers(score), sketch.numbers(label))
            yield np.zeros(len(chunk), np.int8), score, np.searchsorted(edges, label)

    counts_of = list(across(chunks(), len(edges) + 1))
    counts = counts_of[0].count[0] if counts_of else np.zeros(len(edges) + 1, np.int64)
    own = np.array([[counts_of[0].twice[0] if counts_of else 0, *counts]])
    pairs = _over_ranges(np.concatenate(rows.ranks.gathered(own)))
    return pairs, reliability.merged(rows.ranks.gathered(bins.sums()))


def by_label(rows: Rows, places: np.ndarray) -> Labels:
    """Labels cut into blocks that can be counted one at a time, and the labels at some places of their order."""
    by_labels = lambda: (flipped(block[:, -1:]) for block in rows.blocks())  # noqa: E731
    runs = rows.sorted(by_labels, owner_by_range(rows.ranks, by_labels), 1)
    position, _ = _place(rows.ranks, runs)
    at = np.zeros(len(places), np.int64)

    def chunks() -> Iterator[tuple[np.ndarray, ...]]:
        nonlocal position
        for chunk in runs.chunks():
            label, score = unpacked(chunk[:, 0])
            here = (places >= position) & (places < position + len(chunk))
            at[here] = label[places[here] - position]
            position += len(chunk)
            yield np.zeros(len(chunk), np.int8), label, score

    cuts: list[tuple[int, int]] = []
    counts = np.zeros(2, np.int64)
    for block in within(chunks(), cuts):
        counts += block.twice.sum(), block.pairs.sum()
    edges = np.concatenate(rows.ranks.gathered(upper_labels(cuts).get(0, np.zeros(0, np.int64))))
    twice, pairs = rows.total(counts).tolist()
    return Labels(twice, pairs, np.unique(edges), sketch.numbers(rows.total(at).astype(np.uint32)))


def event_groups(rows: Rows, *, weight: str) -> np.ndarray:
    """`classification.group_sums` of groups that are spread over the data, of this rank's groups."""
    runs = rows.sorted(rows.blocks, by_group(rows.ranks, 0), 2)
    chunks = ((chunk[:, 0], *_scores_and_blocks(chunk[:, 1], EVENT_BLOCKS)) for chunk in runs.chunks())
    return _sums((block.pairs() for block in across(chunks, 2)), weight)


def regression_groups(rows: Rows, *, weight: str) -> np.ndarray:
    """The same of regressions: groups that a chunk holds whole are counted in it, the few others by blocks."""
    by_labels = lambda: map(flipped, rows.blocks())  # noqa: E731
    runs = rows.sorted(by_labels, by_group(rows.ranks, 0), 2)
    cuts: list[tuple[int, int]] = []
    inside: list[Pairs] = []
    sums = np.zeros(4)
    by_label = ((chunk[:, 0], *unpacked(chunk[:, 1])) for chunk in runs.chunks())
    for block in within(by_label, cuts):
        partial = np.isin(block.group, np.array([group for group, _ in cuts[-2:]], np.uint64))
        inside.append(block.of(partial))
        sums += classification.group_sums(block.of(~partial), weight=weight)
    edges = upper_labels(cuts)
    whole = (_with(block.pairs(), inside) for block in across(_cut_groups(rows, runs, edges), _most_blocks(edges)))
    return sums + _sums(whole, weight)


def pinball_of_constant(rows: Rows, constant: float, quantile: float) -> float:
    """The sum over all ranks of the pinball losses of one prediction of log(1 + y)."""
    total = 0.0
    for block in rows.blocks():
        label = sketch.numbers(unpacked(block[:, -1])[1])
        total += regression.pinball(regression.scaled(label, "quantile") - constant, quantile)
    return float(rows.total(np.array([total]))[0])


def owner_by_range(ranks: Ranks, blocks: Callable[[], Iterable[np.ndarray]]) -> Owner:
    """One process keeps everything, and needs no sketch of it."""
    return by_range(ranks, blocks(), 0) if ranks.size > 1 else lambda block: np.zeros(len(block), np.int64)


def _place(ranks: Ranks, runs: SortedRuns) -> tuple[int, int]:
    """How many rows lower ranks have in front of this one's, and all ranks together."""
    counts = np.concatenate(ranks.gathered(np.array([runs.rows])))
    return int(counts[: ranks.rank].sum()), int(counts.sum())


def _over_ranges(parts: np.ndarray) -> Pairs:
    """Pairs over ranks of rising scores [W, 1 + T]: twice the concordant pairs of each, and its rows in each block."""
    twice, count = parts[:, 0], parts[:, 1:]
    below = np.cumsum(count, 0) - count
    between = (np.cumsum(below, 1) - below) * count
    whole = BlockPairs(np.zeros(1, np.int64), twice.sum(keepdims=True) + 2 * between.sum(), count.sum(0)[None])
    return whole.pairs()


def _cut_groups(rows: Rows, runs: SortedRuns, edges: dict[int, np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
    """The rows of the groups in `edges`, in order of group and score, as (group, score, block) [n]."""
    again = SortedRuns(2, most=rows.most)
    names = np.array(list(edges), np.uint64)
    for chunk in runs.chunks():
        again.add(flipped(chunk[np.isin(chunk[:, 0], names)]))
    for chunk in again.chunks():
        score, label = unpacked(chunk[:, 1])
        block = np.zeros(len(chunk), np.int64)
        for group in np.unique(chunk[:, 0]):
            here = chunk[:, 0] == group
            block[here] = np.searchsorted(edges[int(group)], label[here])
        yield chunk[:, 0], score, block


def _most_blocks(edges: dict[int, np.ndarray]) -> int:
    return 1 + max(map(len, edges.values()), default=0)


def _with(between: Pairs, inside: list[Pairs]) -> Pairs:
    """Groups with the pairs inside their blocks added."""
    twice, pairs = between.twice.copy(), between.pairs.copy()
    for block in inside:
        for place, group in enumerate(between.group):
            same = block.group == group
            twice[place] += block.twice[same].sum()
            pairs[place] += block.pairs[same].sum()
    return Pairs(between.group, twice, pairs, between.rows)


def _sums(groups: Iterable[Pairs], weight: str) -> np.ndarray:
    return sum((classification.group_sums(pairs, weight=weight) for pairs in groups), np.zeros(4))


def _scores_and_blocks(row: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    score, label = unpacked(row)
    return score, np.searchsorted(edges, label)


def unpacked(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two keys of rows [n] uint32: score and label, or label and score where they are flipped."""
    return upper(row), (_LOWER - (row & _LOWER)).astype(np.uint32)


def flipped(block: np.ndarray) -> np.ndarray:
    """Rows [n, columns] by label instead of by score, or back."""
    first, second = unpacked(block[:, -1])
    return np.concatenate([block[:, :-1], (second.astype(np.uint64) << _UPPER | (_LOWER - first))[:, None]], 1)
