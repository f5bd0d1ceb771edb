"""Tables of users and items as typed rows: by the rules of every log, but no row of them may be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from features.logs import column_types
from features.logs.dtypes import Notation, cast, failed
from features.logs.forms import EXTRA
from features.logs.logs import Finding, Piece, collect, kinds_of
from rec.errors import DataError
from rec.spec import Spec

_EXAMPLES = 3


def typed(
    spec: Spec, name: str, pieces: Sequence[Piece], own: Mapping[str, str], kinds: Mapping[str, pl.DataType]
) -> tuple[pl.DataFrame, list[Finding]]:
    """The rows of all files, and values that may be meant otherwise; `own` is what the files call each column.

    `kinds` are given types; other columns have the one that the spec says, or their own. Raises DataError for a value
    of another type.
    """
    types = {
        column: kinds.get(column) or column_types.kind_of(spec, column, _found(pieces, called), name)
        for column, called in own.items()
    }
    rows, doubts = list[pl.DataFrame](), list[Finding]()
    for piece in pieces:
        raw = _raw(name, piece, own)
        columns = [_column(spec, f"{name}: {piece.name}", raw[c], kind, own[c]) for c, kind in types.items()]
        rows.append(pl.DataFrame(columns))
        for values in columns:
            for doubt in column_types.doubts(raw[values.name], values, column_types.split_of(spec, values.name)):
                got = tuple(
                    f"got {value!r} ({piece.name})" for value in raw[values.name].filter(doubt.rows).head(_EXAMPLES)
                )
                doubts.append(Finding(name, True, int(doubt.rows.sum()), len(raw), got, doubt.reason, "warn"))
    return pl.concat(rows), doubts


def _found(pieces: Sequence[Piece], called: str) -> list[tuple[pl.DataType, bool]]:
    return [(kinds_of(piece)[called], piece.text) for piece in pieces]


def _raw(name: str, piece: Piece, own: Mapping[str, str]) -> pl.DataFrame:
    """The columns of a file; DataError for a row of more values than columns."""
    extra = [EXTRA] if piece.text else []
    raw = collect(piece.frame.select(*(pl.col(called).alias(column) for column, called in own.items()), *extra), name)
    if extra and raw[EXTRA].null_count() < len(raw):
        first = raw.filter(pl.col(EXTRA).is_not_null()).row(0)[0]
        raise DataError(f"{name}: {piece.name}: a row with more values than there are columns: {first!r}")
    return raw


def _column(spec: Spec, where: str, values: pl.Series, kind: pl.DataType, called: str) -> pl.Series:
    column, how = values.name, Notation.of(spec)
    key = column in (spec.keys.user, spec.keys.item)
    typed_values = cast(values, kind, how, split=column_types.split_of(spec, column), key=key)
    lost = failed(values, typed_values, how)
    if lost.any():
        expected = column_types.called(spec, column, kind)
        raise DataError(f"{where}: column {called!r}: expected {expected}, got {values.filter(lost)[0]!r}")
    return typed_values
