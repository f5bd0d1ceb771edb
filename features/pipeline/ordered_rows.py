"""Rows of a log put in order of a column of whole numbers, in memory or, where they are many, on disk.

    runs.add(rows)             any rows, a batch at a time; each batch is sorted by itself: a run
    runs.between(low, high)    the rows of a range, out of all runs, in order

Rows of one value stand in the order of a second column.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features.sweep import event_queue
from rec.data import arrow_file

_SAMPLE = 256  # every so many rows, the value is kept in memory, to cut ranges of about as many rows by


class OrderedRows:
    """Sorted batches of rows; see the module's docstring."""

    def __init__(self, folder: Path, by: str, then: str, *, held: int) -> None:
        """In memory up to `held` rows, from then on as files of `folder`; in order of `by`, then of `then`."""
        self._folder, self._by, self._then, self._most = folder, by, then, held
        self._held: list[pl.DataFrame] = []
        self._files: list[Path] = []
        self._samples: list[np.ndarray] = []
        self.rows = 0

    def add(self, rows: pl.DataFrame) -> None:
        """More rows."""
        if rows.is_empty():
            return
        rows = in_order(rows, self._by, self._then)
        self._samples.append(rows[self._by].to_physical().to_numpy()[::_SAMPLE])
        self.rows += len(rows)
        self._held.append(rows)
        if self._files or self.rows > self._most:
            for run in self._held:
                self._spill(run)
            self._held = []

    def ranges(self, about: int) -> Iterator[tuple[int, int]]:
        """Ranges [low, high) of values, in order, with about so many rows each; the last has no end."""
        samples = np.sort(np.concatenate(self._samples)) if self._samples else np.zeros(0, np.int64)
        edges = np.unique(samples[:: max(1, about // _SAMPLE)])
        last = np.iinfo(np.int64).max
        for low, high in zip(edges, [*edges[1:], last][: len(edges)], strict=True):
            yield int(low), int(high)

    def between(self, low: int, high: int, *, columns: Collection[str] | None = None) -> pl.DataFrame | None:
        """The rows of a range [low, high), in order; None where there is none."""
        slices = [rows for run in self._held if (rows := self._cut(run, low, high)) is not None]
        for path in self._files:
            table = arrow_file.read(path, what="run of rows")
            value = table[self._by].combine_chunks().cast(pa.int64()).to_numpy()
            first, last = np.searchsorted(value, [low, high])
            if first < last:
                # copied, so that the file need not stay mapped
                slices.append(pl.DataFrame(pl.from_arrow(table.slice(first, last - first).combine_chunks())).rechunk())
        if not slices:
            return None
        if columns is not None:
            slices = [rows.select(columns) for rows in slices]
        return in_order(pl.concat(slices).rechunk(), self._by, self._then)

    def _cut(self, run: pl.DataFrame, low: int, high: int) -> pl.DataFrame | None:
        first, last = np.searchsorted(run[self._by].to_physical().to_numpy(), [low, high])
        return run[int(first) : int(last)] if first < last else None

    def _spill(self, rows: pl.DataFrame) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{len(self._files):05d}.arrow"
        arrow_file.write(path, rows.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks())
        self._files.append(path)


def in_order(rows: pl.DataFrame, by: str, then: str) -> pl.DataFrame:
    """Rows in the order of one column of whole numbers, and where that is equal of another."""
    value, beside = (rows[name].to_physical().to_numpy() for name in (by, then))
    if event_queue.in_order(value, beside):
        return rows
    order = np.argsort(value, kind="stable")
    ties = np.diff(value[order]) == 0
    if np.any(ties & (np.diff(beside[order]) < 0)):
        order = np.lexsort((beside, value))
    return rows[order]
