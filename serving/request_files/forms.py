"""Files of requests: a row is a request, in the form that it has over HTTP (docs/request.md); or else is flat.

    .jsonl .ndjson            a body per line
    .parquet .arrow .feather  request_id: string   time: timestamp with a zone
                              context: struct<user_id, ...>   candidates: list<struct<item_id, ...>>

Rows count from 1; in text, lines do. An integer or a float, whatever its width, is a number of JSON, a timestamp is its
text, and NaN, which JSON has not, is null. A column that a file does not have was not sent; null was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.logs.forms import ENDINGS, KNOWN, form_of
from rec.errors import DataError, nearest
from serving.memory_limit import BLOCK_BYTES, bounded, data_bytes, limited_memory
from serving.online.parse import KEYS
from serving.online.problems import RequestError
from serving.part_writer import Part

LINE_BYTES = 4 * 1024 * 1024  # as the endpoint's `max_body`, unless that is set
PART_ROWS = 8192  # requests of a part
_ROWS = 512  # requests held at once, about
_ROWS_PER_BYTE = 64
_BLOCK_BYTES = 4 * LINE_BYTES  # of rows that are decoded at once; JSON writes most of them shorter
_FIRST = 100  # lines of a text looked at to tell its rows
_TEXT, _TABLES = (".jsonl", ".ndjson"), (".parquet", ".arrow", ".feather")
_FORMS = ", ".join(ENDINGS)
_REQUIRED = ("time", "candidates")


def paths(files: Sequence[Path]) -> list[Path]:
    """Files, and those directly in folders, in order; DataError for what is missing, empty or of another form."""
    listed: list[Path] = []
    for file in files:
        if not file.exists():
            raise DataError(f"{file}: no such file or folder")
        inside = sorted(path for path in file.iterdir() if _visible(path)) if file.is_dir() else [file]
        if not inside:
            raise DataError(f"{file}: no file of requests in it: expected {_FORMS}")
        listed += inside
    for path in listed:
        form, packed = form_of(path)
        if form not in KNOWN or (packed and form in _TABLES):
            hint = nearest(path.suffix, ENDINGS)
            raise DataError(f"{path}: expected a file of requests or rows ({_FORMS}), got {path.suffix!r}{hint}")
    resolved = [path.resolve() for path in listed]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise DataError(f"{listed[index]}: given twice")
    return listed


def _visible(path: Path) -> bool:
    return path.is_file() and not path.name.startswith((".", "_"))


def is_flat(path: Path) -> bool:
    """Whether a row of a file is a candidate, not a request: it has no `candidates`. DataError for packed requests."""
    form, packed = form_of(path)
    if form in _TEXT and packed:  # a part of requests begins at a byte of its file
        if any(_is_request(line) for line in _unpacked(path)):
            text = "a file of requests that is compressed: decompress it first (only flat rows, a candidate each,"
            raise DataError(f"{path}: {text} are read from compressed files)")
        return True
    if form in _TEXT:
        return all(_is_request(line) is False for _, line, _ in islice(_lines(path), _FIRST))
    if path.suffix not in _TABLES:
        return True
    try:
        with _readable(path):
            if path.suffix == ".parquet":
                return "candidates" not in pq.read_schema(path).names
            with pa.memory_map(str(path)) as source:
                return "candidates" not in pa.ipc.open_file(source).schema.names
    except DataError:
        return False


def _is_request(line: bytes) -> bool | None:
    """Whether a line is a request, not a flat row; None where it is neither, as reading it will tell."""
    try:
        return "candidates" in msgspec.json.decode(line, type=dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _unpacked(path: Path) -> list[bytes]:
    """The first lines of compressed text, as far as they can be read; the last may be cut."""
    with suppress(OSError, pa.ArrowException), pa.input_stream(str(path), compression="detect") as file:
        return file.read(LINE_BYTES).splitlines()[:_FIRST]
    return []


def sections(path: Path) -> list[Part]:
    """A file as parts of PART_ROWS requests; one without rows where it cannot be read, as reading it will tell."""
    if path.suffix in _TEXT:
        return _sections_of_text(path)
    try:
        with _readable(path):
            rows = sum(_counts(path))
    except DataError:
        return [Part(path, 0)]
    if rows > path.stat().st_size * _ROWS_PER_BYTE:  # as only a broken file says
        return [Part(path, rows, 0, rows)]
    starts = range(0, max(rows, 1), PART_ROWS)
    return [Part(path, min(PART_ROWS, rows - start), start, min(start + PART_ROWS, rows)) for start in starts]


def _sections_of_text(path: Path) -> list[Part]:
    parts, count, first, offset = list[Part](), 0, 0, 0
    for number, _, place in _lines(path):
        if count == PART_ROWS:
            parts.append(Part(path, count, first, number - 1, offset))
            count = 0
        if not count:
            first, offset = number - 1, place
        count += 1
    return [*parts, Part(path, count, first, 0, offset)]


def requests(part: Part) -> Iterator[tuple[int, bytes | dict[str, Any] | RequestError]]:
    """Every request with its row: a body, cut one byte after LINE_BYTES; or a decoded one, or why it is none."""
    if part.path.suffix in _TEXT:
        lines = _lines(part.path, part.start, part.offset)
        yield from ((number, line) for number, line, _ in islice(lines, part.rows))
        return
    row = part.start
    for block in bounded(_blocks(part), BLOCK_BYTES):
        for request in _decoded(part.path, block):
            row += 1
            yield row, request


def _lines(path: Path, number: int = 0, offset: int = 0) -> Iterator[tuple[int, bytes, int]]:
    """The lines of a text that are not blank, from `offset` on, behind line `number`, and where each begins.

    They are cut where they are too long.
    """
    with path.open("rb") as file:
        file.seek(offset)
        while line := file.readline(LINE_BYTES + 1):
            number += 1
            size, rest = len(line), line
            while not rest.endswith(b"\n") and (rest := file.readline(LINE_BYTES)):
                size += len(rest)
            if line.strip() or len(line) > LINE_BYTES:
                yield number, line, offset
            offset += size


def _counts(path: Path) -> list[int]:
    """The rows of each row group or record batch of a table."""
    if path.suffix == ".parquet":
        metadata = pq.read_metadata(path)
        return [max(0, metadata.row_group(index).num_rows) for index in range(metadata.num_row_groups)]
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        return [reader.get_batch(index).num_rows for index in range(reader.num_record_batches)]


def _blocks(part: Part) -> Iterator[pa.RecordBatch]:
    """The rows of a part of a table, _ROWS at a time."""
    path = part.path
    with _readable(path):
        ends = np.cumsum([0, *_counts(path)])
        groups = [g for g in range(len(ends) - 1) if ends[g] < part.stop and ends[g + 1] > part.start]
        at = int(ends[groups[0]]) if groups else 0
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                _check(path, file.schema_arrow)
                for block in file.iter_batches(_ROWS, row_groups=groups) if groups else ():
                    yield from _between(block, at, part)
                    at += len(block)
            return
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            _check(path, reader.schema)
            for group in groups:
                whole = reader.get_batch(group)
                for start in range(0, len(whole), _ROWS):
                    yield from _between(whole.slice(start, _ROWS), at + start, part)
                at += len(whole)


def _between(block: pa.RecordBatch, at: int, part: Part) -> Iterator[pa.RecordBatch]:
    """The rows of a block, the first of which is row `at` of a file, that belong to a part."""
    start, stop = max(part.start - at, 0), min(part.stop - at, len(block))
    if start < stop:
        yield block.slice(start, stop - start)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """DataError for a file that is truncated or broken; what the system says of it stays an OSError."""
    try:
        yield
    except MemoryError:
        raise DataError(f"{path}: some of its rows take more than {BLOCK_BYTES >> 20} MiB of memory") from None
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:  # of names that are not UTF-8
        # Arrow calls broken metadata an OSError too, without the number that those of the system have
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path}: not a whole {path.suffix} file: {error}") from None


def _check(path: Path, schema: pa.Schema) -> None:
    """DataError for a table that cannot be one of requests, naming the first column that is wrong."""
    for name in schema.names:
        if name not in KEYS:
            known = ", ".join(KEYS)
            raise DataError(f"{path}: {name}: no column of requests, which are {known}{nearest(name, KEYS)}")
        if schema.names.count(name) > 1:
            raise DataError(f"{path}: {name}: two columns of this name")
    for name in _REQUIRED:
        if name not in schema.names:
            raise DataError(f"{path}: {name}: not in this table; expected at least {' and '.join(_REQUIRED)}")


def _valid(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows whose offsets, lengths and texts are valid, with timestamps that Python can hold."""
    rows.validate(full=True)
    columns = [column.cast(_microseconds(column.type), safe=False) for column in rows.columns]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def _microseconds(kind: pa.DataType) -> pa.DataType:
    """A type whose timestamps are in microseconds, and that has no dictionaries, at any depth."""
    if pa.types.is_dictionary(kind):
        return _microseconds(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz=kind.tz)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _microseconds(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_microseconds(kind.value_type)))
    return kind


