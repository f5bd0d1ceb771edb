"""Fingerprint of the logs that a spec names: name, size and modification time of every file, as one digest.

A file of a store counts by what the store says of it, a Delta table by its version, and a table of a database by its
rows as they are read, in their order, since other tables share its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rec.output_folder import digest
from rec.spec import Spec


def of_logs(spec: Spec, base: Path) -> str:
    """What [source] and logs.columns name, by path, pattern or address; paths start at the folder of the spec."""
    from features.logs import copies

    files = (file for place in _places(spec, base) for file in sorted(_named(place)))
    states = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    elsewhere = (copies.states_of(text, base, "source") for text in _addresses(spec))
    return digest([*states, *(state for several in elsewhere for state in several)])


def inputs(spec: Spec, base: Path) -> list[Path]:
    """Files that [source] and logs.columns name, and folders that are named as a whole (`root`, a Delta table)."""
    from features.logs import copies

    root = [base / spec.source["root"]] if isinstance(spec.source.get("root"), str) else []
    copied = (copies.disk_of(text, base, "source") for text in _addresses(spec))
    files = (file for place in _places(spec, base) if not place.is_dir() for file in _named(place))
    return [*root, *files, *(place for place in copied if place is not None)]


def _addresses(spec: Spec) -> list[str]:
    """What [source] names that is copied before it is read, where the source is one of ours."""
    from features import sources
    from features.logs import copies

    ours = spec.source.get("kind") in sources.names()
    return [text for text in _texts(spec.source) if ours and copies.is_address(text) and not text.startswith("file:")]


def _places(spec: Spec, base: Path) -> list[Path]:
    """Every text as the path or glob that it may be."""
    from features.logs import object_stores

    return [base / object_stores.local(text, "source") for text in _texts([spec.source, spec.logs.columns])]


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
    elif any(sign in str(path) for sign in "*?["):
        yield from _matches(path)


def _matches(path: Path) -> list[Path]:
    """The files of a glob; none for a text that is no glob, such as a condition in SQL."""
    from features.logs.paths import matches_of

    try:
        return matches_of(path)
    except (ValueError, OSError):
        return []
