"""Whether the logs that a spec names have changed: name, size and time of change of every file, as one digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rec.output_folder import digest
from rec.spec import Spec


def of_logs(spec: Spec, base: Path) -> str:
    """The files that [source] and logs.columns name, by path or by pattern, relative to the folder of the spec."""
    return digest(list(_files([spec.source, spec.logs.columns], base)))


def _files(value: Any, base: Path) -> Iterator[tuple[str, int, int]]:
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _files(inner, base)
    elif isinstance(value, str):
        for file in sorted(_named(base / value)):
            status = file.stat()
            yield str(file.resolve()), status.st_size, status.st_mtime_ns


def _named(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    elif any(sign in path.name for sign in "*?[") and path.parent.is_dir():
        yield from (file for file in path.parent.glob(path.name) if file.is_file())
