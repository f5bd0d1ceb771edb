"""Small Arrow files, a whole table each: vocabularies, the store, golden requests. Read by memory map."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from rec.errors import BundleError


def write(path: Path, table: pa.Table) -> None:
    """Write a table as an Arrow file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read(path: Path, *, what: str) -> pa.Table:
    """Memory-map the table in an Arrow file; BundleError, naming the file and `what` it is, when missing or broken."""
    name = f"{path.parent.name}/{path.name}"
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except FileNotFoundError:
        raise BundleError(f"{name}: missing {what}") from None
    except pa.ArrowInvalid as error:
        raise BundleError(f"{name}: not a {what}: {error}") from None
