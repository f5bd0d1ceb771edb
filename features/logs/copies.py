"""Local copies of logs that lie elsewhere: a build reads a log several times, so it is fetched once, as it was then.

A table of a database or of Delta Lake (features/logs/databases.py, delta.py) is written from a stream, as Parquet, its
rows in their order; a file of a store (features/logs/object_stores.py) is copied byte for byte, whole or not at all.
Copies lie in a temporary folder that ends with the process (TMPDIR says on which disk); what a killed one left is
removed by the next.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from textwrap import shorten as shortened
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from features.logs import databases, delta, object_stores
from features.logs.forms import form_of
from features.logs.logs import first_line
from rec.atomic import sha256
from rec.errors import DataError, SpecError
from rec.progress import Progress, Silent

_GROUP = 100_000  # rows of a row group, whatever the batches of the stream: equal rows are equal bytes
_THREADS = 8  # files of a store that are fetched at once
_PREFIX = "multigate-copies-"
_LOCK = "lock"
_WIDTH = 100  # of an address whose copying is shown, with its SQL
_COPIES: dict[tuple[Any, ...], Path] = {}
_LISTED: dict[object_stores.Place, tuple[pafs.FileSystem, list[object_stores.Stored]]] = {}
_VERSIONS: dict[tuple[str, Path], list[Any]] = {}
_NAMES: dict[Path, str] = {}
_PROGRESS: ContextVar[Progress] = ContextVar("progress", default=Silent())  # noqa: B039  it holds nothing


def is_address(text: str) -> bool:
    """Whether a text means something that is copied, and not a path."""
    return delta.is_address(text) or databases.is_address(text) or object_stores.is_address(text)


@contextmanager
def shown_by(progress: Progress) -> Iterator[None]:
    """Within it a progress shows what is copied; logs are read far below whoever knows a terminal."""
    token = _PROGRESS.set(progress)
    try:
        yield
    finally:
        _PROGRESS.reset(token)


def copies_of(address: str, base: Path, where: str) -> list[Path]:
    """The copies of what an address means, the same ones until it changes or `forget`.

    Raises as `databases.batches`, `delta.batches`, `stores.listed` and `stores.fetch` do.
    """
    if not _is_store(address):
        return [_table(address, base, where)]
    place = object_stores.place_of(address, where)
    filesystem, files = _listing(place, where)
    options = place.options  # two addresses of one file are one copy
    missing = [file for file in files if (options, file) not in _COPIES]
    _refuse_small_disk(missing, place, where)
    advance = _shown(place.name, missing)
    targets = {file: _folder() / f"{len(_NAMES) + n}{_ending(file)}" for n, file in enumerate(missing)}
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            fetched = [
                pool.submit(object_stores.fetch, filesystem, file, targets[file], where, advance) for file in missing
            ]
            for future in fetched:
                try:
                    future.result()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    except BaseException:
        for target in targets.values():
            target.unlink(missing_ok=True)
        raise
    for file, target in targets.items():
        _COPIES[options, file], _NAMES[target] = target, file.name
    return [_COPIES[options, file] for file in files]


def states_of(address: str, base: Path, where: str) -> list[list[Any]]:
    """What changes when what an address means does: of files sizes and times, of Delta the version, else the rows."""
    if _is_store(address):
        return [[file.name, file.state] for file in _listing(object_stores.place_of(address, where), where)[1]]
    if delta.is_address(address):
        return [[address, *_version(address, base, where)]]
    return [[address, sha256(_table(address, base, where))]]


def disk_of(address: str, base: Path, where: str) -> Path | None:
    """The file or folder of this disk that is copied; None for what lies elsewhere."""
    if _is_store(address):
        return None
    if delta.is_address(address):
        return delta.table_of(address, where).folder(base)
    return databases.table_of(address, where).file(base)


def name_of(path: Path) -> str | None:
    """The address that a file is a copy of; None for a file of somebody's own."""
    return _NAMES.get(path)


def place_of(path: Path) -> Path:
    """Where a file lies for columns in the names of its folders: a copy of a store's file where that lies."""
    name = name_of(path)
    if name is None:
        return path
    return Path("/", name.partition("://")[2] if _is_store(name) else "table")


