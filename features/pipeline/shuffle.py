"""Disk shuffle: rows partitioned by hash, read back by ranges of it, so that a log may be larger than memory.

    piece-00003.arrow           batches, the rows of each sorted by place
    piece-00003.places.arrow    batch, place, start, count: where in each batch the rows of a place begin, and how many

A place is a range of user hashes, a bucket of key hashes, or, for anonymous rows, a run of lines of the log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from rec.data import arrow_file

MAPPED = 64  # pieces of files that are mapped at a time: pages of a mapped file count as ours


class ShuffleWriter:
    """Batches of rows into one file, each sorted by place."""

    def __init__(self, sink: pa.NativeFile) -> None:
        """Into an open file; the schema is that of the first batch."""
        self._sink = sink
        self._file: pa.RecordBatchFileWriter | None = None
        self._runs: list[np.ndarray] = []

    def write(self, rows: pl.DataFrame, place: np.ndarray) -> None:
        """Rows, and the place of each [n] int64; rows of one place stay in order."""
        if len(place) > 1 and np.any(place[1:] < place[:-1]):
            order = hashing.grouped(place)
            rows, place = rows[order], place[order]
        table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
        file = self._file = self._file or pa.ipc.new_file(self._sink, table.schema)
        starts = np.flatnonzero(np.diff(place, prepend=-1)) if len(place) else np.zeros(0, np.int64)
        batch = np.full(len(starts), len(self._runs))
        self._runs.append(np.stack([batch, place[starts], starts, np.diff(np.append(starts, len(place)))]))
        file.write_batch(table.combine_chunks().to_batches()[0] if len(rows) else _nothing(table.schema))

    def close(self) -> pa.Table:
        """End the file; where its runs are."""
        if self._file is not None:
            self._file.close()
        runs = np.concatenate(self._runs, axis=1) if self._runs else np.zeros((4, 0), np.int64)
        return pa.table(dict(zip(("batch", "place", "start", "count"), runs, strict=True)))


@contextmanager
def writing(path: Path) -> Iterator[ShuffleWriter]:
    """A shuffle file, complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    with pa.OSFile(str(beside), "wb") as sink:
        writer = ShuffleWriter(sink)
        yield writer
        runs = writer.close()
    arrow_file.write(path.with_suffix(".places.arrow"), runs)
    beside.replace(path)


def counts(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Every place that has rows, ascending [p], and how many rows it has in all [p]."""
    runs = [_runs(path) for path in paths]
    place, index = np.unique(np.concatenate([run["place"].to_numpy() for run in runs]), return_inverse=True)
    total = np.zeros(len(place), np.int64)
    np.add.at(total, index, np.concatenate([run["count"].to_numpy() for run in runs]))
    return place, total


def read(paths: Sequence[Path], low: int, high: int, *, columns: Collection[str] | None = None) -> pl.DataFrame:
    """The rows of places low <= p < high: file by file, batch by batch, each by place; of all columns, or of some."""
    frames: list[pl.DataFrame] = []
    mapped: list[pa.RecordBatch] = []
    for path in paths:
        runs = _runs(path)
        batch, place, start, count = (runs[name].to_numpy() for name in ("batch", "place", "start", "count"))
        inside = (place >= low) & (place < high)
        if path.stat().st_size == 0:
            continue
        with pa.memory_map(str(path)) as source:
            file = pa.ipc.open_file(source)
            for index in np.unique(batch[inside]):
                here = inside & (batch == index)
                first, last = start[here].min(), (start[here] + count[here]).max()
                mapped.append(_some(file.get_batch(int(index)), columns).slice(int(first), int(last - first)))
            if not (frames or mapped):
                mapped.append(_some(_nothing(file.schema), columns))
        if len(mapped) >= MAPPED:
            frames, mapped = [*frames, _copied(mapped)], []
    frames += [_copied(mapped)] if mapped else []
    # rows are picked from one chunk in half the time that many take
    return pl.concat(frames).rechunk() if frames else pl.DataFrame()


def _copied(batches: list[pa.RecordBatch]) -> pl.DataFrame:
    """Batches copied to memory, so that their files need not stay mapped."""
    return pl.DataFrame(pl.from_arrow(pa.Table.from_batches(batches))).rechunk()


def cuts(place: np.ndarray, count: np.ndarray, parts: int) -> np.ndarray:
    """`parts` ranges of places of about equal row counts: their borders [parts + 1], the last beyond every place.

    Fewer ranges when there are fewer places than parts.
    """
    before = np.cumsum(count) - count
    share = before * parts // max(1, int(count.sum()))
    first = np.flatnonzero(np.diff(share, prepend=-1))
    return np.append(place[first], place[-1] + 1) if len(place) else np.array([0, 1])


def _runs(path: Path) -> pa.Table:
    return arrow_file.read(path.with_suffix(".places.arrow"), what="list of places")


def _some(batch: pa.RecordBatch, columns: Collection[str] | None) -> pa.RecordBatch:
    return batch if columns is None else batch.select([name for name in batch.schema.names if name in columns])


def _nothing(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)
