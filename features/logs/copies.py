"""Local copies of tables that are no files: a build reads a log several times, so it is fetched once, as it was then.

A copy is Parquet, written from a stream, in a temporary folder that ends with the process (TMPDIR says on which disk).
Its rows are in the order in which the database gave them.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from features.logs import databases
from features.logs.logs import first_line
from rec.errors import DataError, SpecError

_GROUP = 100_000  # rows of a row group, whatever the batches of the stream: equal rows are equal bytes
_COPIES: dict[tuple[str, Path, str], Path] = {}
_NAMES: dict[Path, str] = {}


def copy_of(address: str, base: Path, where: str) -> Path:
    """The copy of a table, the same one until its file changes or `forget`; raises as `databases.batches` does."""
    table = databases.table_of(address, where)
    key = (address, base.absolute(), _state(table.file(base)))
    if key not in _COPIES:
        path = _folder() / f"{len(_NAMES)}.parquet"
        try:
            with databases.batches(table, base, where) as reader:
                _write(reader, path, f"{where}: {address}")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        _COPIES[key], _NAMES[path] = path, address
    return _COPIES[key]


def name_of(path: Path) -> str | None:
    """The address that a file is a copy of; None for a file of somebody's own."""
    return _NAMES.get(path)


def forget() -> None:
    """Fetch every table anew from now on; copies that are in use stay until the process ends."""
    _COPIES.clear()


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="multigate-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _state(file: Path | None) -> str:
    """Sizes and times of a database's file and of its write-ahead log."""
    logs = [] if file is None else [file, file.with_name(f"{file.name}.wal"), file.with_name(f"{file.name}-wal")]
    return " ".join(f"{log.stat().st_size} {log.stat().st_mtime_ns}" for log in logs if log.is_file())


def _write(reader: pa.RecordBatchReader, path: Path, where: str) -> None:
    """The rows of a stream, in row groups of one size."""
    names = reader.schema.names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"{where}: two columns are called {twice!r}; name them with AS")
    try:
        with pq.ParquetWriter(path, reader.schema) as file:
            for rows in _groups(reader):
                file.write_table(rows)
    except pa.ArrowNotImplementedError as error:
        text = "a column has a type that no log has; CAST it in a query"
        raise DataError(f"{where}: {text}: {first_line(error)}") from None


def _groups(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    waiting, rows = list[pa.RecordBatch](), 0
    for batch in reader:
        waiting.append(batch)
        rows += batch.num_rows
        while rows >= _GROUP:
            table = pa.Table.from_batches(waiting, reader.schema)
            yield table.slice(0, _GROUP).combine_chunks()
            waiting, rows = table.slice(_GROUP).to_batches(), rows - _GROUP
    if rows:
        yield pa.Table.from_batches(waiting, reader.schema).combine_chunks()