def forget() -> None:
    """Look for everything anew from now on; copies that are in use stay until the process ends."""
    _COPIES.clear()
    _LISTED.clear()
    _VERSIONS.clear()


def _is_store(address: str) -> bool:
    return not delta.is_address(address) and not databases.is_address(address)


def _listing(place: object_stores.Place, where: str) -> tuple[pafs.FileSystem, list[object_stores.Stored]]:
    if place not in _LISTED:
        _LISTED[place] = object_stores.listed(place, where)
    return _LISTED[place]


def _shown(name: str, missing: Sequence[object_stores.Stored]) -> Callable[[int], None]:
    """Begin to show that files are copied; what several threads call with bytes that are."""
    progress, lock = _PROGRESS.get(), threading.Lock()
    if missing:
        files = f"{len(missing):,} files of " if len(missing) > 1 else ""
        progress.start(f"copying {files}{name}", sum(file.size for file in missing), "bytes")

    def advance(size: int) -> None:
        with lock:
            progress.advance(size)

    return advance


def _version(address: str, base: Path, where: str) -> list[Any]:
    key = address, base.absolute()
    if key not in _VERSIONS:
        _VERSIONS[key] = delta.state(delta.table_of(address, where), base, where)
    return _VERSIONS[key]


def _ending(file: object_stores.Stored) -> str:
    form, packed = form_of(Path(file.path))
    return form + (Path(file.path).suffix.lower() if packed else "")


def _refuse_small_disk(missing: Sequence[object_stores.Stored], place: object_stores.Place, where: str) -> None:
    size = sum(file.size for file in missing)
    free = shutil.disk_usage(_folder()).free if size else 0
    if size > free:
        raise DataError(
            f"{where}: {place.name}: {len(missing)} files of {size:,} bytes, and {_folder().parent} has {free:,} free; "
            "TMPDIR names another disk"
        )


def _table(address: str, base: Path, where: str) -> Path:
    """The copy of a table: of a database by the state of its file, of Delta by its version."""
    if delta.is_address(address):
        lake, version = _version(address, base, where)
        at, batches = f"{lake} {version}", delta.batches(delta.table_of(address, where, version), base, where)
    else:
        table = databases.table_of(address, where)
        at, batches = _state(table.file(base)), databases.batches(table, base, where)
    key = (address, base.absolute(), at)
    if key not in _COPIES:
        path = _folder() / f"{len(_NAMES)}.parquet"
        try:
            with batches as reader:
                _write(reader, path, address, where)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        _COPIES[key], _NAMES[path] = path, address
    return _COPIES[key]


@cache
def _folder() -> Path:
    """The folder of this process's copies, removed when it ends; what processes that were killed left goes before."""
    home = Path(tempfile.gettempdir())
    for lock in home.glob(f"{_PREFIX}*/{_LOCK}"):
        _remove_left(lock)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
    beside = folder / f".{_LOCK}"
    fcntl.flock(os.open(beside, os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)  # until the process, and its children, end
    beside.rename(folder / _LOCK)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left(lock: Path) -> None:
    """Remove the folder of a lock that nobody holds."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return  # another user's, or gone
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(lock.parent, ignore_errors=True)
    except OSError:
        return  # in use
    finally:
        os.close(descriptor)


def _state(file: Path | None) -> str:
    """Sizes and times of a database's file and of its write-ahead log."""
    logs = [] if file is None else [file, file.with_name(f"{file.name}.wal"), file.with_name(f"{file.name}-wal")]
    return " ".join(f"{log.stat().st_size} {log.stat().st_mtime_ns}" for log in logs if log.is_file())


def _write(reader: pa.RecordBatchReader, path: Path, address: str, where: str) -> None:
    """The rows of a stream, in row groups of one size."""
    where = f"{where}: {address}"
    names = reader.schema.names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"{where}: two columns are called {twice!r}; name them with AS")
    progress = _PROGRESS.get()
    progress.start(f"copying {shortened(address, width=_WIDTH, placeholder='...')}", None, "rows")
    try:
        with pq.ParquetWriter(path, reader.schema) as file:
            for rows in _groups(reader):
                file.write_table(rows)
                progress.advance(rows.num_rows)
    except OSError as error:
        if "No space left" not in str(error):
            raise
        raise DataError(f"{where}: {object_stores.full(path.parent, error)}") from None
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
