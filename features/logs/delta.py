"""Delta Lake tables as streams of Arrow batches, through the package deltalake.

    delta:lake/shown                              a folder, relative to the spec
    delta:s3://bucket/lake/shown?version=7        an older version; the last one without

The rows are those of the table's files, by the files' paths, each in its own order: its log says which files they are,
which of their rows are deleted, and the values of the columns by which it is partitioned. A column that a file lacks is
null there.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from features.logs import object_stores
from features.logs.object_store_errors import store_errors
from rec.errors import DataError, SpecError, nearest

_ADDRESS = re.compile(r"delta:(?P<place>[^?]+)(?:\?(?P<options>.*))?", re.DOTALL)
_VERSION = re.compile(r"version=([^&]*)&?")
_BATCH = 50_000  # rows of a batch
_READ = frozenset({"deletionVectors", "timestampNtz", "typeWidening", "v2Checkpoint", "vacuumProtocolCheck"})
_PATIENCE = {"max_retries": "3", "retry_timeout": "20s"}  # of a store that does not answer
_STORAGE = {  # options of stores as deltalake calls them
    "anonymous": "aws_skip_signature",
    "endpoint_override": "aws_endpoint",
    "region": "aws_region",
}


@dataclass(frozen=True)
class DeltaAddress:
    """A Delta table: a folder, or a place in a store; `version` is None for the last one."""

    place: str | object_stores.Place
    version: int | None

    def folder(self, base: Path) -> Path | None:
        """The folder that the table is; None in a store."""
        return (base / self.place).absolute() if isinstance(self.place, str) else None


def is_address(text: str) -> bool:
    """Whether a text means a Delta table."""
    return text.startswith("delta:")


def table_of(text: str, where: str, version: int | None = None) -> DeltaAddress:
    """The table that an address means, of `version` where it says none itself.

    Raises SpecError for one without a place, for another option, and for a secret.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise SpecError(f"{where}: delta: expected a folder or an address, such as delta:lake/shown?version=7")
    options = match["options"] or ""
    chosen = _VERSION.search(options)
    if chosen is not None and not re.fullmatch(r"\d{1,18}", chosen[1]):
        raise SpecError(f"{where}: delta:{_name(match['place'], where)}: version: expected a number from 0")
    number = version if chosen is None else int(chosen[1])
    rest = _VERSION.sub("", options).strip("&")
    local = object_stores.local(match["place"], where)
    if object_stores.is_address(local):
        return DeltaAddress(object_stores.place_of(f"{local}?{rest}" if rest else local, where), number)
    if rest:
        raise SpecError(f"{where}: delta:{local}: the option of a table in a folder is version=, got another")
    return DeltaAddress(local, number)


def _name(place: str, where: str) -> str:
    return object_stores.place_of(place, where).name if object_stores.is_address(place) else place


@contextmanager
def opened(table: DeltaAddress, base: Path, where: str) -> Iterator[Any]:
    """The table as deltalake has it; SpecError without that package, DataError for no such table, version or access."""
    deltalake = _library(where)
    folder = table.folder(base)
    name = f"delta:{table.place.name if isinstance(table.place, object_stores.Place) else table.place}"
    if folder is not None and not (folder / "_delta_log").is_dir():
        near = nearest(folder.name, [entry.name for entry in folder.parent.glob("*")]) if folder.parent.is_dir() else ""
        what = "no Delta table: it has no _delta_log" if folder.is_dir() else f"no folder {folder}"
        raise DataError(f"{where}: {name}: {what}{'' if folder.is_dir() else near}")
    with store_errors(name, where, deltalake.exceptions.DeltaError):
        try:
            yield deltalake.DeltaTable(_uri(table, base), version=table.version, storage_options=_storage(table))
        except deltalake.exceptions.TableNotFoundError:
            raise DataError(f"{where}: {name}: no Delta table there: it has no _delta_log") from None


def state(table: DeltaAddress, base: Path, where: str) -> list[Any]:
    """The table's own id and the number of its version, whose rows never change."""
    with opened(table, base, where) as lake:
        return [lake.metadata().id, lake.version()]


