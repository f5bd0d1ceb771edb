"""Log files, by path or glob, as pieces that are read one by one; and files of users or items as one table.

A file of any form (features/logs/forms.py) may have columns in the names of its folders
(features/logs/folder_columns.py). A CSV is read as text, beside it the types that its first rows look like, so that a
later row of another type is one bad row and not an unreadable file. A file without rows is nothing; one among several
that cannot be opened is dropped and reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from features.logs import folder_columns, nested_fields, row_groups, sql
from features.logs.copies import name_of, place_of
from features.logs.dtypes import Notation, cast
from features.logs.forms import LogFile, opened
from features.logs.logs import Finding, LazySideTable, Piece
from features.logs.paths import paths_of, repeated, short
from rec.errors import DataError, SpecError, nearest
from rec.spec import LogRules

ROWS = 1_000_000  # of a piece, about
REPEATED = "files that several paths or globs name: each is read once"
_RAW = "@raw."  # a column as the file has it, beside the one that a condition compares
_RULES = LogRules()


def scan(
    pattern: str | Sequence[str], base: Path, where: str, rules: LogRules = _RULES, *, index: str | None = None
) -> tuple[tuple[Piece, ...], tuple[Finding, ...]]:
    """One piece per file of a path or glob (or several), several for a large file; and findings on skipped files.

    `rules` say which share of all bytes may be skipped without failing, and how text files are written. `index` names a
    column for the row number within the file.

    Raises DataError for a missing file, for an unknown format, and if no readable file is left.
    """
    pieces: list[Piece] = []
    paths = paths_of(pattern, base, where)
    files, broken, empty = _opened(paths, base, where, rules)
    keys = nested_fields.map_keys((file.frame, file.kinds) for file in files.values())
    for number, path in enumerate(paths):
        if path in files:
            pieces += (replace(piece, file=number) for piece in _pieces(files[path], base, index, keys))
    if not pieces:
        path, reason = broken[0] if broken else (empty[0], "expected at least one row, got an empty file")
        raise DataError(f"{where}: {name_of(path) or path}: {reason}")
    sizes, allowed = {path: path.stat().st_size for path in paths}, rules.bad_rows
    share = sum(sizes[path] for path, _ in broken) / max(1, sum(sizes.values()))
    text = "left out" if share <= allowed else f"left out; logs.bad_rows allows {allowed:.1%}, these are {share:.1%}"
    level = "warn" if share <= allowed else "fail"
    findings = [
        Finding(where, share <= allowed, 1, len(paths), (), f"{short(path, base)}: {reason}; {text}", level)
        for path, reason in broken
    ]
    if empty:
        names = tuple(short(path, base) for path in empty[:3])
        findings.append(Finding(where, True, len(empty), len(paths), names, "files without a row", "note"))
    again = repeated(pattern, base, where)
    if again:
        findings.append(Finding(where, True, len(again), len(paths), tuple(again[:3]), REPEATED, "note"))
    return tuple(pieces), tuple(findings)


def table(pattern: str | Sequence[str], base: Path, where: str) -> pl.LazyFrame:
    """The typed rows of all files, concatenated: for tables whose columns the source knows; none may be skipped.

    Raises DataError for a missing or unreadable file and for files whose columns differ.
    """
    return pl.concat([typed(piece) for piece in _whole(pattern, base, where, _RULES)], how="diagonal_relaxed")


def side(
    pattern: str | Sequence[str] | None, since: str | None, base: Path, where: str, rules: LogRules = _RULES
) -> LazySideTable | None:
    """A table of users or items, with its valid-from column, if any; None if the spec names no such table.

    Raises DataError for a missing or unreadable file and for files whose columns differ.
    """
    if pattern is None:
        return None
    pieces = _whole(pattern, base, where, rules)
    return LazySideTable(pieces[0].frame, since, pieces)


def typed(piece: Piece) -> pl.LazyFrame:
    """The frame of a piece, text as what it looks like."""
    if not piece.text:
        return piece.frame
    return piece.frame.select(
        pl.col(name).map_batches(partial(cast, kind=kind), return_dtype=kind) for name, kind in piece.kinds.items()
    )


def refuse_since(pattern: str | Sequence[str] | None, since: str | None, where: str) -> None:
    """SpecError for a valid-from column of a table that the spec does not name."""
    if pattern is None and since is not None:
        raise SpecError(f"{where}_since: {since!r} is a column of {where}, which is not given")


def condition(text: str | None, where: str) -> None:
    """SpecError naming `where` for text that is not an SQL expression."""
    if text is not None:
        sql.columns(text, where)


def where_true(pieces: Sequence[Piece], text: str | None, where: str, how: Notation | None = None) -> tuple[Piece, ...]:
    """The pieces filtered by an SQL condition; no value is changed. SpecError for invalid SQL or an unknown column."""
    if text is None:
        return tuple(pieces)
    filtered = []
    for piece in pieces:
        read = sql.columns(text, where)
        lacking = [column for column in read if column not in piece.kinds]
        if lacking:
            raise SpecError(f"{where}: no column {lacking[0]!r} in {piece.name}{nearest(lacking[0], piece.kinds)}")
        own = {column: piece.kinds[column] for column in read}
        kinds = sql.suited(text, own, lambda kind: kind == pl.Boolean)
        if kinds is None:
            raise SpecError(f"{where}: {text!r} cannot be evaluated: {sql.refused(text, own)}")
        kind = sql.kind_of(text, kinds)
        if kind != pl.Boolean:
            raise SpecError(f"{where}: {text!r}: expected true or false for a row, got {kind}; write a comparison")
        filtered.append(replace(piece, frame=_filtered(piece, text, kinds, how or Notation())))
    return tuple(filtered)


def _filtered(piece: Piece, text: str, kinds: Mapping[str, pl.DataType], how: Notation) -> pl.LazyFrame:
    """The rows of which a condition is true, where columns of it are compared as other types, but not changed."""
    changed = [
        column
        for column, kind in kinds.items()
        if not (kind.is_integer() and piece.kinds[column] == kind) or piece.text
    ]
    converted = [
        pl.col(column).map_batches(partial(cast, kind=kinds[column], how=how), return_dtype=kinds[column])
        for column in changed
    ]
    frame = piece.frame.with_columns(pl.col(column).alias(_RAW + column) for column in changed)
    frame = frame.with_columns(converted).filter(sql.expression(text, kinds))
    back = frame.with_columns(pl.col(_RAW + column).alias(column) for column in changed)
    return (
        back.drop([_RAW + column for column in changed]) if changed else piece.frame.filter(sql.expression(text, kinds))
    )


def _opened(
    paths: Sequence[Path], base: Path, where: str, rules: LogRules
) -> tuple[dict[Path, LogFile], list[tuple[Path, str]], list[Path]]:
    """Files with the columns of their folders; those that cannot be read, each with why; those without a row."""
    files: dict[Path, LogFile] = {}
    broken, empty = list[tuple[Path, str]](), list[Path]()
    for path in paths:
        file = opened(path, where, rules)
        if file is None:
            empty.append(path)
        elif isinstance(file, str):
            broken.append((path, file))
        else:
            files[path] = file
    columns = {path: folder_columns.folder_columns(place_of(path), base) for path in files}
    kinds = folder_columns.kinds_of([*columns.values()])
    return {path: folder_columns.added(file, columns[path], kinds) for path, file in files.items()}, broken, empty


def _whole(pattern: str | Sequence[str], base: Path, where: str, rules: LogRules) -> tuple[Piece, ...]:
    """Files of the same columns, of which none may be skipped, a piece each."""
    files, broken, empty = _opened(paths_of(pattern, base, where), base, where, rules)
    if broken or not files:
        path, reason = broken[0] if broken else (empty[0], "expected at least one row, got an empty file")
        raise DataError(f"{where}: {name_of(path) or path}: {reason}")
    first = next(iter(files.values()))
    for file in files.values():
        for name in sorted(set(first.kinds) ^ set(file.kinds)):
            both = (file, first) if name in first.kinds else (first, file)
            lacking, having = (name_of(place.path) or place.path for place in both)
            raise DataError(f"{where}: {lacking}: no column {name!r}, which {having} has")
    whole = []
    keys = nested_fields.map_keys((file.frame, file.kinds) for file in files.values())
    for file in files.values():
        frame, kinds = nested_fields.with_fields(file.frame, file.kinds, keys)
        whole.append(Piece(frame, short(file.path, base), kinds=kinds, text=file.text, torn=file.torn))
    return tuple(whole)


def _pieces(file: LogFile, base: Path, index: str | None, keys: nested_fields.Keys) -> Iterator[Piece]:
    """One piece of a file, or several of a large one, split between row groups so that none is read twice."""
    name, size = short(file.path, base), file.path.stat().st_size
    whole, own = nested_fields.with_fields(file.frame, file.kinds, keys)
    kinds = own if index is None else {**own, index: pl.UInt32()}
    if file.rows is None:
        frame = whole if index is None else whole.with_row_index(index)
        yield Piece(frame, name, kinds=kinds, text=True, size=size, torn=file.torn)
        return
    about = pq.read_metadata(file.path) if file.form == ".parquet" else None
    edges = row_groups.edges(about, file.rows, ROWS)
    for first, last in pairwise(edges):
        frame, called = whole, name
        if len(edges) > 2:
            frame, called = frame.slice(first, last - first), f"{name} from row {first}"
        frame = frame if index is None else frame.with_row_index(index, offset=first)
        spans = {} if about is None else row_groups.spans(about, first, last)
        share = size * (last - first) // file.rows
        yield Piece(frame, called, kinds=kinds, spans=spans, size=share, rows=last - first)
