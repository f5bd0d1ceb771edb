"""Columns inside of columns: fields of objects, of objects in a list, and values of a map by their keys.

device   {os: ios}              device.os
shown    [{item_id: 7}, ...]    shown.item_id, a list
props    {city -> Oslo}         props.city, and any key of the first rows of a file of the log
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

_LOOK = 100_000  # rows of a file in which the keys of a map are looked for
_MOST = 10_000  # keys of a map, each a column

Keys = Mapping[str, Sequence[str]]  # those of each column that is a map


def map_keys(files: Iterable[tuple[pl.LazyFrame, Mapping[str, pl.DataType]]]) -> Keys:
    """The keys in the first rows of every file, by column; maps of which keys are no text have none."""
    keys: dict[str, dict[str, None]] = {}
    for frame, kinds in files:
        for name, kind in kinds.items():
            if isinstance(kind, pl.Map) and kind.key == pl.String:
                entries = frame.select(pl.col(name).head(_LOOK).map.keys().explode().unique(maintain_order=True))
                of_file = entries.collect().to_series().drop_nulls()
                keys.setdefault(name, {}).update(dict.fromkeys(of_file.to_list()))
    return {name: list(several)[:_MOST] for name, several in keys.items()}


def with_fields(
    frame: pl.LazyFrame, kinds: Mapping[str, pl.DataType], keys: Keys
) -> tuple[pl.LazyFrame, dict[str, pl.DataType]]:
    """A frame with a column for every field of its objects and lists of objects, and every key of its maps."""
    fields: dict[str, pl.Expr] = {}
    types = dict(kinds)
    left = [(name, pl.col(name), kind) for name, kind in kinds.items()]
    while left:
        name, column, kind = left.pop(0)
        for field, value, into in _inside(column, kind, keys.get(name, ())):
            called = f"{name}.{field}"
            if called not in types:
                fields[called], types[called] = value.alias(called), into
                left.append((called, value, into))
    return (frame.with_columns(fields.values()) if fields else frame), types


def _inside(column: pl.Expr, kind: pl.DataType, keys: Sequence[str]) -> list[tuple[str, pl.Expr, pl.DataType]]:
    """The name, the value and the type of everything inside a column of a type."""
    if isinstance(kind, pl.Struct):
        return [(field.name, column.struct.field(field.name), _of(field.dtype)) for field in kind.fields]
    if isinstance(kind, pl.Map):
        return [(key, column.map.get(key), _of(kind.value)) for key in keys]
    inner = kind.inner if isinstance(kind, pl.List) else None
    if not isinstance(inner, pl.Struct):
        return []
    of_each = ((field, column.list.eval(pl.element().struct.field(field.name))) for field in inner.fields)
    return [(field.name, value, pl.List(_of(field.dtype))) for field, value in of_each]


def _of(kind: object) -> pl.DataType:
    """A type, of which polars gives the class where it has no arguments."""
    return pl.Series([], dtype=kind).dtype  # type: ignore[arg-type]
