"""Pairs of candidates that scores put in the order of their labels: what AUC and concordance are shares of.

A pair counts where its labels differ: 2 where the higher label has the higher score, 1 where scores are tied. AUC is
the case of labels 0 and 1. Counts are integers, exact, whatever the order of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MANY = 1 << 12  # distinct labels


@dataclass(frozen=True)
class Pairs:
    """Per group [G]: its key, twice the concordant pairs (a tie is one), the pairs, the rows; int64 but for the key."""

    group: np.ndarray
    twice: np.ndarray
    pairs: np.ndarray
    rows: np.ndarray

    def share(self) -> np.ndarray:
        """Concordant pairs over pairs [G]; NaN where there is no pair."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.pairs > 0, self.twice / 2 / self.pairs, np.nan)

    def of(self, chosen_G: np.ndarray) -> Pairs:
        """Some of the groups, by a mask or by places."""
        return Pairs(self.group[chosen_G], self.twice[chosen_G], self.pairs[chosen_G], self.rows[chosen_G])


def counted(score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray) -> Pairs:
    """The pairs of every group, of rows in any order. O(N log N)."""
    if not len(score_N):
        none = np.zeros(0, np.int64)
        return Pairs(none, none, none, none)
    group_G, group = np.unique(group_N, return_inverse=True)
    _, label = np.unique(label_N, return_inverse=True)
    along, rank = score_N, label
    if label.max() >= _MANY:
        # concordance is the same with scores and labels exchanged; fewer distinct ranks are fewer bits to count by
        _, score = np.unique(score_N, return_inverse=True)
        along, rank = (score, label) if label.max() <= score.max() else (label, score)
    order = np.lexsort((-rank, along, group))
    in_order = group[order], along[order], rank[order]
    tied_along, tied_rank, tied_both = run_pairs(*in_order[:2]), _tied(group, rank), run_pairs(*in_order)
    tied_score, tied_label = (tied_along, tied_rank) if rank is label else (tied_rank, tied_along)
    twice = 2 * rising(in_order[0], in_order[2]) + tied_score - tied_both
    rows = np.bincount(group)
    return Pairs(group_G, twice, choose_two(rows) - tied_label, rows)


def choose_two(count: np.ndarray) -> np.ndarray:
    """Pairs among so many."""
    return count * (count - 1) // 2


def rising(group_N: np.ndarray, rank_N: np.ndarray) -> np.ndarray:
    """Ascending pairs per group [G]: i < j with rank[i] < rank[j]; rows are sorted by group, numbered from 0.

    A stable radix sort from the highest bit: rows that agree in all bits so far form a run in their original order,
    and a row whose next bit is 1 makes a pair with every row before it in its run whose next bit is 0.
    """
    group_first = np.flatnonzero(np.diff(group_N, prepend=-1))
    pairs, place = np.zeros(len(group_first), np.int64), np.arange(len(rank_N))
    first, run = group_first, group_N  # first row of every run, and the run of every row
    for bit in range(int(rank_N.max()).bit_length() - 1, -1, -1):
        bit_N = (rank_N >> bit & 1).astype(bool)
        zeros = np.cumsum(~bit_N)
        before = zeros - ~bit_N - (zeros - ~bit_N)[first][run]  # zeros before the row in its run
        pairs += np.add.reduceat(np.where(bit_N, before, 0), group_first)
        if not bit:
            break
        # every run is split stably: its zeros, then its ones
        split = first + np.add.reduceat(~bit_N, first, dtype=np.int64)
        ranked = np.empty_like(rank_N)
        ranked[np.where(bit_N, split[run] + place - first[run] - before, first[run] + before)] = rank_N
        rank_N = ranked
        begin = np.zeros(len(rank_N) + 1, bool)
        begin[first] = begin[split] = True
        first = np.flatnonzero(begin[:-1])
        run = np.cumsum(begin[:-1]) - 1
    return pairs


def run_pairs(group: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Pairs per group that agree in every key [G] int64; rows are in order of group, numbered from 0, and keys."""
    new = np.zeros(len(group), bool)
    new[0] = True
    for key in (group, *keys):
        new[1:] |= key[1:] != key[:-1]
    first = np.flatnonzero(new)
    pairs = np.zeros(int(group[-1]) + 1, np.int64)
    np.add.at(pairs, group[first], choose_two(np.diff(first, append=len(group))))
    return pairs


def _tied(group_N: np.ndarray, code_N: np.ndarray) -> np.ndarray:
    """The same of one key, numbered from 0, of rows in any order."""
    groups, codes = int(group_N.max()) + 1, int(code_N.max()) + 1
    both = group_N * codes + code_N
    if groups * codes <= 4 * len(both):
        return choose_two(np.bincount(both, minlength=groups * codes)).reshape(groups, codes).sum(1)
    both.sort()
    return run_pairs(both // codes, both)