def _decoded(path: Path, block: pa.RecordBatch) -> Iterator[dict[str, Any] | RequestError]:
    """The rows of a block as decoded bodies, so many at a time as have at most _BLOCK_BYTES."""
    rows = None
    with suppress(MemoryError), _readable(path), limited_memory(data_bytes() + BLOCK_BYTES):
        rows = _valid(block)
    if rows is not None and rows.nbytes <= _BLOCK_BYTES:
        yield from _values(rows)
    elif len(block) > 1:
        half = len(block) // 2
        yield from _decoded(path, block.slice(0, half))
        yield from _decoded(path, block.slice(half))
    else:
        message = f"body: expected at most {_BLOCK_BYTES} bytes in a row"
        yield RequestError(413, "Request too large", [("", message)])


def _values(block: pa.RecordBatch) -> list[dict[str, Any] | RequestError]:
    """The rows of a block as decoded bodies."""
    try:
        return [_sent(request) for request in block.to_pylist()]
    except (OverflowError, ValueError):  # Python's timestamps have fewer years than Arrow's
        if len(block) > 1:
            return [request for index in range(len(block)) for request in _values(block.slice(index, 1))]
        message = "expected timestamps of the years 1 to 9999, got another"
        return [RequestError(422, "Request does not fit the spec", [("", message)])]


def _sent(request: dict[str, Any]) -> dict[str, Any]:
    """A row as a decoded body: what is null beside context and candidates was not sent."""
    sent = {name: _json(value) for name, value in request.items() if value is not None}
    if type(sent.get("request_id")) is int:
        sent["request_id"] = str(sent["request_id"])
    return sent


def _json(value: Any) -> Any:
    """A value as JSON has it.

    >>> _json({"price": float("nan"), "sizes": [1, 2]})
    {'price': None, 'sizes': [1, 2]}
    """
    if isinstance(value, dict):
        return {name: _json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_json(inner) for inner in value]
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return value.isoformat() if isinstance(value, datetime) else value
