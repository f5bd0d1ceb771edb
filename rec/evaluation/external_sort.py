"""Rows that need not fit in memory: kept in order of arrival, and sorted externally, in temporary files.

A row is one or two uint64: a block of rows is an array [n, columns], ordered by its first column, then by its second.
Files are anonymous: they vanish with the process, however it ends. They lie where Python's `tempfile` puts them.

Sorting is by runs: as many rows as memory holds are sorted and written, then all runs are merged, a piece of each at a
time. Knuth, The Art of Computer Programming 3, section 5.4.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_WORD = 8  # bytes of a uint64


class Spool:
    """Rows in order of arrival: in memory up to so many bytes, in a temporary file beyond."""

    def __init__(self, columns: int, *, memory: int) -> None:
        self.rows = 0
        self._columns = columns
        self._file = tempfile.SpooledTemporaryFile(max_size=max(memory, 1))  # noqa: SIM115 - it outlives the call
        weakref.finalize(self, self._file.close)

    def add(self, block: np.ndarray) -> None:
        """Append rows [n, columns] uint64."""
        self._file.seek(self.rows * self._columns * _WORD)
        self._file.write(np.ascontiguousarray(block, np.uint64).tobytes())
        self.rows += len(block)

    def blocks(self, most: int) -> Iterator[np.ndarray]:
        """All rows, at most so many at a time."""
        for start in range(0, self.rows, most):
            self._file.seek(start * self._columns * _WORD)
            data = self._file.read(min(most, self.rows - start) * self._columns * _WORD)
            yield np.frombuffer(data, np.uint64).reshape(-1, self._columns)


@dataclass
class _SortedRun:
    """A run in the file: the rows that are still there, [start, stop), and those in memory before them."""

    start: int
    stop: int
    held: np.ndarray


class SortedRuns:
    """Rows in order: sorted in memory where there are at most `most`, otherwise merged from runs on disk."""

    def __init__(self, columns: int, *, most: int) -> None:
        self.rows = 0
        self._columns, self._most = columns, most
        self._buffer = np.empty((most, columns), np.uint64)  # pages that are never written take no memory
        self._filled = 0
        self._ends: list[int] = []
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it outlives the call
        weakref.finalize(self, self._file.close)

    def add(self, block: np.ndarray) -> None:
        """Add rows [n, columns] uint64 in any order."""
        self.rows += len(block)
        while len(block):
            if self._filled == self._most:
                self._write()
            taken = block[: self._most - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            block = block[len(taken) :]

    def chunks(self) -> Iterator[np.ndarray]:
        """All rows in order, at most `most` at a time; equal rows may lie on both sides of a cut."""
        if not self._ends:
            if self._filled:
                yield _sorted(self._buffer[: self._filled])
            return
        if self._filled:
            self._write()
        self._buffer = np.empty((0, self._columns), np.uint64)
        yield from self._merged()

    def _write(self) -> None:
        self._file.seek(0, 2)
        self._file.write(_sorted(self._buffer[: self._filled]).data)
        self._ends.append((self._ends[-1] if self._ends else 0) + self._filled)
        self._filled = 0

    def _merged(self) -> Iterator[np.ndarray]:
        starts = [0, *self._ends[:-1]]
        share = max(1, self._most // len(starts))
        nothing = np.empty((0, self._columns), np.uint64)
        runs = [_SortedRun(start, stop, nothing) for start, stop in zip(starts, self._ends, strict=True)]
        while runs:
            for run in runs:
                self._fill(run, share)
            # of a run that goes on, nothing that is still in the file comes before the last row that is held
            bound = min((run.held[-1].tolist() for run in runs if run.start < run.stop), default=None)
            cuts = [len(run.held) if bound is None else _rows_up_to(run.held, bound) for run in runs]
            yield _sorted(np.concatenate([run.held[:cut] for run, cut in zip(runs, cuts, strict=True)]))
            for run, cut in zip(runs, cuts, strict=True):
                run.held = run.held[cut:]
            runs = [run for run in runs if len(run.held) or run.start < run.stop]

    def _fill(self, run: _SortedRun, share: int) -> None:
        count = min(share - len(run.held), run.stop - run.start)
        if count > 0:
            self._file.seek(run.start * self._columns * _WORD)
            data = self._file.read(count * self._columns * _WORD)
            run.held = np.concatenate([run.held, np.frombuffer(data, np.uint64).reshape(-1, self._columns)])
            run.start += count


def _sorted(rows: np.ndarray) -> np.ndarray:
    """The rows in order; of one column in place."""
    if rows.shape[1] == 1:
        rows[:, 0].sort()
        return rows
    return rows[np.lexsort(rows.T[::-1])]


def _rows_up_to(rows: np.ndarray, bound: list[int]) -> int:
    """How many of sorted rows are at most the bound."""
    first, last = 0, len(rows)
    for column, key in enumerate(bound):
        values = rows[first:last, column]
        low, high = np.searchsorted(values, np.uint64(key), "left"), np.searchsorted(values, np.uint64(key), "right")
        if column == len(bound) - 1:
            return first + int(high)
        first, last = first + int(low), first + int(high)
    return last
