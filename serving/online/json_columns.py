"""JSON values of a feature as a typed Arrow column, or the first value that does not fit the feature.

    [7, null, 9]          id, values = "int"     int64
    ["a", null]           id, values = "string"  string
    [19.9, 5, null]       number                 float32
    ["2026-11-20T08:30Z"] number, make = "age"   timestamp[us, UTC], and so for "since"
    [[7, 9], [], null]    ids                    list<int64>
    [[0.5, 1], null]      vector, size = 2       list<float32>

As in logs (features/logs/dtypes.py), true and false are 1 and 0, 7.0 is the id 7, 7 is the text "7", a single id is a
list of it, `split` separates ids of text, and text that means "no value" is null. Text is no number, though, and no
list in brackets: JSON has both. It has no NaN and no infinity, and neither have these columns: a number too large for
float32 does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from rec.data.session_table import TIME
from rec.data.transforms import MOMENTS
from rec.spec import AnyFeature, Ids, Kept, Number, Vector

ColumnBuilder = Callable[[Sequence[Any]], pa.Array]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_INT64 = range(-(2**63), 2**63)


class UnfitError(ValueError):
    """A value that does not fit its feature: its index in the column, and what was expected."""

    def __init__(self, index: int, expected: str) -> None:
        """Of the value at `index`, `expected` was expected."""
        super().__init__(expected)
        self.index = index
        self.expected = expected


def column_builder(feature: AnyFeature, missing: Collection[str] = ()) -> ColumnBuilder:
    """The function that builds columns of a feature from JSON values; it raises UnfitError.

    `missing` are words that mean "no value" where an id is text.
    """
    if isinstance(feature, Number):
        return _timestamps if feature.make in MOMENTS else _float32
    if isinstance(feature, Vector):
        return _vectors(feature.size)
    if isinstance(feature, Kept) and feature.values == "float":
        return _float64
    if isinstance(feature, Ids):
        text = partial(_string_lists, missing=frozenset(missing), split=feature.split)
        return _int_lists if feature.values == "int" else text
    return _ints if feature.values == "int" else partial(_strings, missing=frozenset(missing))


def microseconds(text: str) -> int:
    """An ISO 8601 timestamp with a time zone as microseconds since 1970 UTC; ValueError for anything else.

    >>> microseconds("1970-01-01T00:00:01Z")
    1000000
    """
    timestamp = datetime.fromisoformat(text)
    if timestamp.tzinfo is None:
        raise ValueError("no time zone")
    return (timestamp - _EPOCH) // _US


def _checked(values: Sequence[Any], kinds: set[type], expected: str) -> None:
    # type() and not isinstance: True is an int to isinstance
    if not set(map(type, values)) <= kinds:
        index = next(i for i, value in enumerate(values) if type(value) not in kinds)
        raise UnfitError(index, expected)


def _ints(values: Sequence[Any]) -> pa.Array:
    if not set(map(type, values)) <= {int, type(None)}:
        _checked(values, {int, bool, float, type(None)}, "an id")
        index = next((i for i, value in enumerate(values) if type(value) is float and not value.is_integer()), None)
        if index is not None:
            raise UnfitError(index, "an id")
        values = [None if value is None else int(value) for value in values]
    try:
        return pa.array(values, pa.int64())
    except (OverflowError, pa.ArrowInvalid):
        index = next(i for i, value in enumerate(values) if value is not None and value not in _INT64)
        raise UnfitError(index, "an id of at most 64 bits") from None


def _strings(values: Sequence[Any], missing: frozenset[str] = frozenset()) -> pa.Array:
    if not set(map(type, values)) <= {str, type(None)}:
        _checked(values, {str, int, bool, float, type(None)}, "an id (text)")
        values = [_written(value) for value in values]
    if missing and not missing.isdisjoint(values):
        values = [None if value in missing else value for value in values]
    return pa.array(values, pa.string())


def _written(value: str | float | None) -> str | None:
    """A value as text, as the logs have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < _INT64.stop:
            return str(int(value))
        text = str(value)  # 1e-05, where columns of logs say 0.00001, and 1e-07, where they say 1e-7
        return f"{Decimal(text):f}" if text.endswith("e-05") else text.replace("e-0", "e-")
    return None if value is None else str(value)


