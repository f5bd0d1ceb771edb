"""The SQL of labels: which columns an expression reads, and its value for every impression.

    label = "clicked AND dwell >= 30"        a column of 0 and 1 may stand as a condition
    label = "view"                           a column alone may be called by a keyword, or with dots
    label = "clicked_at IS NOT NULL"         a column of timestamps

In a comparison with numbers, timestamps are counts of keys.time_unit, as keys.time is where that is a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import polars as pl

from features.logs import sql
from features.logs.dtypes import Notation
from features.logs.timestamps import MOMENT
from rec.errors import SpecError, nearest
from rec.spec import Spec

_ALONE = 16  # rows on which a label is evaluated again, each alone, to see that it reads its own row only
_UNITS = {"s": 1_000_000, "ms": 1000, "us": 1}


def columns(where: str, label: str, *, key: str = "label") -> list[str]:
    """The columns a label reads; SpecError naming `where` and the key when it is not an SQL expression."""
    try:
        return list(dict.fromkeys(sql.parsed(label).meta.root_names()))
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        hint = "; a column's name that SQL does not take for one goes in double quotes"
        raise SpecError(f"{where}.{key}: not an SQL expression: {reason}{hint}") from None


def is_moment(label: str, column: str) -> bool:
    """Whether a label says no more of a column than that it has a value: `clicked_at`, `clicked_at IS NOT NULL`."""
    return re.fullmatch(rf"\s*\"?{re.escape(column)}\"?(\s+is\s+not\s+null)?\s*", label, re.IGNORECASE) is not None


def evaluated(
    spec: Spec,
    place: str,
    label: str,
    rows: pl.DataFrame,
    fits: Callable[[pl.DataType], bool] = sql.any_kind,
    *,
    key: str = "label",
) -> pl.Series:
    """The expression of a label or another key, one value per impression, of a type that fits where there is one."""
    where = f"{place}.{key}"
    for column in columns(place, label, key=key):
        if column not in rows.columns:
            raise SpecError(f"{where}: no column {column!r} in the logs{nearest(column, rows.columns)}")
    try:
        read, expression = sql.typed(label, _counted(spec, place, label, rows), where, fits, Notation.of(spec))
        values = read.select(expression.alias("label"))["label"]
        if len(values) == 1 and key != "label" and not columns(place, label, key=key):  # a constant
            return values.new_from_index(0, len(rows))
        if len(values) != len(rows):
            raise SpecError(
                f"{where}: expected one value per impression, got {len(values)} for {len(rows)} impressions"
            )
        alone = [read[i].select(expression.alias("label"))["label"] for i in _some(values)]
        own = all(_same(value, values[i : i + 1]) for i, value in zip(_some(values), alone, strict=True))
    except pl.exceptions.PolarsError as error:
        raise SpecError(f"{where}: {label!r} cannot be evaluated: {str(error).splitlines()[0]}") from None
    if not own:
        raise SpecError(
            f"{where}: {label!r} depends on other rows of the log (an aggregate or a window function); "
            "expected an expression of the impression's own row"
        )
    return values


def _same(value: pl.Series, expected: pl.Series) -> bool:
    """Equal, numbers but for rounding: many rows are not divided by the same instructions as one."""
    if value.dtype.is_float() and expected.dtype.is_float() and len(value) == len(expected):
        sides = [side.cast(pl.Float64).fill_null(float("nan")).to_numpy() for side in (value, expected)]
        return np.allclose(*sides, rtol=1e-6, atol=0, equal_nan=True)
    return value.equals(expected, null_equal=True)


def _some(values: pl.Series) -> list[int]:
    """A few rows, with the first and the last of a few values, on which a label is evaluated alone."""
    rows = {*range(0, len(values), max(1, len(values) // _ALONE))}
    for value in values.head(10_000).unique(maintain_order=True).head(3):
        where = values.eq_missing(value)
        rows |= {int(where.arg_max() or 0), len(values) - 1 - int(where.reverse().arg_max() or 0)}
    return sorted(rows)


def _counted(spec: Spec, place: str, label: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with timestamps that a label compares with something as numbers, where the log's clock is one."""
    clock = spec.keys.time
    if clock not in rows.columns or not rows.schema[clock].is_numeric():
        return rows
    moments = [c for c in columns(place, label) if rows.schema[c] == MOMENT and c != clock and not is_moment(label, c)]
    if not moments:
        return rows
    counts = [pl.col(c).dt.timestamp("us") for c in moments]
    if spec.keys.time_unit == "ns":
        return rows.with_columns(count * 1000 for count in counts)
    return rows.with_columns(count / _UNITS.get(spec.keys.time_unit, 1_000_000) for count in counts)
