"""The types of what lists of requests hold: ids as the item's feature says, anything else as it is found.

What a list in text holds is inferred from its first rows. Text of which nobody says what separates it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from features.logs import column_types, list_text
from features.logs.dtypes import cast, cleaned, plain
from features.logs.logs import Piece, columns_in
from rec.errors import DataError, nearest
from rec.spec import Spec

_LOOK = 1000  # rows of a file
_CODE = r"^[+-]?0\d"  # a number that is none, since it would lose zeros


def element_types(
    spec: Spec, pieces: Sequence[Piece], lists: Sequence[str], *, ids: Sequence[str], split: str | None
) -> dict[str, pl.DataType]:
    """The element type of each of some list columns; `ids` are those of items, the first of them what was shown.

    Raises DataError for a column that no file has, for lists of objects, and for text that is not separated.
    """
    has = columns_in(pieces)
    inner: dict[str, pl.DataType] = {}
    for column in lists:
        if column not in has:
            hint = nearest(column, has) or "; it has " + ", ".join(name for name in has if not name.startswith("@"))
            raise DataError(f"source.files: no column {column!r}{hint}")
        kind = plain(has[column])
        inner[column] = pl.Series([], dtype=kind.inner).dtype if isinstance(kind, pl.List) else kind
        if isinstance(inner[column], pl.Struct):
            such = next((name for name in has if name.startswith(f"{column}.")), f"{column}.field")
            raise DataError(
                f"source.files: column {column!r}: expected lists of ids, got {kind}; name a field, such as {such}"
                f"{_example(pieces, column)}"
            )
        if any(piece.text for piece in pieces) or inner[column] == pl.String:
            inner[column] = _words(pieces, column, split)
    declared = column_types.declared_type(spec, str(spec.keys.item))
    inferred = pl.Int64() if inner[ids[0]].is_numeric() else pl.String()
    inner |= dict.fromkeys(ids, inferred if declared is None else declared)
    for column, kind in inner.items():
        if kind == pl.String and split is None:
            _refuse_unseparated(pieces, column)
    return inner


def _example(pieces: Sequence[Piece], column: str) -> str:
    """The first element of a column that has one: `; the first is {'item': 7} (log.parquet)`."""
    for piece in pieces:
        if column in piece.kinds:
            values = piece.frame.select(column).head(_LOOK).collect().to_series()
            for value in values.drop_nulls().to_list():
                if value:
                    return f"; the first is {value[0] if isinstance(value, list) else value!r} ({piece.name})"
    return ""


def _head(pieces: Sequence[Piece], column: str) -> list[pl.Series]:
    """The first rows of a column where it is text, file by file."""
    first = {piece.file: piece for piece in reversed(pieces) if column in piece.kinds}
    heads = [cleaned(piece.frame.select(column).head(_LOOK).collect().to_series()) for piece in first.values()]
    return [head for head in heads if head.dtype == pl.String]


def _words(pieces: Sequence[Piece], column: str, split: str | None) -> pl.DataType:
    """The element type of lists in text: int64, float64 or text."""
    lists = [list_text.pieces(head, split=split, numbers=split is None) for head in _head(pieces, column)]
    words = [several.explode().drop_nulls() for several in lists]
    for kind in (pl.Int64(), pl.Float64()):
        if all(cast(some, kind).is_not_null().all() and not some.str.contains(_CODE).any() for some in words):
            return kind
    return pl.String()


def _refuse_unseparated(pieces: Sequence[Piece], column: str) -> None:
    for head in _head(pieces, column):
        listed = list_text.looks_listed(head)
        if listed.any():
            raise DataError(
                f"source.files: column {column!r}: expected a list, got the text {head.filter(listed)[0]!r}; "
                'say what separates its elements, such as source.split = "|"'
            )