def _floats(values: Sequence[Any], kind: type[np.floating]) -> pa.Array:
    _checked(values, {int, float, bool, type(None)}, "a number")
    try:
        with np.errstate(over="ignore"):
            numbers = np.array(values, np.float64).astype(kind)  # null becomes NaN
    except OverflowError:
        numbers = np.array([0.0 if value is None else _float(value) for value in values], kind)
    if np.isinf(numbers).any():
        raise UnfitError(int(np.isinf(numbers).argmax()), "a number of at most 3.4e38")
    return pa.array(numbers, mask=np.isnan(numbers))


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _float32(values: Sequence[Any]) -> pa.Array:
    return _floats(values, np.float32)


def _float64(values: Sequence[Any]) -> pa.Array:
    return _floats(values, np.float64)


def _timestamps(values: Sequence[Any]) -> pa.Array:
    expected = "a timestamp with a time zone, such as '2026-11-20T08:30:00Z'"
    _checked(values, {str, type(None)}, expected)
    timestamps: list[int | None] = []
    for index, value in enumerate(values):
        try:
            timestamps.append(None if value is None else microseconds(value))
        except ValueError:
            raise UnfitError(index, expected) from None
    return pa.array(timestamps, pa.int64()).cast(TIME)


def _vectors(size: int) -> ColumnBuilder:
    expected = f"a list of {size} numbers"

    def build(values: Sequence[Any]) -> pa.Array:
        _checked(values, {list, type(None)}, expected)
        present = [index for index, value in enumerate(values) if value is not None]
        for index in present:
            if len(values[index]) != size or None in values[index]:
                raise UnfitError(index, expected)
        try:
            # all at once: a request has a vector per candidate
            numbers = _float32([number for index in present for number in values[index]])
        except UnfitError as error:
            raise UnfitError(present[error.index // size], expected) from None
        missing = np.ones(len(values), bool)
        missing[present] = False
        offsets = np.concatenate([[0], np.cumsum(np.where(missing, 0, size))])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), numbers, mask=pa.array(missing))

    return build


def _int_lists(values: Sequence[Any]) -> pa.Array:
    return _lists(values, _ints, pa.list_(pa.int64()), "a list of ids")


def _string_lists(values: Sequence[Any], missing: frozenset[str] = frozenset(), split: str | None = None) -> pa.Array:
    if str in set(map(type, values)):
        pieces = [_pieces(value, split) if isinstance(value, str) else [] for value in values]
        if None in pieces:
            raise UnfitError(pieces.index(None), "a list of ids (text), as JSON has them")
        values = [of if isinstance(value, str) else value for of, value in zip(pieces, values, strict=True)]
    build = partial(_strings, missing=missing)
    return _lists(values, build, pa.list_(pa.string()), "a list of ids (text)")


def _pieces(text: str, split: str | None) -> list[str] | None:
    """The ids of a text, as logs have them: between what separates them, or one; None for a list in brackets."""
    if text.lstrip().startswith("[") and text.rstrip().endswith("]"):
        return None
    pieces = (piece.strip() for piece in (text.split(split) if split is not None else [text]))
    return [piece for piece in pieces if piece]


def _lists(values: Sequence[Any], build: ColumnBuilder, kind: pa.DataType, expected: str) -> pa.Array:
    if not set(map(type, values)) <= {list, type(None)}:  # a single id is a list of it
        values = [value if isinstance(value, list) or value is None else [value] for value in values]
    missing = np.array([value is None for value in values], bool)
    offsets = np.concatenate([[0], np.cumsum([0 if value is None else len(value) for value in values])])
    try:
        # all at once: every value is looked at a bounded number of times
        flat = build([inner for value in values if value is not None for inner in value])
    except UnfitError as error:
        index = int(np.searchsorted(offsets, error.index, side="right")) - 1
        raise UnfitError(index, expected) from None
    if flat.null_count:  # what has no value is no id, and takes no place
        offsets = np.concatenate([[0], np.cumsum(flat.is_valid().to_numpy(zero_copy_only=False))])[offsets]
        flat = flat.drop_null()
    mask = pa.array(missing) if missing.any() else None
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat, type=kind, mask=mask)
