"""Requests of stored blocks in the order they are trained in, and which rank owns which of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class RequestOrder:
    """R requests of blocks, in the order they are trained in; all arrays are [R].

    `row` counts the rows of all blocks, one block after the other; `number` the requests of an epoch as they are
    stored, which is what dropout is drawn by; `place` says where in its pool a request is stored, from 0 to 1; `count`
    is its number of candidates.
    """

    blocks: Sequence[pa.RecordBatch]
    row: np.ndarray
    number: np.ndarray
    place: np.ndarray
    count: np.ndarray

    def __len__(self) -> int:
        """Number of requests R."""
        return len(self.row)

    def span(self, start: int, stop: int) -> RequestOrder:
        """Those from one in the order to before another."""
        return self.at(np.arange(start, stop))

    def at(self, index: np.ndarray) -> RequestOrder:
        """Some of them, in the order given."""
        arrays = (self.row, self.number, self.place, self.count)
        return RequestOrder(self.blocks, *(values[index] for values in arrays))

    def and_then(self, others: RequestOrder) -> RequestOrder:
        """These, and others after them."""
        rows = sum(map(len, self.blocks))
        return RequestOrder(
            [*self.blocks, *others.blocks],
            np.concatenate([self.row, rows + others.row]),
            np.concatenate([self.number, others.number]),
            np.concatenate([self.place, others.place]),
            np.concatenate([self.count, others.count]),
        )

    def copied(self) -> RequestOrder:
        """The same in blocks of their own, so that those they are from can be let go."""
        row = np.empty_like(self.row)
        row[np.argsort(self.row)] = np.arange(len(self))
        return RequestOrder(list(self.stored()), row, self.number, self.place, self.count)

    def stored(self) -> Iterator[pa.RecordBatch]:
        """Their rows in the order they are stored in, a block at a time; nothing else is read."""
        rows, start = np.sort(self.row), 0
        for block in self.blocks:
            first, stop = np.searchsorted(rows, [start, start + len(block)])
            if first < stop:
                yield rows_of(block, rows[first:stop] - start)
            start += len(block)

    def owners(self, ranks: int) -> np.ndarray:
        """The rank that owns each of them [R], as one batch: equally many candidates each, to half a request.

        By place, not by order: a rank reads a range of every pool, and at its borders what evens batches out.
        """
        by_place = np.argsort(self.place, kind="stable")
        count = self.count[by_place]
        middle = np.cumsum(count) - count / 2  # it is the rank's in whose share the middle of a request lies
        owner = np.empty(len(self), np.int64)
        owner[by_place] = np.minimum(middle * ranks // max(1, count.sum()), ranks - 1)
        return owner


def of_pool(blocks: Sequence[pa.RecordBatch], order: np.ndarray, *, before: int) -> RequestOrder:
    """A pool's requests in an `order` of their rows; `before` it are so many requests of the epoch."""
    count = np.concatenate([candidates_of(block) for block in blocks])
    return RequestOrder(blocks, order, before + order, order / max(1, len(order)), count[order])


def candidates_of(rows: pa.RecordBatch) -> np.ndarray:
    """How many candidates each request has [B]; nothing else of a block is read."""
    return np.diff(rows.column("candidates").offsets.to_numpy())


def rows_of(block: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
    """Some rows of a block, by rising numbers; not copied where they are adjacent."""
    if not len(rows):
        return block.slice(0, 0)
    if rows[-1] - rows[0] + 1 == len(rows):
        return block.slice(int(rows[0]), len(rows))
    return block.take(pa.array(rows))
