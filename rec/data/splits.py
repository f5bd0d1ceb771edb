"""Session tables on disk: a split is a folder of Arrow files, each written atomically, read by memory map.

DATA/
    spec.toml  manifest.json  fitted/  store/
    train/part-00000.arrow ...   validation/...   test/...
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from rec.atomic import sha256
from rec.data.session_table import check_schema, schema
from rec.errors import DataError
from rec.spec import Spec

SPLITS = ("train", "validation", "test")
BLOCK = 8192  # requests per record batch: what a reader holds at once


def write(path: Path, rows: Iterable[pa.RecordBatch], shape: pa.Schema) -> int:
    """Write one part atomically; the number of requests written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    count = 0
    try:
        with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, shape) as writer:
            for batch in rows:
                for start in range(0, len(batch), BLOCK):
                    writer.write_batch(batch.slice(start, BLOCK))
                count += len(batch)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return count


def nothing(spec: Spec) -> pa.RecordBatch:
    """A session table without requests."""
    shape = schema(spec)
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in shape], schema=shape)


def files(folder: Path, split: str) -> list[Path]:
    """The parts of a split, in order; DataError when there are none."""
    if split not in SPLITS:
        raise DataError(f"{split!r} is not a split: {', '.join(SPLITS)}")
    parts = sorted((folder / split).glob("part-*.arrow"))
    if not parts:
        raise DataError(
            f"{folder / split}: no session tables here; `multigate features SPEC --out {folder}` makes them"
        )
    return parts


def read(folder: Path, split: str, spec: Spec) -> Iterator[pa.RecordBatch]:
    """The rows of a split, BLOCK requests at a time; DataError names a file that is truncated or of another schema."""
    for path in files(folder, split):
        yield from read_part(path, spec)


def read_part(
    path: Path, spec: Spec, *, start: int = 0, stop: int | None = None, labels: bool = True
) -> Iterator[pa.RecordBatch]:
    """The rows of one part; of its record batches from `start` to before `stop`, where that is said.

    Without `labels` they need not be there.
    """
    with opened(path) as reader:
        check_schema(reader.schema, spec, str(path), labels=labels)
        for index in range(reader.num_record_batches)[start:stop]:
            yield reader.get_batch(index)


@contextmanager
def opened(path: Path) -> Generator[pa.RecordBatchFileReader, None, None]:
    """A part, memory-mapped; DataError when it is truncated."""
    try:
        with pa.memory_map(str(path)) as source:
            yield pa.ipc.open_file(source)
    except MemoryError:
        raise DataError(f"{path}: a record batch of it takes more memory than there is") from None
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:  # of names that are not UTF-8
        # Arrow calls broken metadata an OSError too, without the number that those of the system have
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path}: not a whole session table: {error}") from None


def digest(folder: Path) -> str:
    """The digest that identifies session tables: the sha256 of their manifest; DataError when there is none."""
    if not (folder / "manifest.json").exists():
        raise DataError(f"{folder}: no session tables here; `multigate features SPEC --out {folder}` makes them")
    return sha256(folder / "manifest.json")


def count(folder: Path, split: str) -> int:
    """Requests in a split, read from the files' footers."""
    return sum(map(count_part, files(folder, split)))


def count_part(path: Path) -> int:
    """Requests in one part; DataError when it is truncated."""
    with opened(path) as reader:
        return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