@contextmanager
def batches(table: DeltaAddress, base: Path, where: str) -> Iterator[pa.RecordBatchReader]:
    """A stream of the rows of a table, of bounded memory.

    Raises as `opened` does; DataError too for a table that needs a reader of features that this is not, and for files
    that its log names and nobody has.
    """
    with opened(table, base, where) as lake:
        features = set(lake.protocol().reader_features or ()) - _READ
        mapped = lake.metadata().configuration.get("delta.columnMapping.mode", "none") != "none"
        if features or mapped:
            text = ", ".join(sorted(features | ({"columnMapping"} if mapped else set())))
            raise DataError(
                f"{where}: {lake.table_uri}: the table needs a reader of {text}, which this is not; "
                "write the table, or a query of it, as Parquet"
            )
        schema = pa.schema(lake.schema().to_arrow())
        yield pa.RecordBatchReader.from_batches(schema, _rows(lake, schema, _files(table, base, where), where))


def _files(table: DeltaAddress, base: Path, where: str) -> pafs.FileSystem:
    """The filesystem of the table's files, whose paths begin at the table."""
    if isinstance(table.place, object_stores.Place):
        filesystem, root = object_stores.opened(table.place, table.place.path, where)
    else:
        filesystem, root = pafs.LocalFileSystem(), str(table.folder(base))
    return pafs.SubTreeFileSystem(root, filesystem)


def _rows(lake: Any, schema: pa.Schema, filesystem: pafs.FileSystem, where: str) -> Iterator[pa.RecordBatch]:
    files = pa.table(lake.get_add_actions()).to_pylist()
    deleted = _deleted(lake)
    for file in sorted(files, key=lambda file: unquote(file["path"]).split("/")):
        path = unquote(file["path"])
        if "://" in path:
            raise DataError(f"{where}: {lake.table_uri}: a shallow clone, whose files are those of another table")
        masks = [name for name in deleted if name.endswith(f"/{path}")]
        mask = deleted.pop(masks[0]) if masks else None
        values = file.get("partition") or {}
        try:
            yield from _of_file(filesystem, path, schema, values, mask)
        except FileNotFoundError:
            raise DataError(
                f"{where}: {lake.table_uri}: version {lake.version()} has a file {path}, which is gone: "
                "a vacuum removes the files of old versions"
            ) from None
    if deleted:
        raise DataError(f"{where}: {lake.table_uri}: rows are deleted of {next(iter(deleted))}, which it does not have")


def _of_file(
    filesystem: pafs.FileSystem, path: str, schema: pa.Schema, values: Mapping[str, Any], mask: pa.BooleanArray | None
) -> Iterator[pa.RecordBatch]:
    """The rows of a file that are not deleted, with the columns of the table."""
    first = 0
    with filesystem.open_input_file(path) as source, pq.ParquetFile(source, coerce_int96_timestamp_unit="us") as file:
        for batch in file.iter_batches(_BATCH):
            columns = [
                pa.array([values[field.name]] * batch.num_rows, field.type)
                if field.name in values
                else batch[field.name].cast(field.type)
                if field.name in batch.schema.names
                else pa.nulls(batch.num_rows, field.type)
                for field in schema
            ]
            rows = pa.record_batch(columns, schema=schema)
            yield rows if mask is None else rows.filter(mask.slice(first, batch.num_rows))
            first += batch.num_rows


def _deleted(lake: Any) -> dict[str, pa.BooleanArray]:
    """For each file with a deletion vector, by its address: which of its rows are still there."""
    if "deletionVectors" not in (lake.protocol().reader_features or ()):
        return {}
    rows = pa.RecordBatchReader.from_stream(lake.deletion_vectors()).read_all()
    masks = rows["selection_vector"].combine_chunks()
    return {unquote(name): masks[n].values for n, name in enumerate(rows["filepath"].to_pylist())}


def _uri(table: DeltaAddress, base: Path) -> str:
    return table.place.name if isinstance(table.place, object_stores.Place) else str(table.folder(base))


def _storage(table: DeltaAddress) -> dict[str, str] | None:
    """Options of a store as deltalake reads them, beside the environment."""
    if isinstance(table.place, str):
        return None
    options = dict(table.place.options)
    options.pop("scheme", None)  # an endpoint says its own
    storage = {_STORAGE.get(name, name): value for name, value in options.items()}
    return {**_PATIENCE, "allow_http": "true", **storage}


def _library(where: str) -> ModuleType:
    try:
        return importlib.import_module("deltalake")
    except ImportError:
        raise SpecError(
            f"{where}: a Delta table needs a library: `pip install 'multigate[delta]'` installs it"
        ) from None
