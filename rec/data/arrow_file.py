"""Small Arrow files, a whole table each: vocabularies, the store, golden requests. Read by memory map."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from rec.errors import BundleError


def write(path: Path, table: pa.Table) -> None:
    """Write a table as an Arrow file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read(path: Path, *, what: str, full: bool = False) -> pa.Table:
    """Memory-map the table in an Arrow file; BundleError, naming the file and `what` it is, when missing or broken.

    With `full`, for a file that comes from elsewhere, every offset, length and text is validated before it is used.
    """
    name = f"{path.parent.name}/{path.name}"
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            if full:
                table.validate(full=True)
            return table
    except FileNotFoundError:
        raise BundleError(f"{name}: missing {what}") from None
    except (pa.ArrowInvalid, pa.ArrowSerializationError, pa.ArrowNotImplementedError, OSError) as error:
        # Arrow calls broken metadata an OSError too, without the number that those of the system have
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BundleError(f"{name}: not a {what}: {error}") from None
