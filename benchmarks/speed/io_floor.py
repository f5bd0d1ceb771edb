"""The floor under a feature pipeline: polars reads the same input and writes as many bytes, with no work between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import polars as pl

from benchmarks.speed.shop_files import UNREAD
from rec.atomic import whole_folder

BATCH = 100_000  # rows read and written at once


def copy(shop: Path, out: Path, sizes: Sequence[int], *, batch: int = BATCH) -> dict[str, int]:
    """Read the columns that the pipeline reads, and write Arrow files of about `sizes` bytes to `out`.

    Gives how many `rows` were read and `bytes` written.

    Rows are written again where the output is larger than the input, and left out where it is smaller; all are read.
    The files are flushed to the disk when all are written, as the pipeline does.
    """
    for side in ("users", "items"):
        pl.read_parquet(shop / f"{side}.parquet")
    rows = _Rows(shop, batch)
    with whole_folder(out) as folder:
        for number, size in enumerate(sorted(sizes, reverse=True)):
            frames = rows.take(max(1, round(size / rows.bytes_each)))
            pl.concat(frames, rechunk=False).write_ipc(folder / f"{number:05d}.arrow", record_batch_size=batch)
        rows.exhaust()
    return {"rows": rows.read, "bytes": sum(file.stat().st_size for file in out.iterdir())}


class _Rows:
    """The rows of the files, batch after batch as they are read, and when there are no more, the last batch again."""

    def __init__(self, shop: Path, batch: int) -> None:
        rows = pl.scan_parquet(shop / "impressions" / "*.parquet").drop(UNREAD)
        self._batches: Iterator[pl.DataFrame] = rows.collect_batches(chunk_size=batch, maintain_order=False)
        self.read = 0
        self._last = self._left = pl.DataFrame()
        self._next()
        written = BytesIO()
        self._last.write_ipc(written)
        self.bytes_each = written.tell() / len(self._last)

    def take(self, count: int) -> list[pl.DataFrame]:
        """The next `count` rows."""
        taken: list[pl.DataFrame] = []
        while count:
            if self._left.is_empty():
                self._next()
            taken.append(self._left.head(count))
            self._left = self._left.slice(count)
            count -= len(taken[-1])
        return taken

    def exhaust(self) -> None:
        """Read what was not taken."""
        while self._next():
            pass

    def _next(self) -> bool:
        """Whether there was another batch; the last one is there again where there was not."""
        batch = next(self._batches, None)
        self._last = self._left = self._last if batch is None else batch
        self.read += 0 if batch is None else len(batch)
        return batch is not None
