"""Whether a column's type is one that its feature can be made of, before any row is read.

id, kept, count, rate, since    one value per row
ids, vector                     a list, or text that writes one
tokens                          text
number                          one number per row; one timestamp for an age
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from features.transforms.joins import column_of
from rec.data.session_table import field_type
from rec.errors import SpecError
from rec.spec import AnyFeature, Id, Kept, Number, Spec
from rec.spec.features import PAST, keys_of, matching_of, value_of


def refuse_unfit(spec: Spec, kinds: Mapping[str, pl.DataType]) -> None:
    """SpecError for a feature that cannot be made of a column of its type; `kinds` are the columns' types."""
    for side, features in spec.sides():
        for name, feature in features.items():
            for column, expected in _unfit(spec, name, feature, kinds):
                where = f"{side}.{name}"
                raise SpecError(f"{where}: expected {expected} in column {column!r}, got {_called(kinds[column])}")


def _unfit(spec: Spec, name: str, feature: AnyFeature, kinds: Mapping[str, pl.DataType]) -> Iterator[tuple[str, str]]:
    """The columns of a feature whose type does not do, and what it would take."""
    make = getattr(feature, "make", "column")
    if isinstance(feature, Number) and make in PAST:
        columns = dict.fromkeys((*keys_of(feature), *matching_of(feature)))
        keys = [key for key in columns if key in kinds and kinds[key].is_nested()]
        yield from ((key, "one value per row to count by") for key in keys)
        for own, other in zip(keys_of(feature), matching_of(feature), strict=True):
            if {own, other} <= kinds.keys() and _sort(kinds[own]) != _sort(kinds[other]):
                yield other, f"{_called(kinds[own])}, as {own!r} has that it is compared with,"
        valued = value_of(feature)
        if valued is not None and valued in kinds and kinds[valued].is_nested():
            yield valued, "one number per row"
        return
    column = column_of(feature, name, spec)
    if column not in kinds or (field_type(feature) is None and make != "history") or make == "gaps":
        return
    kind = kinds[column]
    if not kind.is_nested():
        return
    if make == "history":
        yield column, "one value per row to remember"
    elif isinstance(feature, Id | Kept):
        yield column, 'one value per row (a list is kind = "ids")'
    elif isinstance(feature, Number):
        yield column, "one timestamp per row" if make == "age" else "one number per row"


def _sort(kind: pl.DataType) -> str:
    """What values are, which are equal only to others of it."""
    return "whole numbers" if kind.is_integer() else "numbers" if kind.is_numeric() else str(kind)


def _called(kind: pl.DataType) -> str:
    """A type in words of the spec's, where they are shorter."""
    return "lists" if isinstance(kind, pl.List | pl.Array) else str(kind)
