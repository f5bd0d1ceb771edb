"""Atomic writes: files and folders that are complete or absent.

A file is written beside its place, flushed to the disk, and renamed; a folder likewise. A process killed at any moment
leaves the old one, the new one, or a `.tmp` name that the next writer removes; never half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rec.errors import BundleError

_BLOCK = 1 << 20
RECORD = ".multigate.json"  # how a folder came to be (rec/output_folder.py); its inventory does not list it


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file by `data`, whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Replace a file by `value` as indented JSON; NaN and infinity are refused."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path, kind: type = object) -> Any:
    """The JSON value in a file; BundleError when it is absent or broken, or of another kind than dict or list."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path}: missing") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, kind):
        raise BundleError(f"{path}: not what was written there: expected a {kind.__name__}, got {value!r:.60}")
    return value


@contextmanager
def whole_folder(path: Path, *, keep: Collection[str] = ()) -> Iterator[Path]:
    """A new folder to fill, which becomes `path` when the block ends well and vanishes when it does not.

    An earlier folder at `path` is replaced; of what it holds, the names in `keep` are carried over.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.mkdir()
    try:
        yield beside
        for name in keep:
            _carry(path / name, beside / name)
        for file in beside.rglob("*"):
            if not file.is_symlink():
                flush(file)
        if path.exists():
            path.rename(path.with_name(f".{path.name}.{os.getpid()}.old.tmp"))
        beside.rename(path)
    finally:
        sweep(path, writer=str(os.getpid()))


def sweep(path: Path, *, writer: str = r"\d+") -> None:
    """Remove what an interrupted `writer` (a pid) left beside a folder; where the folder is away, it is put back."""
    beside = re.compile(rf"\.{re.escape(path.name)}\.({writer})(\.old)?\.tmp")
    for stale in sorted(path.parent.glob(".*.tmp")):
        if not beside.fullmatch(stale.name):
            continue
        if stale.name.endswith(".old.tmp") and not path.exists():
            stale.rename(path)
        elif stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            stale.unlink(missing_ok=True)


def _carry(source: Path, target: Path) -> None:
    """Copy a file, a folder, or a link as a link."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def sha256(path: Path) -> str:
    """The digest of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def inventory(folder: Path, *, known: dict[str, dict[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """`{relative path: {"sha256": ..., "bytes": ...}}` of every file below a folder, but for the manifest itself.

    `known` are entries of files whose digest their writer worked out.
    """
    names = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    return {
        name: (known or {}).get(name) or {"sha256": sha256(file), "bytes": file.stat().st_size}
        for name, file in names.items()
        if file.name not in ("manifest.json", RECORD)
    }


def verify(folder: Path, expected: dict[str, dict[str, Any]]) -> None:
    """Refuse a folder that lacks, changed, or gained a file against its inventory."""
    for name, entry in expected.items():
        file = folder / name
        if not file.is_file() or file.is_symlink():
            raise BundleError(f"{folder}: {name} is listed in the manifest but is not there")
        if file.stat().st_size != entry["bytes"]:
            raise BundleError(f"{folder}: {name} has {file.stat().st_size} bytes, the manifest says {entry['bytes']}")
        if sha256(file) != entry["sha256"]:
            raise BundleError(f"{folder}: {name} was changed: its sha256 is not the manifest's")
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
    for name in sorted(present - set(expected) - {"manifest.json", RECORD}):
        raise BundleError(f"{folder}: {name} is not listed in the manifest")


def flush(path: Path) -> None:
    """Wait until what was written into a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
