"""Fingerprint of the files that a spec names: name, size and modification time of every file, as one digest.

A table of a database counts by its rows as they are read, in their order, since other tables share its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rec.atomic import sha256
from rec.output_folder import digest
from rec.spec import Spec


def of_logs(spec: Spec, base: Path) -> str:
    """The files that [source] and logs.columns name, by path or by pattern, relative to the folder of the spec."""
    from features.logs import copies

    files = (file for text in _texts([spec.source, spec.logs.columns]) for file in sorted(_named(base / text)))
    states = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    tables = [[text, sha256(copies.copy_of(text, base, "source"))] for text in _addresses(spec)]
    return digest([*states, *tables])


def inputs(spec: Spec, base: Path) -> list[Path]:
    """Files that [source] and logs.columns name, and the folder that is named as a whole (`root`)."""
    from features.logs import databases

    named = [base / text for text in _texts([spec.source, spec.logs.columns])]
    root = [base / spec.source["root"]] if isinstance(spec.source.get("root"), str) else []
    tables = (databases.table_of(text, "source").file(base) for text in _addresses(spec))
    files = (file for place in named if not place.is_dir() for file in _named(place))
    return [*root, *files, *(file for file in tables if file is not None)]


def _addresses(spec: Spec) -> list[str]:
    """Tables of databases that [source] names, where the source is one of ours."""
    from features import sources
    from features.logs import databases

    ours = spec.source.get("kind") in sources.names()
    return [text for text in _texts(spec.source) if ours and databases.is_address(text)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def _named(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    elif any(sign in path.name for sign in "*?[") and path.parent.is_dir():
        yield from (file for file in path.parent.glob(path.name) if file.is_file())
