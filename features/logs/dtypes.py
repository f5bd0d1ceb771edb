"""Casts of a column to one type for all files: how values convert, and which become null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from features.logs.logs import listed
from features.logs.timestamps import MOMENT, Unit, parse


@dataclass(frozen=True)
class Fault:
    """Why some rows are unusable: `rows` [n] bool; `got` [n] are the offending values, if they help."""

    reason: str
    rows: pl.Series
    got: pl.Series | None = None


def supertype(kinds: Sequence[pl.DataType]) -> pl.DataType:
    """The common type of a column whose type differs between files.

    >>> supertype([pl.Int32(), pl.Float64()]), supertype([pl.Int64(), pl.String()])
    (Float64, String)
    """
    if len(kinds) == 1:
        return kinds[0]
    inner = [kind.inner for kind in kinds if isinstance(kind, pl.List | pl.Array)]
    if inner:
        return pl.List(supertype([*dict.fromkeys(pl.Series([], dtype=kind).dtype for kind in inner)]))
    if any(kind.is_temporal() for kind in kinds):
        return MOMENT
    if all(kind.is_numeric() or kind == pl.Boolean for kind in kinds):
        return pl.Float64() if any(kind.is_float() for kind in kinds) else pl.Int64()
    return pl.String()


def cast(values: pl.Series, kind: pl.DataType, *, unit: Unit) -> pl.Series:
    """The values cast to another type; null where the cast fails, and for NaN and empty text.

    >>> cast(pl.Series(["7", "7.0", "bob"]), pl.Int64(), unit="s").to_list()
    [7, 7, None]
    """
    if values.dtype == kind:
        return values
    if isinstance(kind, pl.List):
        return _lists(values, kind)
    if kind == MOMENT:
        return parse(values, unit=unit, where=values.name)
    if values.dtype.is_nested():
        return pl.Series(values.name, [None], kind).new_from_index(0, len(values))
    if values.dtype == pl.String:
        return _from_text(values, kind)
    if values.dtype.is_float() and (kind.is_integer() or kind == pl.String):
        whole = values.fill_nan(None).cast(pl.Int64, strict=False)
        whole = whole.set((whole.cast(pl.Float64) != values).fill_null(value=False), None)
        return whole.cast(kind, strict=False) if kind != pl.String else whole.cast(kind).fill_null(values.cast(kind))
    return values.cast(kind, strict=False)


def failed(values: pl.Series, converted: pl.Series) -> pl.Series:
    """Which values were lost in a cast."""
    lost = converted.is_null() & values.is_not_null()
    if values.dtype.is_float() and lost.any():
        lost &= values.is_not_nan()
    if values.dtype == pl.String and lost.any():
        lost &= values.str.strip_chars() != ""
    return lost


def _from_text(values: pl.Series, kind: pl.DataType) -> pl.Series:
    if kind == pl.Boolean:
        words = values.str.strip_chars().str.to_lowercase()
        truth = pl.when(words.is_in(["true", "1"])).then(True).when(words.is_in(["false", "0"])).then(False)
        return pl.select(truth.alias(values.name)).to_series()
    converted = values.cast(kind, strict=False)
    if converted.null_count() == values.null_count():
        return converted
    bare = values.str.strip_chars()
    converted = converted.fill_null(bare.cast(kind, strict=False))
    return (
        converted.fill_null(cast(bare.cast(pl.Float64, strict=False), kind, unit="s"))
        if kind.is_integer()
        else converted
    )


def _lists(values: pl.Series, kind: pl.List) -> pl.Series:
    if values.dtype == pl.String or isinstance(values.dtype, pl.List | pl.Array):
        text = values.to_frame().select(listed(values.name, values.dtype)).to_series()
        return text.cast(kind, strict=False)
    return pl.Series(values.name, [None], kind).new_from_index(0, len(values))
