"""Counters of all processes of a server in one piece of memory, allocated as a whole before any process starts.

Row r of [ROWS, columns] float64 belongs to one worker at a time, so a counter is one addition without a lock; a scrape
of any process adds up the rows. The row of a worker that died is carried on by its successor: counters never go down.
Nothing lies on a disk, so no full disk and no leftover file can end a worker.
"""

from __future__ import annotations

import mmap
import os
from multiprocessing.reduction import DupFd
from typing import Any, cast

import numpy as np

ROWS = 256
_FLOAT = 8


class SharedCounters:
    """Float64 cells [ROWS, columns], shared with the processes that are spawned with this object as an argument."""

    def __init__(self, columns: int) -> None:
        """All cells are 0. Raises OSError when there is no memory for them."""
        self.columns = columns
        self._file = os.memfd_create("multigate-counters", os.MFD_CLOEXEC)
        os.posix_fallocate(self._file, 0, ROWS * columns * _FLOAT)
        self._map()

    def row(self, index: int) -> memoryview[float]:
        """The cells of a row, to read and to write."""
        return self._cells[index * self.columns : (index + 1) * self.columns]

    def totals(self, rows: range) -> list[float]:
        """The sum of every column over some rows that follow each other, [columns]."""
        table = np.frombuffer(self._memory, np.float64).reshape(ROWS, self.columns)
        return table[rows.start : rows.stop].sum(axis=0).tolist()

    def _map(self) -> None:
        self._memory = mmap.mmap(self._file, ROWS * self.columns * _FLOAT)
        self._cells: memoryview[float] = cast("memoryview[float]", memoryview(self._memory).cast("d"))

    def __getstate__(self) -> dict[str, Any]:
        return {"columns": self.columns, "file": DupFd(self._file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.columns = state["columns"]
        self._file = state["file"].detach()
        self._map()
