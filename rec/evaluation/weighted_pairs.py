"""Pairs of candidates with sample weights that scores put in the order of their labels: weighted concordance.

A pair of weights v and w counts v w, as so many pairs of candidates of weight 1; with a tied score half of it. What
does not fit in memory is counted as in rec/evaluation/block_pairs.py: pairs inside blocks of labels in order of label,
pairs between blocks in order of score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

Chunk = tuple[np.ndarray, np.ndarray, np.ndarray]  # label, score, weight, or score, block, weight [n]


@dataclass(frozen=True)
class WeightedPairs:
    """Per group [G]: its key, the weight of concordant pairs, that of all pairs, and the sum of its weights."""

    group: np.ndarray
    concordant: np.ndarray
    pairs: np.ndarray
    weight: np.ndarray

    def sums(self, *, weight: str) -> np.ndarray:
        """What a mean over groups is made of [4], as `classification.group_sums`."""
        known = self.pairs > 0
        share = np.divide(self.concordant, self.pairs, out=np.zeros_like(self.pairs), where=known)
        weight_G = np.where(known, self.weight if weight == "candidates" else 1.0, 0.0)
        return np.array([len(known), known.sum(), weight_G.sum(), (weight_G * share).sum()])


def counted(score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, weight_N: np.ndarray) -> WeightedPairs:
    """The pairs of every group, of rows in any order. O(N log N)."""
    if not len(score_N):
        none = np.zeros(0)
        return WeightedPairs(none.astype(np.int64), none, none, none)
    group_G, group = np.unique(group_N, return_inverse=True)
    _, rank = np.unique(label_N, return_inverse=True)
    order = np.lexsort((-rank, score_N, group))
    groups, scores, ranks, weights = group[order], score_N[order], rank[order], weight_N[order].astype(np.float64)
    tied = np.cumsum(np.r_[True, (groups[1:] != groups[:-1]) | (scores[1:] != scores[:-1])]) - 1
    concordant = _rising(groups, ranks, weights)
    concordant += np.bincount(groups[np.flatnonzero(np.diff(tied, prepend=-1))], _apart(tied, ranks, weights)) / 2
    by_label = np.lexsort((rank, group))
    pairs = _apart(group[by_label], rank[by_label], weight_N[by_label].astype(np.float64))
    return WeightedPairs(group_G, concordant, pairs, np.bincount(group, weight_N))


def within(chunks: Iterable[Chunk], cuts: list[int]) -> Iterator[WeightedPairs]:
    """The pairs inside blocks of labels, of chunks (label, score, weight) in order of label.

    The last label of a chunk is a block of its own, however many rows follow; `cuts` gains it.
    """
    for label, score, weight in chunks:
        begin = int(np.count_nonzero(label == cuts[-1])) if cuts else 0
        if begin == len(label):
            continue
        cuts.append(int(label[-1]))
        block = slice(begin, len(label) - int(np.count_nonzero(label == cuts[-1])))
        yield counted(score[block], label[block], np.zeros(len(score[block]), np.int8), weight[block])


def across(chunks: Iterable[Chunk], blocks: int) -> tuple[float, np.ndarray]:
    """The weight of concordant pairs between blocks, and that of each block [T], of chunks in order of score."""
    below, tied, held = np.zeros(blocks), np.zeros(blocks), None
    concordant = 0.0
    for score, block, weight in chunks:
        concordant += counted(score, block, np.zeros(len(score), np.int8), weight).concordant.sum()
        same = score == held if held is not None else np.zeros(len(score), bool)
        begins, goes_on = (np.bincount(block[rows], weight[rows], blocks) for rows in (same, ~same))
        concordant += (begins + goes_on) @ _lower(below) + goes_on @ _lower(tied)
        concordant += (begins.sum() * tied.sum() - begins @ tied) / 2
        last = score == score[-1]
        if held is not None and score[-1] == held:
            tied = tied + begins
        else:
            below = below + tied + np.bincount(block[~last], weight[~last], blocks)
            tied = np.bincount(block[last], weight[last], blocks)
        held = score[-1]
    return concordant, below + tied


def between(of_parts: np.ndarray) -> tuple[float, float]:
    """Concordant pairs between parts of rising scores, and all pairs between blocks; weights [parts, T]."""
    before = np.cumsum(of_parts, 0) - of_parts
    whole = of_parts.sum(0)
    return float(sum(mine @ _lower(lower) for mine, lower in zip(of_parts, before, strict=True))), whole @ _lower(whole)


def _lower(weight_T: np.ndarray) -> np.ndarray:
    """The weight of all blocks below each [T]."""
    return np.cumsum(weight_T) - weight_T


def _apart(run_N: np.ndarray, code_N: np.ndarray, weight_N: np.ndarray) -> np.ndarray:
    """The weight of pairs with different codes in every run; rows are in order of run, from 0, with codes together."""
    first = np.flatnonzero(np.r_[True, (run_N[1:] != run_N[:-1]) | (code_N[1:] != code_N[:-1])])
    weight, run = np.add.reduceat(weight_N, first), run_N[first]
    begin = np.flatnonzero(np.diff(run, prepend=-1))
    lower = np.cumsum(weight) - weight
    return np.add.reduceat(weight * (lower - lower[begin][run]), begin)


def _rising(group_N: np.ndarray, rank_N: np.ndarray, weight_N: np.ndarray) -> np.ndarray:
    """The weight of ascending pairs per group [G]; rows are sorted by group, numbered from 0 (`pairs.rising`)."""
    group_first = np.flatnonzero(np.diff(group_N, prepend=-1))
    pairs, place = np.zeros(len(group_first)), np.arange(len(rank_N))
    first, run = group_first, group_N
    for bit in range(int(rank_N.max()).bit_length() - 1, -1, -1):
        bit_N = (rank_N >> bit & 1).astype(bool)
        of_zeros = np.where(bit_N, 0.0, weight_N)
        lower = np.cumsum(of_zeros) - of_zeros
        pairs += np.add.reduceat(np.where(bit_N, weight_N * (lower - lower[first][run]), 0.0), group_first)
        if not bit:
            break
        zeros = np.cumsum(~bit_N) - ~bit_N
        before = zeros - zeros[first][run]
        split = first + np.add.reduceat(~bit_N, first, dtype=np.int64)
        into = np.where(bit_N, split[run] + place - first[run] - before, first[run] + before)
        moved = np.empty_like(into)
        moved[into] = place
        rank_N, weight_N = rank_N[moved], weight_N[moved]
        begin = np.zeros(len(rank_N) + 1, bool)
        begin[first] = begin[split] = True
        first = np.flatnonzero(begin[:-1])
        run = np.cumsum(begin[:-1]) - 1
    return pairs
