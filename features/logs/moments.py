"""Whether a column of a log looks like timestamps, from its first rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl

from features.logs import timestamps
from features.logs.dtypes import cleaned
from features.logs.logs import Piece, collect, kinds_of
from rec.errors import DataError, SpecError
from rec.spec import Spec

LOOK = 1000  # rows of a file
_FIRST, _LAST = datetime(1990, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_MOST = 0.99  # of the values


def looks_like_moments(spec: Spec, pieces: Sequence[Piece], column: str) -> bool:
    """Whether nearly all values of a column are timestamps after 1990, in a form of keys.time; False for no value."""
    keys = spec.keys
    for piece in pieces:
        if column not in kinds_of(piece):
            continue
        values = cleaned(_head(piece, column), spec.logs.missing).drop_nulls()
        if values.is_empty() or values.dtype == pl.Boolean or values.dtype.is_nested():
            continue
        try:
            times = timestamps.of_outcomes(
                values, kinds_of(piece)[column], keys.time_unit, keys.time_format, keys.time_zone
            )
        except (DataError, SpecError):
            return False
        return bool(times.is_between(_FIRST, _LAST).fill_null(value=False).mean() >= _MOST)  # type: ignore[operator]
    return False


def _head(piece: Piece, column: str) -> pl.Series:
    """The values of a column in the first rows of a piece."""
    frame = piece.frame.head(LOOK) if piece.turn is not None else piece.frame.select(column).head(LOOK)
    rows = collect(frame, piece.name)
    return (rows if piece.turn is None else piece.turn(rows))[column]
