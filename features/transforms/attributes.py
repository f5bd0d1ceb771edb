"""Features of one side as Arrow columns of the session table's types: attributes and computed features."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import polars as pl
import pyarrow as pa

from features.logs.dtypes import cast, cleaned, failed
from features.logs.list_text import elements
from features.logs.timestamps import moments
from features.transforms.counters import NEVER
from features.transforms.joins import column_of
from rec.data.encoders import as_ids
from rec.data.session_table import TIME, field_type
from rec.errors import DataError, SpecError
from rec.spec import AnyFeature, Id, Ids, Kept, Number, Spec, Vector
from rec.spec.features import MOMENTS


def side(
    spec: Spec, name: str, rows: pl.DataFrame, user_values: Mapping[str, np.ndarray | pa.Array]
) -> dict[str, pa.Array]:
    """Every stored feature of a side (`context` or `candidates`) of rows; `user_values` are point-in-time ones."""
    columns = {}
    for feature_name, feature in dict(spec.sides())[name].items():
        if field_type(feature) is not None:
            where = f"{name}.{feature_name}"
            column = user_values.get(feature_name)
            column = _past(column, feature) if column is not None else _column(spec, where, feature, rows)
            columns[feature_name] = stored(column, feature, where)
    return columns


def _past(values: np.ndarray | pa.Array, feature: AnyFeature) -> pa.Array:
    """A point-in-time feature as Arrow; NaN, and the time of what never was, become null."""
    if isinstance(values, pa.Array):
        return values
    if getattr(feature, "make", "") in MOMENTS:
        return pa.array(values, mask=values == NEVER).cast(TIME)
    return pa.array(values.astype(np.float32), from_pandas=True)


def _column(spec: Spec, where: str, feature: AnyFeature, rows: pl.DataFrame) -> pa.Array:
    return attribute(spec, where, feature, rows[column_of(feature, where.partition(".")[2], spec)])


def attribute(spec: Spec, where: str, feature: AnyFeature, values: pl.Series) -> pa.Array:
    """An attribute feature, from its column's values [n]."""
    if isinstance(feature, Ids) and feature.make == "tokens":
        return _tokens(values, where)
    if isinstance(feature, Id | Ids):
        return ids(values, feature, where)
    if isinstance(feature, Vector):
        return _vector(values, feature.size, where)
    if isinstance(feature, Number) and feature.make == "age":
        return moments(values, unit=spec.keys.time_unit, where=where, zone=spec.keys.time_zone).to_arrow()
    return (
        numeric(values, where).cast(pl.Float32).to_arrow()
        if isinstance(feature, Number)
        else _kept(values, feature, where)
    )


def listed_ids(values: pa.Array, offsets: np.ndarray, feature: Ids, where: str) -> pa.Array:
    """Lists of ids of the feature's type, from flat values and offsets."""
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
    return _text_or_int(lists, feature, where)


def _tokens(values: pl.Series, where: str) -> pa.Array:
    """The words of a text: maximal runs of letters and digits, lower case; empty for null."""
    if values.dtype not in (pl.String, pl.Null, pl.Categorical, pl.Enum):
        raise DataError(f"{where}: expected text to take words from, got {values.dtype}")
    words = values.cast(pl.String).str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+").fill_null([])
    return words.to_arrow().cast(pa.list_(pa.string()))


def _vector(values: pl.Series, size: int, where: str) -> pa.Array:
    """A list of `size` numbers per row, or null."""
    column = listed_numbers(values, where)
    lengths = column.list.len().drop_nulls()
    wrong = lengths.filter(lengths != size)
    if len(wrong):
        raise DataError(f"{where}: expected {size} numbers, got {wrong[0]} ({len(wrong)} such rows)")
    return column.to_arrow().cast(pa.list_(pa.float32()))


def listed_numbers(values: pl.Series, where: str) -> pl.Series:
    """Lists of numbers; text such as `[0.5, 2]` is split into one."""
    if values.dtype != pl.String and not isinstance(values.dtype, pl.List | pl.Array):
        raise DataError(f"{where}: expected lists of numbers, got {values.dtype}")
    numbers = cast(values, pl.List(pl.Float32()))
    lost = failed(values, numbers)
    if lost.any():
        raise DataError(f"{where}: expected lists of numbers, got {values.filter(lost).to_list()[0]!r}")
    return numbers


