"""Which files a path, a glob, or several of them mean: each file once, called by a name that no other file has.

What lies in a database, a Delta table or a store is the files of its copy (features/logs/copies.py), called by their
addresses. A file:// address is the path that it means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from features.logs import copies, object_stores
from features.logs.logs import first_line
from rec.errors import DataError, nearest


def paths_of(pattern: str | Sequence[str], base: Path, where: str) -> list[Path]:
    """The files of one or several paths or globs, in the order given, then by name; DataError if there are none.

    A file that several of them mean is one file, where it stands first.
    """
    files: dict[Path, Path] = {}
    for path in _named(pattern, base, where):
        files.setdefault(path.resolve(), path)
    return list(files.values())


def _named(pattern: str | Sequence[str], base: Path, where: str) -> list[Path]:
    """The files of paths and globs, as often as these name them."""
    patterns = [pattern] if isinstance(pattern, str) else pattern
    return [path for glob in patterns for path in _paths(glob, base, where)]


def _paths(pattern: str, base: Path, where: str) -> list[Path]:
    pattern = object_stores.local(pattern, where)
    path = base / pattern
    if path.is_file():
        return [path]
    if copies.is_address(pattern):
        return copies.copies_of(pattern, base, where)
    try:
        matches = matches_of(path)
    except ValueError as error:
        raise DataError(f"{where}: {path}: no glob: {first_line(error)}") from None
    if matches:
        return matches
    if path.is_dir():
        inside = "**/*" if any(entry.is_dir() for entry in path.iterdir()) else "*"
        raise DataError(f"{where}: {path} is a folder; give its files, such as {pattern.rstrip('/')}/{inside}.parquet")
    near = nearest(path.name, [entry.name for entry in path.parent.glob("*")]) if path.parent.is_dir() else ""
    raise DataError(f"{where}: no file {path}{near}")


def matches_of(path: Path) -> list[Path]:
    """The files that a glob means, by name, but for marks such as _SUCCESS; ValueError for no glob."""
    whole = path.absolute()
    entries = Path(whole.anchor).glob(str(whole.relative_to(whole.anchor)))
    return sorted(entry for entry in entries if entry.is_file() and not entry.name.startswith(object_stores.MARKS))


def repeated(pattern: str | Sequence[str], base: Path, where: str) -> list[str]:
    """The files that several paths or globs mean, as `short` calls them."""
    times = Counter(path.resolve() for path in _named(pattern, base, where))
    return [short(path, base) for path in paths_of(pattern, base, where) if times[path.resolve()] > 1]


def short(path: Path, base: Path) -> str:
    """The path relative to the spec's folder; of a file elsewhere the whole path, since names repeat in folders.

    A copy is called by the address of what it is a copy of.
    """
    address = copies.name_of(path)
    if address is not None:
        return address
    whole, home = path.absolute(), base.absolute()
    return str(whole.relative_to(home) if whole.is_relative_to(home) else whole)
