"""The type that a column of a log is read as: what the spec says of it, the same for every file and every form.

said by keys and features     that type: ids are int64 or text, lists are lists of those
said by nothing               numbers, booleans and text as they are found; in text files as their values look
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from features.logs import list_text
from features.logs.dtypes import Fault, no_value_words, plain, supertype
from features.logs.timestamps import MOMENT
from rec.errors import DataError
from rec.spec import Spec
from rec.spec.features import Id, Ids, Kept, Number, value_of

_DECLARED = {"int": pl.Int64(), "string": pl.String(), "float": pl.Float64()}


def kind_of(spec: Spec, column: str, has: Sequence[tuple[pl.DataType, bool]], where: str) -> pl.DataType:
    """The type of a column for all pieces; `has` are each piece's type and whether it was inferred from text.

    DataError for a key of several values a row.
    """
    kinds = list(dict.fromkeys(plain(kind) for kind, _ in has if kind != pl.Null)) or [pl.Null()]
    keys = spec.keys
    flat = not any(kind.is_nested() for kind in kinds)
    text = any(guess for _, guess in has) or pl.String in kinds
    says = declared_type(spec, column)
    if column in (keys.user, keys.item, keys.request, keys.session):
        if not flat:
            raise DataError(f"{where}: column {column!r}: expected one value per row, got {kinds[0]}")
        numeric = all(kind.is_numeric() or kind == pl.Boolean for kind in kinds)
        return says if says in (pl.Int64, pl.String) else pl.Int64() if numeric else pl.String()
    if says is not None and not any(isinstance(kind, pl.Struct) for kind in kinds):
        own = kinds[0] if len(kinds) == 1 and not any(guess for _, guess in has) else None
        return own if own is not None and _is_such(own, says) else says
    if (len(kinds) > 1 or any(guess for _, guess in has)) and flat and column == keys.time:
        return MOMENT
    if text and len(_features(spec, column)) > 1:
        return pl.String()  # any of the types that features say is made of it
    return supertype(kinds)


def declared_type(spec: Spec, column: str) -> pl.DataType | None:
    """The type that the features reading a column declare; None if there is none, or if they differ."""
    kinds = _features(spec, column)
    return kinds[0] if len(kinds) == 1 else None


def split_of(spec: Spec, column: str) -> str | None:
    """What separates the elements of a list in a text column."""
    for _, features in spec.sides():
        for name, feature in features.items():
            if isinstance(feature, Ids) and feature.split is not None and (feature.column or name) == column:
                return feature.split
    return None


def called(spec: Spec, column: str, kind: pl.DataType) -> str:
    """The name of a type in messages."""
    says = declared_type(spec, column) is not None or column in (spec.keys.user, spec.keys.item)
    if isinstance(kind, pl.List):
        return "a list of ids (int)" if kind.inner == pl.Int64 else "a list of ids"
    if kind.is_integer():
        return "an id (int)" if says else "a whole number"
    names = {pl.Boolean(): "true or false", MOMENT: "a timestamp", pl.String(): "text"}
    return "a number" if kind.is_numeric() else names.get(kind, str(kind))


def doubts(values: pl.Series, typed: pl.Series, split: str | None) -> Iterator[Fault]:
    """Values that are read as they are written, and may be meant otherwise."""
    column = values.name
    if typed.dtype == pl.String and values.dtype == pl.String:
        words = no_value_words(typed)
        if words.any():
            yield Fault(
                f"{column}: read as a value; if it means that there is none, add it to logs.missing", words, values
            )
        # of ASCII alone, which is told four times as fast, nothing was replaced
        if values.str.len_bytes().sum() != values.str.len_chars().sum():
            broken = values.str.contains("\ufffd", literal=True).fill_null(value=False)
            if broken.any():
                yield Fault(f"{column}: text that is not UTF-8: values that differed may be equal now", broken, values)
    if typed.dtype == pl.List(pl.String) and values.dtype == pl.String and split is None:
        listed = list_text.looks_listed(values)
        if listed.any():
            yield Fault(
                f"{column}: read as one id; if it is a list, say what separates its ids (split)", listed, values
            )


def _features(spec: Spec, column: str) -> list[pl.DataType]:
    """What features say of a column; histories of it only where none reads it otherwise."""
    kinds: dict[pl.DataType, None] = {}
    past: dict[pl.DataType, None] = {}
    for _, features in spec.sides():
        for name, feature in features.items():
            make = getattr(feature, "make", "column")
            if isinstance(feature, Ids) and feature.column == column and make == "history":
                past[pl.Float64() if feature.buckets else _DECLARED[feature.values]] = None
            if value_of(feature) == column:
                past[pl.Float64()] = None
            if (feature.column or name) == column and make in ("column", "age", "tokens"):
                if make == "tokens":
                    kinds[pl.String()] = None
                elif isinstance(feature, Ids):
                    kinds[pl.List(_DECLARED[feature.values])] = None
                elif isinstance(feature, Id | Kept):
                    kinds[_DECLARED[feature.values]] = None
                elif isinstance(feature, Number):
                    kinds[MOMENT if feature.make == "age" else pl.Float64()] = None
    keys = (spec.keys.user, spec.keys.item, spec.keys.time, spec.keys.request, spec.keys.session)
    return list(kinds or ({} if column in keys else past))


def _is_such(kind: pl.DataType, says: pl.DataType) -> bool:
    """Whether a column's own type holds what the spec says of it, without a conversion."""
    if isinstance(says, pl.List):
        return isinstance(kind, pl.List) and _is_such(pl.Series([], dtype=kind.inner).dtype, says.inner)  # type: ignore[arg-type]
    if kind == pl.Null or kind.is_temporal():
        return True  # what reads it says what it expected
    if says == pl.Int64:
        return kind == pl.Boolean or (kind.is_integer() and kind not in (pl.UInt64, pl.Int128, pl.UInt128))
    if says == pl.Float64:
        return kind.is_numeric() or kind == pl.Boolean
    return kind == says
