"""Log files, by path or glob, as pieces that are read one by one; and files of users or items as one table.

Parquet, Arrow, CSV and TSV (and .csv.gz). A CSV is read as text, and the types inferred from its first rows are kept
with it, so that a later row of another type is one bad row and not an unreadable file. One file among several that
cannot be opened, or has no row, is dropped and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from features.logs import row_groups
from features.logs.logs import Finding, LazySideTable, Piece, first_line
from features.logs.paths import paths_of, repeated, short
from features.logs.reserved import reserved
from rec.errors import DataError, SpecError, nearest

EXTRA = "@extra"  # what a row of a CSV has beyond its columns
ROWS = 1_000_000  # of a piece, about
REPEATED = "files that several paths or globs name: each is read once"
_INFER = 100_000  # rows of a CSV looked at to tell its types
_TAIL = 1 << 16  # bytes at the end of a CSV in which its last row is looked for
_SEPARATORS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t"}
_SCANS: Mapping[str, Callable[[Path], pl.LazyFrame]] = {
    ".parquet": lambda path: pl.scan_parquet(path, glob=False),
    ".arrow": lambda path: pl.scan_ipc(path, glob=False),
    ".feather": lambda path: pl.scan_ipc(path, glob=False),
}
_KNOWN = (".parquet", *_SEPARATORS, ".arrow", ".feather")
_BROKEN = (pl.exceptions.PolarsError, OSError)


@dataclass(frozen=True)
class _File:
    path: Path
    suffix: str
    frame: pl.LazyFrame
    kinds: Mapping[str, pl.DataType]
    rows: int | None  # None: nobody counted


def scan(
    pattern: str | Sequence[str], base: Path, where: str, *, allowed: float = 0.01, index: str | None = None
) -> tuple[tuple[Piece, ...], tuple[Finding, ...]]:
    """One piece per file of a path or glob (or several), several for a large file; and findings on skipped files.

    `allowed` is the share of all bytes that may be skipped without failing. `index` names a column for the row number
    within the file.

    Raises DataError for a missing file, for an unknown format, and if no readable file is left.
    """
    pieces: list[Piece] = []
    broken: list[tuple[Path, str]] = []
    paths = paths_of(pattern, base, where)
    for number, path in enumerate(paths):
        opened = _opened(path, where)
        if isinstance(opened, str):
            broken.append((path, opened))
        else:
            pieces += (replace(piece, file=number) for piece in _pieces(opened, base, index))
    if not pieces:
        path, reason = broken[0]
        raise DataError(f"{where}: {path}: {reason}")
    sizes = {path: path.stat().st_size for path in paths}
    share = sum(sizes[path] for path, _ in broken) / max(1, sum(sizes.values()))
    text = "left out" if share <= allowed else f"left out; logs.bad_rows allows {allowed:.1%}, these are {share:.1%}"
    level = "warn" if share <= allowed else "fail"
    findings = [
        Finding(where, share <= allowed, 1, len(paths), (), f"{short(path, base)}: {reason}; {text}", level)
        for path, reason in broken
    ]
    again = repeated(pattern, base, where)
    if again:
        findings.append(Finding(where, True, len(again), len(paths), tuple(again[:3]), REPEATED, "note"))
    return tuple(pieces), tuple(findings)


def table(pattern: str | Sequence[str], base: Path, where: str) -> pl.LazyFrame:
    """The typed rows of all files, concatenated: for side tables, of which no file may be skipped.

    Raises DataError for a missing or unreadable file and for files whose columns differ.
    """
    files = []
    for path in paths_of(pattern, base, where):
        opened = _opened(path, where)
        if isinstance(opened, str):
            raise DataError(f"{where}: {path}: {opened}")
        files.append(opened)
    known = {name: kind for file in files for name, kind in file.kinds.items() if kind not in (pl.String, pl.Null)}
    frames = []
    for file in files:
        kinds = {name: known.get(name, pl.String()) if kind == pl.Null else kind for name, kind in file.kinds.items()}
        _same_columns(files[0], file, {**files[0].kinds, **known}, kinds, where)
        is_text = file.suffix in _SEPARATORS
        frames.append(file.frame.select(typed(kinds, strict=True)) if is_text else file.frame)
    return pl.concat(frames, how="diagonal_relaxed")


def side(pattern: str | Sequence[str] | None, since: str | None, base: Path, where: str) -> LazySideTable | None:
    """A table of users or items, with its valid-from column, if any; None if the spec names no such table."""
    return None if pattern is None else LazySideTable(table(pattern, base, where), since)


def refuse_since(pattern: str | Sequence[str] | None, since: str | None, where: str) -> None:
    """SpecError for a valid-from column of a table that the spec does not name."""
    if pattern is None and since is not None:
        raise SpecError(f"{where}_since: {since!r} is a column of {where}, which is not given")


def condition(sql: str | None, where: str) -> pl.Expr | None:
    """A parsed SQL expression, None for none; SpecError for invalid SQL."""
    if sql is None:
        return None
    try:
        return pl.sql_expr(sql)
    except pl.exceptions.PolarsError as error:
        raise SpecError(f"{where}: not an SQL expression: {first_line(error)}") from None


def where_true(pieces: Sequence[Piece], sql: str | None, where: str) -> tuple[Piece, ...]:
    """The pieces filtered by an SQL condition; SpecError for invalid SQL or an unknown column.

    A column of a CSV has the type inferred from its first rows.
    """
    is_true = condition(sql, where)
    if is_true is None:
        return tuple(pieces)
    filtered = []
    for piece in pieces:
        read = is_true.meta.root_names()
        lacking = [column for column in read if column not in piece.kinds]
        if lacking:
            raise SpecError(f"{where}: no column {lacking[0]!r} in {piece.name}{nearest(lacking[0], piece.kinds)}")
        frame = piece.frame
        if piece.text:
            frame = frame.with_columns(typed({column: piece.kinds[column] for column in read}, strict=False))
        filtered.append(replace(piece, frame=frame.filter(is_true)))
        _refuse_invalid(is_true, {column: piece.kinds[column] for column in read}, f"{where}: {sql!r}")
    return tuple(filtered)


def _refuse_invalid(condition: pl.Expr, kinds: Mapping[str, pl.DataType], where: str) -> None:
    """SpecError for a condition that cannot be evaluated on columns of these types, or is not boolean."""
    try:
        kind = pl.DataFrame({name: [None] for name in kinds}, schema=kinds).select(condition).dtypes[0]
    except pl.exceptions.PolarsError as error:
        raise SpecError(f"{where} cannot be evaluated: {first_line(error)}") from None
    if kind != pl.Boolean:
        raise SpecError(f"{where}: expected true or false for a row, got {kind}; write a comparison")


def _suffix(path: Path) -> str:
    return ".csv.gz" if path.name.endswith(".csv.gz") else path.suffix.lower()


def _opened(path: Path, where: str) -> _File | str:
    """A file, or why it cannot be read."""
    suffix = _suffix(path)
    if suffix not in _KNOWN:
        raise DataError(f"{where}: {path}: expected one of {', '.join(_KNOWN)}, got {suffix or 'no suffix'!r}")
    try:
        file = _text(path, suffix) if suffix in _SEPARATORS else _typed_file(path, suffix)
    except pl.exceptions.NoDataError:
        return "expected at least one row, got an empty file"
    except _BROKEN as error:
        return f"truncated, or not a {suffix} file: {first_line(error)}"
    ours = reserved(file.kinds)
    if ours is not None:
        return f"has a column {ours!r}, which is a name of ours; rename it"
    return "expected at least one row, got an empty table" if file.rows == 0 else file


def _typed_file(path: Path, suffix: str) -> _File:
    frame = _SCANS[suffix](path)
    kinds = frame.collect_schema()
    return _File(path, suffix, frame, kinds, frame.select(pl.len()).collect().item())


def _text(path: Path, suffix: str) -> _File:
    """A CSV: every column as text, with its inferred type; that of an empty column is Null."""
    separator = _SEPARATORS[suffix]
    looks = pl.scan_csv(
        path, separator=separator, infer_schema_length=_INFER, truncate_ragged_lines=True, glob=False
    ).collect_schema()
    frame = pl.scan_csv(
        path,
        separator=separator,
        schema=dict.fromkeys([*looks, EXTRA], pl.String()),
        missing_columns="insert",
        truncate_ragged_lines=True,
        encoding="utf8-lossy",
        glob=False,
    )
    head = frame.head(_INFER).collect()
    kinds = {name: pl.Null() if head[name].null_count() == len(head) else kind for name, kind in looks.items()}
    return _File(path, suffix, frame, kinds, 0 if head.is_empty() else None)


def typed(kinds: Mapping[str, pl.DataType], *, strict: bool) -> Iterator[pl.Expr]:
    """Text columns cast to their inferred types; where that fails null, or with `strict` a polars error."""
    for name, kind in kinds.items():
        column = pl.col(name)
        truth = (column.str.to_lowercase() == "true").alias(name)
        yield truth if kind == pl.Boolean else column.cast(kind, strict=strict)


def _pieces(file: _File, base: Path, index: str | None) -> Iterator[Piece]:
    """One piece of a file, or several of a large one, split between row groups so that none is read twice."""
    name, size = short(file.path, base), file.path.stat().st_size
    kinds = dict(file.kinds) if index is None else {**file.kinds, index: pl.UInt32()}
    if file.rows is None:
        torn = _torn(file)
        frame = file.frame if torn is None else file.frame.head(file.frame.select(pl.len()).collect().item() - 1)
        frame = frame if index is None else frame.with_row_index(index)
        yield Piece(frame, name, kinds=kinds, text=True, size=size, torn=torn)
        return
    about = pq.read_metadata(file.path) if file.suffix == ".parquet" else None
    edges = row_groups.edges(about, file.rows, ROWS)
    for first, last in pairwise(edges):
        frame, called = file.frame, name
        if len(edges) > 2:
            frame, called = frame.slice(first, last - first), f"{name} from row {first}"
        frame = frame if index is None else frame.with_row_index(index, offset=first)
        spans = {} if about is None else row_groups.spans(about, first, last)
        share = size * (last - first) // file.rows
        yield Piece(frame, called, kinds=kinds, spans=spans, size=share, rows=last - first)


def _torn(file: _File) -> str | None:
    """Why the last row of a CSV is truncated: no line end, and fewer values than columns."""
    if file.suffix == ".csv.gz":
        return None
    with file.path.open("rb") as handle:
        handle.seek(max(0, file.path.stat().st_size - _TAIL))
        last = handle.read().rpartition(b"\n")[2]
    values = last.count(_SEPARATORS[file.suffix].encode()) + 1
    if not last or b'"' in last or values >= len(file.kinds):
        return None
    return f"truncated: its last row has {values} of {len(file.kinds)} values"


def _same_columns(
    first: _File, file: _File, expected: Mapping[str, pl.DataType], got: Mapping[str, pl.DataType], where: str
) -> None:
    """Files read together have the same columns; integers may differ in width."""
    for name in sorted(set(first.kinds) ^ set(got)):
        lacking, having = (file, first) if name in first.kinds else (first, file)
        raise DataError(f"{where}: {lacking.path}: no column {name!r}, which {having.path} has")
    for name, kind in got.items():
        other = first.kinds[name] if first.kinds[name] != pl.Null() else expected[name]
        if kind != other and pl.Null not in (kind, other) and not (kind.is_numeric() and other.is_numeric()):
            raise DataError(
                f"{where}: {file.path}: column {name!r}: expected {other} as in {first.path.name}, got {kind}"
            )
