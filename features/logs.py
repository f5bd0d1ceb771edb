"""Logs: what a source gives, whatever shape the files had: one row per shown candidate, and tables of users and items.

    impressions   user_id  item_id  time   position  click  dwell ...     one row per shown candidate, labels too
    users         user_id  age  city ...                                  one row per user, or none
    items         item_id  price  brand  seller ...                       one row per item, or none

Files are Parquet, CSV, TSV or Arrow, by path or glob relative to the spec's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from rec.errors import DataError, nearest

_INFER = 100_000  # rows of a CSV looked at to tell its types


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `count` rows of `total` are wrong, `examples` are the first few of them."""

    name: str
    passed: bool
    count: int
    total: int
    examples: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Logs:
    """One row per shown candidate, and side tables keyed by `keys.user` and `keys.item`.

    `findings` is what the source saw while it put the rows together (clicks that belong to no impression, ...).
    """

    impressions: pl.LazyFrame
    users: pl.LazyFrame | None = None
    items: pl.LazyFrame | None = None
    findings: tuple[Finding, ...] = field(default=())


_Opened = tuple[Path, pl.LazyFrame, pl.Schema]
_READERS: Mapping[str, Callable[[Path], pl.LazyFrame]] = {
    ".parquet": lambda path: pl.scan_parquet(path, glob=False),
    ".csv": lambda path: pl.scan_csv(path, infer_schema_length=_INFER, glob=False),
    ".csv.gz": lambda path: pl.scan_csv(path, infer_schema_length=_INFER, glob=False),
    ".tsv": lambda path: pl.scan_csv(path, infer_schema_length=_INFER, separator="\t", glob=False),
    ".arrow": lambda path: pl.scan_ipc(path, glob=False),
    ".feather": lambda path: pl.scan_ipc(path, glob=False),
}


def scan(pattern: str | Sequence[str], base: Path, where: str) -> pl.LazyFrame:
    """The rows of every file of a path or glob (or several), one below the other; `where` is the spec's key in errors.

    Raises DataError for a missing or unreadable file and for files whose columns differ.
    """
    paths = [path for one in ([pattern] if isinstance(pattern, str) else pattern) for path in _paths(one, base, where)]
    frames = _with_empty_text([(path, *_open(path, where)) for path in paths])
    for path, _, schema in frames[1:]:
        _same_columns(frames[0][0], frames[0][2], path, schema, where)
    return pl.concat([frame for _, frame, _ in frames], how="diagonal_relaxed")


def collect(frame: pl.LazyFrame, where: str) -> pl.DataFrame:
    """The rows of a frame; DataError when a file turns out broken on the way, or there is no row at all."""
    try:
        rows = frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{where}: cannot be read: {_first_line(error)}") from None
    if rows.is_empty():
        raise DataError(f"{where}: expected at least one row, got an empty table")
    return rows


def columns_of(frame: pl.LazyFrame, where: str) -> pl.Schema:
    """Column names and types, without reading rows."""
    try:
        return frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{where}: cannot be read: {_first_line(error)}") from None


def require(frame: pl.LazyFrame, columns: Sequence[str], where: str) -> None:
    """DataError naming the first of `columns` that is not there, and the nearest that is."""
    present = columns_of(frame, where)
    for column in columns:
        if column not in present:
            raise DataError(
                f"{where}: no column {column!r}{nearest(column, present) or '; it has ' + ', '.join(present)}"
            )


def listed(column: str, kind: pl.DataType) -> pl.Expr:
    """A column of lists; text such as `[3, 7]`, `3|7` or `3 7` (a CSV cannot hold lists) is split into one."""
    if kind != pl.String:
        return pl.col(column)
    bare = pl.col(column).str.replace_all(r"[\[\]'\"]", "").str.strip_chars()
    parts = bare.str.replace_all(r"[\s,;|]+", "|").str.split("|")
    return pl.when(bare == "").then(pl.lit([], pl.List(pl.String))).otherwise(parts).alias(column)


def _paths(pattern: str, base: Path, where: str) -> list[Path]:
    path = base / pattern
    if path.is_file():
        return [path]
    whole = path.absolute()
    found = sorted(one for one in Path(whole.anchor).glob(str(whole.relative_to(whole.anchor))) if one.is_file())
    if found:
        return found
    if path.is_dir():
        raise DataError(f"{where}: {path} is a folder; give its files, such as {pattern.rstrip('/')}/*.parquet")
    near = nearest(path.name, [one.name for one in path.parent.glob("*")]) if path.parent.is_dir() else ""
    raise DataError(f"{where}: no file {path}{near}")


def _suffix(path: Path) -> str:
    return ".csv.gz" if path.name.endswith(".csv.gz") else path.suffix.lower()


def _open(path: Path, where: str) -> tuple[pl.LazyFrame, pl.Schema]:
    reader = _READERS.get(_suffix(path))
    if reader is None:
        raise DataError(f"{where}: {path}: expected one of {', '.join(_READERS)}, got {_suffix(path) or 'no suffix'!r}")
    try:
        frame = reader(path)
        return frame, frame.collect_schema()
    except pl.exceptions.NoDataError:
        raise DataError(f"{where}: {path}: expected at least one row, got an empty file") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{where}: {path}: truncated, or not a {_suffix(path)} file: {_first_line(error)}") from None


def _with_empty_text(frames: list[_Opened]) -> list[_Opened]:
    """A CSV calls a column without any value text; it is given the type that another file knows."""
    known = {name: kind for _, _, schema in frames for name, kind in schema.items() if kind != pl.String}
    made = []
    for path, frame, schema in frames:
        doubtful = [name for name, kind in schema.items() if kind == pl.String and name in known]
        if doubtful and _suffix(path) in (".csv", ".csv.gz", ".tsv"):
            empty = frame.select(pl.col(doubtful).is_null().all()).collect().row(0)
            kinds = {name: known[name] for name, nothing in zip(doubtful, empty, strict=True) if nothing}
            frame = frame.with_columns(pl.col(name).cast(kind) for name, kind in kinds.items())  # noqa: PLW2901
            schema = pl.Schema({**schema, **kinds})  # noqa: PLW2901
        made.append((path, frame, schema))
    return made


def _same_columns(first: Path, expected: pl.Schema, path: Path, got: pl.Schema, where: str) -> None:
    """Files read together have the same columns; integers may differ in width, and a file may know no value of one."""
    for name in sorted(set(expected) ^ set(got)):
        lacking = path if name in expected else first
        raise DataError(f"{where}: {lacking}: no column {name!r}, which {first if lacking is path else path} has")
    for name, kind in expected.items():
        other = got[name]
        if kind != other and pl.Null not in (kind, other) and not (kind.is_numeric() and other.is_numeric()):
            raise DataError(f"{where}: {path}: column {name!r}: expected {kind} as in {first.name}, got {other}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
