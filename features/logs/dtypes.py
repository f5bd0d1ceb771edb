"""The one conversion of logged values: what a value of a type that was found becomes as the type that is wanted.

    found, wanted   id (int)        id (string), text    number         true or false  timestamp     list
    text            7, " 7 ", 7.0,  as it is written;    7.5,           true, 1,       ISO text,     [7, 9], ['a', "b"],
                    True -> 1       a key 12.0 -> "12"   True -> 1      false, 0       a count       or `split`
    whole number    64 bits         7 -> "7"             itself         1, 0           a count       [7]
    number, decimal 7.0 -> 7        7.0 -> "7", "7.5"    itself         1, 0           a count       [7.5]
    true or false   1, 0            "true", "false"      1, 0           itself         lost          [itself]
    timestamp       lost            ISO text             lost           lost           itself        [itself]
    list            lost            lost                 lost           lost           lost          by element

Missing, whatever is wanted: null, NaN and the words of `logs.missing`; for all but text also blanks and words that
programs write for "no value", such as NULL, None, NA and NaT. What is lost is null too, and its row is unusable.
Categories and enums are text, binary is UTF-8 text, arrays are lists. Every reader of logs converts by `cast`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from features.logs import list_text
from features.logs.timestamps import MOMENT, UTC, Unit, parse
from rec.spec import LogRules, Spec

MISSING = tuple(LogRules().missing)
_WORDS = ("nan", "NaN", "-nan", "null", "Null", "none", "None", "na", "n/a", "<NA>", "NaT", "nil", "#N/A")
NO_VALUE = (*_WORDS, *dict.fromkeys(word.upper() for word in _WORDS if word.upper() not in _WORDS))
_TRUE, _FALSE = ("true", "1", "1.0"), ("false", "0", "0.0")
_WHOLE = r"^\s*([+-]?\d+)\.0*\s*$"
_SIGNED = 2.0**63


@dataclass(frozen=True)
class Fault:
    """Why some rows are unusable: `rows` [n] bool; `got` [n] are the offending values, if they help."""

    reason: str
    rows: pl.Series
    got: pl.Series | None = None


@dataclass(frozen=True)
class Notation:
    """How logs write what a type does not say: words of no value, timestamps, and the sign before decimals."""

    missing: tuple[str, ...] = MISSING
    unit: Unit = "s"
    zone: str = UTC
    decimal: str = "."

    @classmethod
    def of(cls, spec: Spec) -> Notation:
        """The notation that a spec declares."""
        keys = spec.keys
        return cls(tuple(spec.logs.missing), keys.time_unit, keys.time_zone, spec.logs.decimal)


PLAIN = Notation()


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
        return pl.Int64() if all(kind.is_integer() or kind == pl.Boolean for kind in kinds) else pl.Float64()
    return pl.String()


def plain(kind: pl.DataType) -> pl.DataType:
    """The type of a column that nobody wants to be another: text, numbers and lists of them."""
    if kind in (pl.Categorical, pl.Enum, pl.Binary):
        return pl.String()
    if isinstance(kind, pl.Decimal):
        return pl.Float64()
    if isinstance(kind, pl.List | pl.Array):
        return pl.List(plain(pl.Series([], dtype=kind.inner).dtype))
    return kind


def cleaned(values: pl.Series, missing: Sequence[str] = MISSING) -> pl.Series:
    """The values as text, numbers or lists, with nulls for NaN, blank text and words of no value."""
    kind = values.dtype
    if kind in (pl.Categorical, pl.Enum, pl.Binary):
        values = values.cast(pl.String, strict=False)
    if isinstance(kind, pl.Array):
        values = values.arr.to_list()
    if values.dtype == pl.String:
        return _without(values, missing)
    if kind.is_float() and values.is_nan().any():
        return values.fill_nan(None)
    return values


def cast(
    values: pl.Series,
    kind: pl.DataType,
    how: Notation = PLAIN,
    *,
    split: str | None = None,
    key: bool = False,
    aligned: bool = False,
) -> pl.Series:
    """The values as another type; null where a value is missing, or is lost (see the table above).

    `split` separates the elements of a list in text, and those without a value keep their places only where the list is
    `aligned` with another; of a `key` "12.0" is 12, as programs write whole numbers where some are missing.

    >>> cast(pl.Series(["7", "7.0", "bob"]), pl.Int64()).to_list()
    [7, 7, None]
    """
    values = cleaned(values, how.missing)
    if isinstance(kind, pl.List):
        plain_lists = values.dtype == kind and not (kind.inner == pl.String or kind.inner.is_float())
        return values if plain_lists else _lists(values, kind, how, split, aligned=aligned)
    if values.dtype == kind:
        return _whole_text(values, how) if key and kind == pl.String else values
    if kind == MOMENT:
        return _moments(values, how)
    if values.dtype.is_nested() or (values.dtype.is_temporal() and kind != pl.String):
        return _nothing(values, kind)
    if values.dtype == pl.String:
        return _from_text(list_text.plain_numbers(values, how.decimal) if kind.is_numeric() else values, kind)
    if values.dtype.is_temporal():
        return values.dt.to_string("iso:strict") if values.dtype in (pl.Datetime, pl.Date) else values.cast(kind)
    if values.dtype.is_float() or isinstance(values.dtype, pl.Decimal):
        return _from_fraction(values, kind)
    return values.cast(kind, strict=False)


def failed(values: pl.Series, converted: pl.Series, how: Notation = PLAIN) -> pl.Series:
    """Which values were lost in a cast: null now, and not missing before."""
    if converted.null_count() <= values.null_count():  # a null stays one: no other became one
        return pl.Series(values.name, [False]).new_from_index(0, len(values))
    lost = converted.is_null() & values.is_not_null()
    if not lost.any():
        return lost
    if values.dtype.is_float():
        return lost & values.is_not_nan()
    text = cleaned(values, how.missing)
    if text.dtype == pl.String:
        lost &= ~text.str.strip_chars().is_in(["", *how.missing, *NO_VALUE]).fill_null(value=True)
    return lost


def no_value_words(values: pl.Series) -> pl.Series:
    """Where text is a word that programs write for "no value" [n] bool."""
    return _among(values, NO_VALUE).fill_null(value=False)


def _among(values: pl.Series, words: Sequence[str]) -> pl.Series:
    """Where text is one of some words [n] bool; where all of it is longer, which is soon told, nowhere."""
    longest = max(map(len, map(str.encode, words)), default=0)
    if (values.str.len_bytes() <= longest).any():
        return values.is_in(words)
    return pl.Series(values.name, [False]).new_from_index(0, len(values))


def _without(values: pl.Series, missing: Sequence[str]) -> pl.Series:
    """Text without words of no value, blanks around them or not."""
    if not missing:
        return values
    lost = _among(values, [*missing, *NO_VALUE])  # of more than a few words at once, polars is quicker
    if lost.any():
        lost &= values.is_in(missing)
    if values.str.starts_with(" ").any() or values.str.ends_with(" ").any():
        lost |= values.str.strip_chars().is_in(missing)
    return values.set(lost.fill_null(value=False), None) if lost.any() else values


def _from_text(values: pl.Series, kind: pl.DataType) -> pl.Series:
    if kind == pl.Boolean:
        words = values.str.strip_chars().str.to_lowercase()
        truth = pl.when(words.is_in(_TRUE)).then(True).when(words.is_in(_FALSE)).then(False)
        return pl.select(truth.alias(values.name)).to_series()
    converted = values.cast(kind, strict=False)
    if kind.is_float() and converted.is_nan().any():
        converted = converted.fill_nan(None)
    if converted.null_count() == values.null_count():
        return converted
    rest = values.filter(converted.is_null() & values.is_not_null()).str.strip_chars()
    more = rest.cast(kind, strict=False)
    if kind.is_integer():
        # beyond 2^53 a double is not the number that is written
        more = more.fill_null(rest.str.extract(_WHOLE).cast(kind, strict=False))
        more = more.fill_null(_from_fraction(rest.cast(pl.Float64, strict=False).fill_nan(None), kind))
    more = more.fill_nan(None) if kind.is_float() else more
    truth = rest.str.to_lowercase()
    more = more.fill_null(truth.eq("true").cast(kind).set(~truth.is_in(["true", "false"]), None))
    return converted.scatter((converted.is_null() & values.is_not_null()).arg_true(), more)


def _from_fraction(values: pl.Series, kind: pl.DataType) -> pl.Series:
    """Numbers with a fraction as whole numbers, where it is 0; as text, where whole ones are written without it."""
    if not (kind.is_integer() or kind == pl.String):
        return values.cast(kind, strict=False)
    if isinstance(values.dtype, pl.Decimal):
        if kind == pl.String:  # up to 38 digits, of which a double has 15
            return values.cast(kind).str.replace(r"(\.\d*[1-9])0+$", "${1}").str.replace(r"\.0*$", "")
        whole = values.cast(pl.Int64, strict=False)
        same = (whole.cast(values.dtype, strict=False) == values).fill_null(value=False)
    else:
        whole = values.cast(pl.Int64, strict=False)
        same = ((whole.cast(pl.Float64) == values) & (values.abs() < _SIGNED)).fill_null(value=False)
    whole = whole.set(~same, None)
    return whole.cast(kind, strict=False) if kind != pl.String else whole.cast(kind).fill_null(values.cast(kind))


def _whole_text(values: pl.Series, how: Notation) -> pl.Series:
    """Keys in text: a whole number written with a fraction of 0 is without it."""
    if not values.str.contains(f"{how.decimal}0", literal=True).any():
        return values
    return list_text.plain_numbers(values, how.decimal).str.extract(_WHOLE).fill_null(values)


def _moments(values: pl.Series, how: Notation) -> pl.Series:
    if values.dtype == pl.Boolean or (values.dtype.is_nested()):
        return _nothing(values, MOMENT)
    return parse(values, unit=how.unit, where=values.name, zone=how.zone)


def _nothing(values: pl.Series, kind: pl.DataType) -> pl.Series:
    return pl.Series(values.name, [None], kind).new_from_index(0, len(values))


def _lists(values: pl.Series, kind: pl.List, how: Notation, split: str | None, *, aligned: bool) -> pl.Series:
    """Lists, converted element by element; a list with a lost element is lost, and a single value is a list of it."""
    inner = pl.Series([], dtype=kind.inner).dtype
    if values.dtype == pl.Null:
        return _nothing(values, kind)
    text = values.dtype == pl.String
    if text:
        numbers = inner.is_numeric()
        values = list_text.pieces(values, split=split, numbers=numbers, aligned=aligned, decimal=how.decimal)
        how = replace(how, decimal=".") if numbers else how
    single = not isinstance(values.dtype, pl.List)
    valid = values.is_not_null().to_numpy()
    owner = np.flatnonzero(valid) if single else list_text.owners(values)
    flat = values.drop_nulls() if single else list_text.elements(values)
    words = cast(flat, inner, how)
    if values.dtype == kind and words.null_count() == flat.null_count():
        return values
    lost = owner[failed(flat, words, how).to_numpy()]
    if text and not aligned:  # empty pieces are nothing
        stays = words.is_not_null().to_numpy()
        words, owner = words.filter(pl.Series(stays)), owner[stays]
    if len(lost):
        valid = valid.copy()
        valid[lost] = False
    return list_text.built(values.name, words, owner, valid)
