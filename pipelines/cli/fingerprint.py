"""What a result was made from, as one digest: a part of the spec, the files it names, and our version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import rec
from rec.spec import Spec

HOUSE = Path(rec.__file__).parents[1]


def stamp(spec: Spec, base: Path) -> str:
    """What session tables are made from besides the spec: the files it names, and our code."""
    return digest(list(_stamps([spec.source, spec.logs.columns], base)), code("rec", "features"))


def digest(*parts: Any) -> str:
    """One digest of any JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _stamps(value: Any, base: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of every file that [source] names, by path or by pattern."""
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _stamps(inner, base)
    elif isinstance(value, str):
        for file in sorted(_named(base / value)):
            status = file.stat()
            yield str(file), status.st_size, status.st_mtime_ns


def _named(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    elif any(sign in path.name for sign in "*?[") and path.parent.is_dir():
        yield from (file for file in path.parent.glob(path.name) if file.is_file())


def code(*folders: str) -> str:
    """The digest of our own source: a result made by other code is not fresh."""
    files = sorted(file for folder in folders for file in (HOUSE / folder).rglob("*.py"))
    return digest([(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files])
