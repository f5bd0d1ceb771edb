"""Pairs of rows that do not fit in memory, in two passes over them in order (rec/evaluation/external_sort.py).

    rows by label    labels are cut into blocks that fit; pairs inside a block are counted    -> within
    rows by score    pairs between blocks are counted: only the block of each row matters     -> across

Each holds one chunk of rows and, of the group that is not complete, the rows of each block in numbers. With labels 0
and 1 there are two blocks without a pair inside, and the second pass is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rec.evaluation.pairs import Pairs, choose_two, counted, rising, run_pairs


@dataclass(frozen=True)
class BlockPairs:
    """Pairs between blocks, per group: its key [G], twice the concordant pairs [G], the rows of each block [G, T]."""

    group: np.ndarray
    twice: np.ndarray
    count: np.ndarray

    def pairs(self) -> Pairs:
        """The same as pairs: rows of different blocks have different labels."""
        rows = self.count.sum(1)
        return Pairs(self.group, self.twice, choose_two(rows) - choose_two(self.count).sum(1), rows)


def within(chunks: Iterable[tuple[np.ndarray, ...]], cuts: list[tuple[int, int]]) -> Iterator[Pairs]:
    """The pairs inside blocks, of chunks (group, label, score) [n] each in order of group, then of label.

    The rows with the last label of a chunk are a block of their own, however many follow: there is no pair in it, and
    none of them is held. `cuts` gains (group, label) of each such block before the pairs in front of it are given. A
    group that `cuts` names goes on in other blocks; any other is complete.
    """
    for group, label, score in chunks:
        begin = int(np.count_nonzero(_equal(group, label, cuts[-1]))) if cuts else 0
        if begin == len(group):
            continue
        cuts.append((int(group[-1]), int(label[-1])))
        block = slice(begin, len(group) - int(np.count_nonzero(_equal(group, label, cuts[-1]))))
        yield counted(score[block], label[block], group[block])


def upper_labels(cuts: Iterable[tuple[int, int]]) -> dict[int, np.ndarray]:
    """Of every group in `cuts`: the largest label of each of its blocks but the last [T - 1] int64, ascending.

    >>> upper_labels([(7, 20), (7, 50)])
    {7: array([19, 20, 49, 50])}
    """
    edges: dict[int, list[int]] = {}
    for group, label in cuts:
        edges.setdefault(group, []).extend((label - 1, label))
    return {group: np.array(sorted(labels), np.int64) for group, labels in edges.items()}


def across(chunks: Iterable[tuple[np.ndarray, ...]], blocks: int) -> Iterator[BlockPairs]:
    """The pairs between blocks, of chunks (group, score, block) [n] each in order of group, score, and falling block.

    A group is given once, when it is complete; scores may be tied over the end of a chunk.
    """
    going_on: _Group | None = None
    for group, score, block in chunks:
        pairs = _between(group, score, block, blocks)
        if going_on is not None and going_on.key == int(group[0]):
            first = int(np.searchsorted(group, group[0], "right"))
            pairs.twice[0] += going_on.twice + going_on.pairs_with(score[:first], block[:first])
            pairs.count[0] += going_on.below + going_on.tied
        elif going_on is not None:
            yield going_on.complete()
        if len(pairs.group) > 1:
            yield BlockPairs(pairs.group[:-1], pairs.twice[:-1], pairs.count[:-1])
        last = int(np.searchsorted(group, group[-1], "left"))
        going_on = _Group.after(pairs, score[last:], block[last:], going_on)
    if going_on is not None:
        yield going_on.complete()


@dataclass(frozen=True)
class _Group:
    """A group that may go on in the next chunk: what is counted, and its rows below its last score, and tied with it.

    Rows are numbers per block [T].
    """

    key: int
    twice: int
    below: np.ndarray
    tied: np.ndarray
    score: int

    @classmethod
    def after(cls, pairs: BlockPairs, score: np.ndarray, block: np.ndarray, before: _Group | None) -> _Group:
        """The last group of a chunk, whose rows in it have these scores and blocks."""
        key, last = int(pairs.group[-1]), int(score[-1])
        tied = np.bincount(block[np.searchsorted(score, score[-1], "left") :], minlength=pairs.count.shape[1])
        if before is not None and (before.key, before.score) == (key, last):
            tied = tied + before.tied
        return cls(key, int(pairs.twice[-1]), pairs.count[-1] - tied, tied, last)

    def pairs_with(self, score: np.ndarray, block: np.ndarray) -> int:
        """Twice the concordant pairs of the rows so far with later rows of the group."""
        alike = int(np.searchsorted(score, np.asarray(self.score, score.dtype), "right"))
        tied, all_later = (np.bincount(block[:end], minlength=len(self.tied)) for end in (alike, None))
        above = _lower(self.below) @ all_later + _lower(self.tied) @ (all_later - tied)
        return int(2 * above + self.tied.sum() * tied.sum() - self.tied @ tied)

    def complete(self) -> BlockPairs:
        """As a group that no row follows."""
        return BlockPairs(np.array([self.key]), np.array([self.twice]), (self.below + self.tied)[None])


def _between(group: np.ndarray, score: np.ndarray, block: np.ndarray, blocks: int) -> BlockPairs:
    """The pairs between blocks of the groups of one chunk."""
    first = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    of_group = np.zeros(len(group), np.int64)
    of_group[first[1:]] = 1
    of_group = np.cumsum(of_group)
    tied = run_pairs(of_group, score) - run_pairs(of_group, score, block)
    count = np.bincount(of_group * blocks + block, minlength=len(first) * blocks).reshape(-1, blocks)
    return BlockPairs(group[first], 2 * rising(of_group, block) + tied, count)


def _lower(count_T: np.ndarray) -> np.ndarray:
    """Rows in lower blocks than each [T]."""
    return np.cumsum(count_T) - count_T


def _equal(group: np.ndarray, label: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    return (group == np.asarray(key[0], group.dtype)) & (label == np.asarray(key[1], label.dtype))
