"""Logs: the result of reading a source, in one shape: one row per shown candidate, and tables of users and items.

    impressions   user_id  item_id  time   position  click  dwell ...     one row per shown candidate, labels too
    users         user_id  age  city ...                                  one row per user, or none
    items         item_id  price  brand  seller ...                       one row per item, or none

Files are Parquet, CSV, TSV, JSON lines or Arrow, by path or glob relative to the spec's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import polars as pl

from rec.errors import DataError

BAD = "@bad"  # why a row that a `turn` made cannot be used; null: it can


@dataclass(frozen=True)
class Finding:
    """The result of a check: `count` rows of `total` are wrong, `examples` are the first few of them.

    `level`: "fail"; "warn", which passes; or "note", something that a rule handled.
    """

    name: str
    passed: bool
    count: int
    total: int
    examples: tuple[str, ...]
    text: str
    level: Literal["fail", "warn", "note"] = "fail"


@dataclass(frozen=True)
class Piece:
    """A part of a log that one task reads in batches: a file, or a range of a large file's rows.

    `turn` converts the columns `reads` of a batch to impressions, if the file has another layout. It must be picklable:
    a module's function, or a partial of one. A row that it cannot use is returned with the reason in the column BAD.

    `spans` are the least and the largest value of columns of a file that says so.
    `kinds` are the columns that come out of it; of a file of text (`text`) what its first rows look like. `size` is the
    file's, or its share of it, in bytes, `rows` how many the file says it has, `file` its number among the files of the
    log. `torn` says what is wrong with a file whose last row was left out.
    """

    frame: pl.LazyFrame
    name: str
    turn: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    reads: tuple[str, ...] = ()
    kinds: Mapping[str, pl.DataType] = field(default_factory=dict[str, pl.DataType])
    spans: Mapping[str, tuple[object, object]] = field(default_factory=dict[str, tuple[object, object]])
    text: bool = False
    size: int = 0
    rows: int = 0
    file: int = 0
    torn: str | None = None


@dataclass(frozen=True)
class LazySideTable:
    """A table of users or of items: one row per key, or several, each valid from its timestamp `since`.

    `pieces` are its files; without them it is `frame`.
    """

    frame: pl.LazyFrame
    since: str | None = None
    pieces: tuple[Piece, ...] = ()

    def parts(self, name: str) -> tuple[Piece, ...]:
        """What it is read from; `name` is what it is called in errors."""
        return self.pieces or (Piece(self.frame, name),)


@dataclass(frozen=True)
class EventLog:
    """A log of events to be attributed to impressions; its key and time columns have the impressions' names.

    `unmatched` is the share of events that may belong to no impression.
    """

    pieces: tuple[Piece, ...]
    values: tuple[str, ...] = ()
    within: timedelta | None = None
    by_request: bool = False
    unmatched: float = 0.5


@dataclass(frozen=True)
class Logs:
    """Impressions, one row per shown candidate; event logs, if events are logged separately; users and items.

    `findings` are the source's findings on files, such as a truncated one; `columns` is the folder of user columns.
    """

    impressions: tuple[Piece, ...]
    users: LazySideTable | None = None
    items: LazySideTable | None = None
    happened: Mapping[str, EventLog] = field(default_factory=dict[str, EventLog])
    findings: tuple[Finding, ...] = ()
    columns: Path | None = None

    @classmethod
    def whole(
        cls, impressions: pl.LazyFrame, users: pl.LazyFrame | None = None, items: pl.LazyFrame | None = None
    ) -> Logs:
        """Logs of one piece, and side tables of one row per key."""
        shown = (Piece(impressions, "impressions"),)
        return cls(
            shown, None if users is None else LazySideTable(users), None if items is None else LazySideTable(items)
        )


def kinds_of(piece: Piece) -> Mapping[str, pl.DataType]:
    """The output columns of a piece and their types; of text, the inferred ones."""
    if piece.kinds:
        return piece.kinds
    if piece.turn is None:
        return columns_of(piece.frame, piece.name)
    return piece.turn(collect(piece.frame.head(1), piece.name)).schema


def columns_in(pieces: Sequence[Piece]) -> dict[str, pl.DataType]:
    """The union of the pieces' columns, each with the first type that is not Null."""
    dtypes: dict[str, pl.DataType] = {}
    for piece in pieces:
        for name, kind in kinds_of(piece).items():
            if dtypes.get(name, pl.Null()) == pl.Null():
                dtypes[name] = kind
    return dtypes


def collect(frame: pl.LazyFrame, where: str) -> pl.DataFrame:
    """The rows of a lazy frame; DataError when a file is broken, or there are no rows."""
    try:
        rows = frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{where}: cannot be read: {first_line(error)}") from None
    if rows.is_empty():
        raise DataError(f"{where}: expected at least one row, got an empty table")
    return rows


def columns_of(frame: pl.LazyFrame, where: str) -> pl.Schema:
    """Column names and types, without reading rows."""
    try:
        return frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{where}: cannot be read: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