def ids(values: pl.Series, feature: Id | Ids, where: str) -> pa.Array:
    """An id or a list of ids per row, as int64 or string; DataError when they are of the other type."""
    inner = pl.Int64() if feature.values == "int" else pl.String()
    if not isinstance(feature, Ids):
        return _typed_ids(values, inner, where).to_arrow(compat_level=pl.CompatLevel.oldest())
    lists = values if values.dtype == pl.List(inner) else _id_lists(values, pl.List(inner), feature.split, where)
    lists = lists.fill_null(pl.Series([[]], dtype=lists.dtype))
    flat = elements(lists)
    if flat.null_count():  # what has no value is no id, and takes no place
        lists, flat = lists.list.drop_nulls(), flat.drop_nulls()
    offsets = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy())])
    arrow = flat.to_arrow(compat_level=pl.CompatLevel.oldest())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), as_ids(arrow, feature.values, where))


def _typed_ids(values: pl.Series, kind: pl.DataType, where: str) -> pl.Series:
    """Ids as int64 or text."""
    if values.dtype == kind:
        return values
    typed = cast(values, kind)
    lost = failed(values, typed)
    if not lost.any():
        return typed
    got = values.filter(lost).to_list()[0]
    if values.dtype.is_integer():
        raise DataError(f"{where}: an id does not fit 64 bits with a sign; store the ids as text, got {got}")
    if isinstance(values.dtype, pl.Struct):
        raise DataError(f"{where}: expected an id, got {values.dtype}; name a field of it, such as {_field(values)}")
    more = '; for ids that are text say values = "string"' if kind == pl.Int64 else ""
    raise DataError(f"{where}: expected an id ({'int' if kind == pl.Int64 else 'text'}), got {got!r}{more}")


def _id_lists(values: pl.Series, kind: pl.List, split: str | None, where: str) -> pl.Series:
    """Lists of ids as int64 or text; a single id is a list of it, and text is split."""
    typed = cast(values, kind, split=split)
    if failed(values, typed).any():
        values = cleaned(values)
        if isinstance(values.dtype, pl.List):
            _typed_ids(elements(values).alias(values.name), pl.Series([], dtype=kind.inner).dtype, where)
        raise DataError(
            f"{where}: expected lists of ids, got {values.filter(typed.is_null()).drop_nulls().to_list()[0]!r}"
        )
    return typed


def _field(values: pl.Series) -> str:
    return f"{values.name}.{values.struct.fields[0]}"


def _kept(values: pl.Series, feature: AnyFeature, where: str) -> pa.Array:
    """A column that is carried along, as what the spec says it holds."""
    if isinstance(feature, Kept) and feature.values != "float":
        return _typed_ids(values, pl.Int64() if feature.values == "int" else pl.String(), where).to_arrow(
            compat_level=pl.CompatLevel.oldest()
        )
    if values.dtype.is_integer():
        values = values.cast(pl.Float64)  # Arrow refuses those above 2^53, which a number may be
    return values.to_arrow(compat_level=pl.CompatLevel.oldest())


def numeric(values: pl.Series, where: str) -> pl.Series:
    """Numbers [n] of whatever type they are stored in; text of numbers as float64. DataError for other values."""
    if values.dtype == pl.String:
        numbers = cast(values, pl.Float64())
        values = values if failed(values, numbers).any() else numbers
    kind = values.dtype
    if kind.is_numeric() or kind in (pl.Boolean, pl.Null):
        return values
    if kind.is_temporal():
        raise SpecError(f'{where}: expected a number, got {kind}; a timestamp becomes a number with make = "age"')
    example = values.drop_nulls().head(1).to_list()
    raise DataError(f'{where}: expected a number, got {example[0] if example else kind!r}; say kind = "id" for words')


def _text_or_int(lists: pa.Array, feature: Ids, where: str) -> pa.Array:
    values = lists.values
    if feature.values == "int" and not pa.types.is_integer(values.type) and not pa.types.is_null(values.type):
        with suppress(pa.ArrowInvalid):  # `as_ids` says what is wrong with words
            values = values.cast(pa.int64())
    return pa.ListArray.from_arrays(lists.offsets, as_ids(values, feature.values, where))


def stored(column: pa.Array, feature: AnyFeature, where: str) -> pa.Array:
    """A column as session tables store the feature; DataError where it cannot be."""
    kind = field_type(feature)
    assert kind is not None, "the door works out the rest"
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
