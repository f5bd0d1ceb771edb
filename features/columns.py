"""Features of one side as Arrow columns of the session table's types: attributes read, the past counted."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import polars as pl
import pyarrow as pa

from features.joins import column_of
from features.logs import listed
from features.moments import moments
from features.past import Behaviour
from rec.arrow import field_type
from rec.encode import as_ids
from rec.errors import DataError, SpecError
from rec.spec import Id, Ids, Kept, Number, Spec

Feature = Id | Ids | Number | Kept


def side(spec: Spec, name: str, rows: pl.DataFrame, time: np.ndarray, past: Behaviour) -> dict[str, pa.Array]:
    """Every stored feature of a side (`context` or `candidates`) of some rows, as of `time` (microseconds [rows])."""
    made = {}
    for feature_name, feature in dict(spec.sides())[name].items():
        kind = field_type(feature)
        if kind is not None:
            where = f"{name}.{feature_name}"
            made[feature_name] = _typed(
                _column(spec, where, feature=feature, rows=rows, time=time, past=past), kind, where
            )
    return made


def _column(
    spec: Spec, where: str, *, feature: Feature, rows: pl.DataFrame, time: np.ndarray, past: Behaviour
) -> pa.Array:
    if isinstance(feature, Number) and feature.make in ("count", "rate"):
        return pa.array(_counted(feature, rows, time, past), pa.float32(), from_pandas=True)
    column = column_of(feature, where.partition(".")[2], spec)
    if isinstance(feature, Ids) and feature.make == "history":
        assert spec.keys.user is not None, "the spec refuses a history without keys.user"
        return _text_or_int(
            past.latest(column, feature.task, rows[spec.keys.user], time, last=feature.last), feature, where
        )
    values = rows[column]
    if isinstance(feature, Id | Ids):
        return ids(values, feature, where)
    if isinstance(feature, Number) and feature.make == "age":
        return moments(values, unit=spec.keys.time_unit, where=where).to_arrow()
    return _number(values, where) if isinstance(feature, Number) else _flat(values)


def ids(values: pl.Series, feature: Id | Ids, where: str) -> pa.Array:
    """An id or a list of ids per row, as int64 or string; DataError when they are of the other sort."""
    try:
        if isinstance(feature, Ids):
            return _text_or_int(_lists(values, where), feature, where)
        return as_ids(_flat(values), feature.values, where)
    except pl.exceptions.InvalidOperationError:
        raise DataError(f"{where}: an id does not fit 64 bits with a sign; store the ids as text") from None


def _counted(feature: Number, rows: pl.DataFrame, time: np.ndarray, past: Behaviour) -> np.ndarray:
    assert feature.per is not None, "the spec asks for it"
    if feature.make == "count":
        return past.count(feature.per, feature.task, rows[feature.per], time)
    assert feature.task is not None, "the spec asks for it"
    return past.rate(feature.per, feature.task, rows[feature.per], time, prior=feature.prior)


def _number(values: pl.Series, where: str) -> pa.Array:
    kind = values.dtype
    if kind.is_numeric() or kind in (pl.Boolean, pl.Null):
        return values.cast(pl.Float32).to_arrow()
    if kind.is_temporal():
        raise SpecError(f'{where}: expected a number, got {kind}; a moment becomes a number with make = "age"')
    example = values.drop_nulls().head(1).to_list()
    raise DataError(f'{where}: expected a number, got {example[0] if example else kind!r}; say kind = "id" for words')


def _flat(values: pl.Series) -> pa.Array:
    """Ids as Arrow; whole numbers stored as floats (what pandas makes of integers with gaps) are integers again."""
    if values.dtype.is_float() and values.drop_nulls().drop_nans().round().eq(values.drop_nulls().drop_nans()).all():
        return values.fill_nan(None).cast(pl.Int64).to_arrow()
    if values.dtype.is_integer():
        return values.cast(pl.Int64).to_arrow()
    return (
        values.cast(pl.String).to_arrow() if isinstance(values.dtype, pl.Categorical | pl.Enum) else values.to_arrow()
    )


def _lists(values: pl.Series, where: str) -> pa.ListArray:
    """A list per row; nothing becomes an empty list, and text is split."""
    if values.dtype != pl.String and not isinstance(values.dtype, pl.List | pl.Array):
        raise DataError(f"{where}: expected lists, got {values.dtype}")
    column = pl.Series(values.name, values).to_frame().select(listed(values.name, values.dtype)).to_series()
    column = column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
    column = column.fill_null(pl.Series([[]], dtype=column.dtype))
    lengths = column.list.len().to_numpy()
    flat = column.list.eval(pl.element()).explode(empty_as_null=False) if len(column) else column.explode()
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), _flat(flat))


def _text_or_int(lists: pa.Array, feature: Ids, where: str) -> pa.Array:
    values = lists.values
    if feature.values == "int" and not pa.types.is_integer(values.type) and not pa.types.is_null(values.type):
        with suppress(pa.ArrowInvalid):  # `as_ids` says what is wrong with words
            values = values.cast(pa.int64())
    return pa.ListArray.from_arrays(lists.offsets, as_ids(values, feature.values, where))


def _typed(column: pa.Array, kind: pa.DataType, where: str) -> pa.Array:
    if column.type == kind:
        return column
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{where}: expected {kind}, got {column.type}: {str(error).splitlines()[0]}") from None


def take(columns: Mapping[str, pa.Array], places: np.ndarray) -> dict[str, pa.Array]:
    """The given rows of every column."""
    index = pa.array(places)
    return {name: column.take(index) for name, column in columns.items()}
