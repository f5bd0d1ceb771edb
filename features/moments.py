"""Columns that say when: dates, datetimes, ISO text or counts since 1970, as moments in microseconds, UTC."""

from __future__ import annotations

from typing import Literal

import polars as pl

from rec.errors import DataError

MOMENT = pl.Datetime("us", "UTC")
TIME = "@time"  # the moment of an impression, parsed; no column of a log is called so
Unit = Literal["s", "ms", "us", "ns"]
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_LAST_SECOND = 7_258_118_400  # the year 2200: beyond it a unit is mistaken more likely than meant


def moments(column: pl.Series, *, unit: Unit, where: str) -> pl.Series:
    """The column as `timestamp[us, UTC]`; a moment without a zone is UTC, a number counts `unit`s since 1970.

    >>> moments(pl.Series([0, 3]), unit="s", where="time").dt.timestamp("ms").to_list()
    [0, 3000]
    """
    kind = column.dtype
    if isinstance(kind, pl.Datetime):
        return (column.dt.replace_time_zone("UTC") if kind.time_zone is None else column).cast(MOMENT)
    if kind == pl.Date:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if kind == pl.String:
        return _parsed(column, where)
    if kind.is_numeric():
        return _counted(column, unit, where)
    if kind == pl.Null:
        return column.cast(MOMENT)
    raise DataError(f"{where}: expected moments, got {kind}")


def _parsed(column: pl.Series, where: str) -> pl.Series:
    """ISO text; rows may differ in how many digits of a second they write, so formats are tried until none is left."""
    done = pl.Series(column.name, [None] * len(column), MOMENT)
    while True:
        left = column.is_not_null() & done.is_null()
        rest = column.filter(left)
        if rest.is_empty():
            return done
        try:
            found = rest.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        except pl.exceptions.PolarsError:
            found = pl.Series([None] * len(rest), dtype=MOMENT)
        if found[0] is None:
            raise DataError(f"{where}: expected a moment such as '2026-03-02T08:30:00+00:00', got {rest[0]!r}")
        done = done.scatter(left.arg_true(), found)


def _counted(column: pl.Series, unit: Unit, where: str) -> pl.Series:
    largest = column.abs().max()
    if isinstance(largest, int | float) and largest > _LAST_SECOND * _PER_SECOND[unit]:
        right = next((u for u, per in _PER_SECOND.items() if largest <= _LAST_SECOND * per), None)
        hint = f"; did you mean '{right}'?" if right else ""
        raise DataError(f"{where}: {largest} is beyond the year 2200 when counted in {unit!r} (keys.time_unit){hint}")
    if column.dtype.is_integer():
        counted = column.cast(pl.Int64)
        scaled = counted // 1000 if unit == "ns" else counted * (10**6 // _PER_SECOND[unit])
    else:
        scaled = (column.cast(pl.Float64) * (10**6 / _PER_SECOND[unit])).round().cast(pl.Int64)
    return scaled.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
