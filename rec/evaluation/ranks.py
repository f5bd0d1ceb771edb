"""The processes that share an evaluation: each scores its own requests and then takes over a part of the rows.

What crosses between them is small (sums, bins, counts of blocks) or goes to one rank each (rows, by range of score or
by group): no rank ever holds the rows of all. Over torch.distributed: rec/training/process_group.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np

from rec.data import sketch
from rec.data.sketch import QuantileSketch

Owner = Callable[[np.ndarray], np.ndarray]  # rows [n, columns] uint64 -> the rank that takes each [n]


class Ranks(Protocol):
    """As many processes as `size`, of which this is `rank`. All call the same methods in the same order."""

    size: int
    rank: int

    def gathered(self, values: np.ndarray) -> list[np.ndarray]:
        """The array of every rank, in order of ranks; lengths may differ."""
        ...

    def exchanged(self, blocks: Iterable[np.ndarray], owner: Owner, columns: int) -> Iterator[np.ndarray]:
        """The rows of all ranks that `owner` gives to this one, from rows [n, columns] uint64 in blocks."""
        ...


class Alone:
    """One process."""

    size = 1
    rank = 0

    def gathered(self, values: np.ndarray) -> list[np.ndarray]:
        """Its own."""
        return [values]

    def exchanged(self, blocks: Iterable[np.ndarray], owner: Owner, columns: int) -> Iterator[np.ndarray]:
        """All it has."""
        del owner, columns
        return iter(blocks)


def by_range(ranks: Ranks, blocks: Iterable[np.ndarray], column: int) -> Owner:
    """Ranges of a column's upper 32 bits, rank by rank in their order, of about equally many rows; ties stay together.

    The upper bits are those of a float32 (`rec.data.sketch.keys`).
    """
    whole = sketch.of(np.zeros(0, np.float32))
    for block in blocks:
        whole = sketch.merged(whole, sketch.of(sketch.numbers(upper(block[:, column]))))
    columns = [np.full(len(whole.key), whole.level), whole.key.astype(np.int64), whole.count, whole.rest]
    whole = sketch.of(np.zeros(0, np.float32))
    for part in ranks.gathered(np.stack(columns, 1).astype(np.int64)):
        if len(part):
            of_rank = QuantileSketch(int(part[0, 0]), part[:, 1].astype(np.uint32), part[:, 2], part[:, 3])
            whole = sketch.merged(whole, of_rank)
    boundaries = np.arange(1, ranks.size) * whole.total() / ranks.size
    place = np.minimum(np.searchsorted(np.cumsum(whole.count), boundaries), max(len(whole.key) - 1, 0))
    edges = whole.key[place] if len(whole.key) else np.zeros(0, np.uint32)
    return lambda rows: np.searchsorted(edges, upper(rows[:, column]), "right")


def by_group(ranks: Ranks, column: int) -> Owner:
    """By a hash of a column, so that a rank has all rows of a group.

    Fibonacci hashing: Knuth, The Art of Computer Programming 3, section 6.4.
    """
    return lambda rows: ((rows[:, column] * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) % ranks.size).astype(int)


def upper(packed: np.ndarray) -> np.ndarray:
    """The upper 32 bits [n] uint32."""
    return (packed >> np.uint64(32)).astype(np.uint32)
