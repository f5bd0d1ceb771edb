"""Stateless transforms of stored values to model inputs: rows of embedding tables, numbers, or lists of either.

They depend only on the value and the request's timestamp: the hour of `time`, the days since a stored timestamp, the
last ids of a list, the numbers of a vector, crosses of ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.encoders import Encoder, Hashed, as_ids, hashed
from rec.errors import DataError
from rec.request import spans
from rec.spec import Id, Ids, Number, Spec
from rec.spec.features import MOMENTS as _OF_EVENTS

_US_PER_HOUR = 3_600_000_000
_US_PER_DAY = 24 * _US_PER_HOUR
CLOCK_ROWS = {"hour": 25, "weekday": 8}
MOMENTS = ("age", *_OF_EVENTS)  # numbers stored as a timestamp; the value is the days since


def clock(make: str, time: np.ndarray) -> np.ndarray:
    """Hour of day (1..24) or day of week (1..7, Monday first), UTC, as rows of a table; 1970-01-01 was a Thursday."""
    return time // _US_PER_HOUR % 24 + 1 if make == "hour" else (time // _US_PER_DAY + 3) % 7 + 1


def number(column: pa.Array, feature: Number, time: np.ndarray) -> np.ndarray:
    """A number before scaling [len(column)] float32; NaN where missing or infinite.

    `time` [len(column)] is that of the request, in microseconds; an age is in days.
    """
    return _days(column, time) if feature.make in MOMENTS else floats(column)


def floats(column: pa.Array) -> np.ndarray:
    """Numbers as float32 [len(column)], NaN where missing; infinities are missing too."""
    column = column if column.type == pa.float32() else column.cast(pa.float32(), safe=False)
    column = column.fill_null(float("nan")) if column.null_count else column
    values = column.to_numpy(zero_copy_only=False)
    return np.where(np.isinf(values), np.float32("nan"), values)


def padded(column: pa.Array, feature: Ids, encoder: Encoder, where: str) -> np.ndarray:
    """The last L ids of each list, right-aligned [len(column), L], left-padded with 0."""
    offsets = column.offsets.to_numpy()
    flat = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    rows = encoder(as_ids(flat, feature.values, where))
    offsets = offsets - offsets[0]
    # values below a null list do not count
    length = np.minimum(np.where(_valid(column), np.diff(offsets), 0), feature.last)
    out = np.zeros((len(column), feature.last), np.int64)
    line = np.repeat(np.arange(len(column)), length)
    place = spans(feature.last - length, length)
    out[line, place] = rows[spans(offsets[1:] - length, length)]
    return out


def vectors(column: pa.Array, size: int, where: str) -> np.ndarray:
    """Lists of `size` numbers [len(column), size] float32; NaN where the list, or a number in it, is missing.

    Raises DataError when a list has another length.
    """
    length = pc.list_value_length(column)
    wrong = pc.drop_null(length).filter(pc.not_equal(pc.drop_null(length), size))
    if len(wrong):
        raise DataError(f"{where}: expected {size} numbers, got {wrong[0]}")
    values = floats(column.flatten())
    if not column.null_count:
        return values.reshape(len(column), size)
    out = np.full((len(column), size), np.float32("nan"))
    out[_valid(column)] = values.reshape(-1, size)
    return out


def crosses(features: Mapping[str, object]) -> dict[str, Id]:
    """The crosses among the features of a side."""
    return {name: f for name, f in features.items() if isinstance(f, Id) and f.make == "cross"}


def crossed(parts: Sequence[Hashed], rows: int) -> np.ndarray:
    """One row per tuple of values [n] int64, by an order-dependent hash; 0 where any of them is null.

    >>> user, item = hashed(pa.array([7, 7])), hashed(pa.array(["a", None]))
    >>> crossed([user, item], 100)
    array([50,  0])
    """
    first, *others = parts
    for part in others:
        first = first.mixed(part)
    return first.rows(rows)


def hashes(spec: Spec, side: str, name: str, column: pa.Array | None, time: np.ndarray) -> Hashed:
    """Hashes of an id feature as an input of a cross: of a stored column, or of the hour or weekday of `time` [n]."""
    feature = dict(spec.sides())[side][name]
    assert isinstance(feature, Id), "the spec refuses a cross of anything else"
    if feature.make in CLOCK_ROWS:
        return hashed(pa.array(clock(feature.make, time)))
    assert column is not None, "the door has looked for it"
    return hashed(as_ids(column, feature.values, f"{side}.{name}"))


def _days(column: pa.Array, time: np.ndarray) -> np.ndarray:
    """Days between a stored timestamp and the request; NaN when the timestamp is missing."""
    timestamps = column.cast(pa.int64())
    days = ((time - timestamps.fill_null(0).to_numpy(zero_copy_only=False)) / _US_PER_DAY).astype(np.float32)
    return np.where(_valid(column), days, np.float32("nan"))


def _valid(column: pa.Array) -> np.ndarray:
    return pc.is_valid(column).to_numpy(zero_copy_only=False)
