"""The one door between session tables and RequestBatch. Training, batch scoring and serving all enter here.

    request_id : string
    time       : timestamp[us, UTC]
    context    : struct<user_id: int64, history: list<int64>, ...>
    candidates : list<struct<item_id: int64, price: float, ..., click: int8, watch_seconds: float, ...>>

One row is one request. `list<struct>` has one offsets buffer, so candidate columns cannot disagree in length, and its
flat children are the model's inputs. What depends only on the value is worked out here, the same everywhere: ids become
rows of tables, hour and weekday come from `time`, an age is `time` minus a stored moment, in days.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.encode import Encoder, as_ids
from rec.errors import DataError, nearest
from rec.request import RequestBatch, spans
from rec.spec import Id, Ids, Kept, Number, Spec, Task
from rec.tasks import UNOBSERVED, in_order

TIME = pa.timestamp("us", tz="UTC")
_KEPT = {"int": pa.int64(), "string": pa.string(), "float": pa.float64()}
_US_PER_HOUR = 3_600_000_000
_US_PER_DAY = 24 * _US_PER_HOUR
CLOCK_ROWS = {"hour": 25, "weekday": 8}


def field_type(feature: Id | Ids | Number | Kept) -> pa.DataType | None:
    """The type a feature is stored as in the session table; None when the door works it out from `time`."""
    if isinstance(feature, Kept):
        return _KEPT[feature.values]
    if isinstance(feature, Ids):
        return pa.list_(_KEPT[feature.values])
    if isinstance(feature, Id):
        return _KEPT[feature.values] if feature.make == "column" else None
    return TIME if feature.make == "age" else pa.float32()


def label_type(task: Task) -> pa.DataType:
    """The type a label is stored as: what happened, or how much of it there was."""
    return pa.int8() if task.predict == "event" else pa.float32()


def side_fields(features: Mapping[str, Id | Ids | Number | Kept]) -> list[pa.Field]:
    """The struct fields of one side, in the order of the spec."""
    typed = ((name, field_type(feature)) for name, feature in features.items())
    return [pa.field(name, kind) for name, kind in typed if kind is not None]


def schema(spec: Spec, *, labels: bool = True) -> pa.Schema:
    """The session table's schema; without labels it is what a request to be scored looks like."""
    candidate = side_fields(spec.candidates)
    if labels:
        candidate += [pa.field(name, label_type(spec.tasks[name])) for name in in_order(spec.tasks)]
    return pa.schema(
        [
            pa.field("request_id", pa.string()),
            pa.field("time", TIME),
            pa.field("context", pa.struct(side_fields(spec.context))),
            pa.field("candidates", pa.list_(pa.struct(candidate))),
        ]
    )


def to_rows(
    shape: pa.Schema,
    *,
    request_id: pa.Array,
    time: pa.Array,
    context: Mapping[str, pa.Array],
    candidates: Mapping[str, pa.Array],
    offsets: np.ndarray,
) -> pa.RecordBatch:
    """Flat columns as session-table rows of `shape`, without copying them.

    context columns are [B], candidate columns [N], offsets [B + 1] say where each request's candidates begin.
    """
    context_fields = list(shape.field("context").type)
    candidate_type = shape.field("candidates").type.value_type
    side = (
        pa.StructArray.from_arrays([context[f.name] for f in context_fields], fields=context_fields)
        if context_fields
        else None
    )
    children = pa.StructArray.from_arrays([candidates[f.name] for f in candidate_type], fields=list(candidate_type))
    return pa.RecordBatch.from_arrays(
        [
            request_id,
            time,
            _empty_structs(len(time)) if side is None else side,
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), children, type=shape.field("candidates").type),
        ],
        schema=shape,
    )


def to_batch(rows: pa.RecordBatch, spec: Spec, encoders: Mapping[str, Encoder]) -> RequestBatch:
    """Session-table rows as a numpy RequestBatch; labels are read where the rows have them.

    Raises DataError when a column is absent or of another type.
    """
    context = _children(rows, "context")
    candidates, offsets = _candidates(rows)
    counts = np.diff(offsets)
    owner = np.repeat(np.arange(len(rows)), counts)
    time = rows.column("time").cast(pa.int64()).to_numpy(zero_copy_only=False)
    return RequestBatch(
        size=len(rows),
        context=_side(spec, "context", context, time, encoders),
        candidates=_side(spec, "candidates", candidates, time[owner], encoders),
        owner=owner,
        labels={name: _label(candidates[name]) for name in in_order(spec.tasks) if name in candidates},
    )


def group_of(rows: pa.RecordBatch, spec: Spec, *, start: int = 0) -> np.ndarray:
    """The group each request belongs to for grouped metrics [B] int64: `evaluate.group`, or the request itself.

    `start` numbers requests across several calls. Text is hashed to 63 bits.
    """
    name = spec.evaluate.group
    if name is None:
        return np.arange(start, start + len(rows))
    ids = _children(rows, "context")[name]
    if pa.types.is_integer(ids.type):
        return ids.fill_null(-1).to_numpy(zero_copy_only=False)
    from rec.encode import Hash

    return Hash(2**63 - 1)(ids)


def check_schema(found: pa.Schema, spec: Spec, where: str) -> None:
    """Refuse a table that is not of the spec's schema, naming the first field that differs."""
    want = schema(spec)
    for side in ("request_id", "time", "context", "candidates"):
        if side not in found.names:
            raise DataError(f"{where}: {side}: not in this table; is it a session table?")
        if found.field(side).type == want.field(side).type:
            continue
        have, need = _struct(found.field(side).type), _struct(want.field(side).type)
        for name in need:
            if name not in have:
                raise DataError(f"{where}: {side}.{name}: not in this table{nearest(name, have)}")
            if have[name] != need[name]:
                raise DataError(f"{where}: {side}.{name}: expected {need[name]}, got {have[name]}")
        extra = ", ".join(set(have) - set(need)) or f"{found.field(side).type}"
        raise DataError(f"{where}: {side}: the table was made with another spec: {extra}")


def _struct(kind: pa.DataType) -> dict[str, pa.DataType]:
    kind = kind.value_type if pa.types.is_list(kind) else kind
    return {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {"": kind}


def _empty_structs(count: int) -> pa.Array:
    return pa.array([{}] * count, pa.struct([]))


def _children(rows: pa.RecordBatch, side: str) -> dict[str, pa.Array]:
    column = rows.column(side)
    if not len(column.type):
        return {}
    return dict(zip([f.name for f in column.type], column.flatten(), strict=True))


def _candidates(rows: pa.RecordBatch) -> tuple[dict[str, pa.Array], np.ndarray]:
    column = rows.column("candidates")
    structs = column.flatten()
    offsets = column.offsets.to_numpy()
    return dict(zip([f.name for f in structs.type], structs.flatten(), strict=True)), offsets - offsets[0]


def _side(
    spec: Spec, side: str, columns: Mapping[str, pa.Array], time: np.ndarray, encoders: Mapping[str, Encoder]
) -> dict[str, np.ndarray]:
    values = {}
    for name, feature in dict(spec.sides())[side].items():
        if isinstance(feature, Kept):
            continue
        where = f"{side}.{name}"
        if isinstance(feature, Id) and feature.make != "column":
            values[name] = _clock(feature.make, time)
            continue
        if name not in columns:
            raise DataError(f"{where}: not in this table{nearest(name, columns)}")
        if isinstance(feature, Id):
            values[name] = encoders[spec.table_of(side, name)](as_ids(columns[name], feature.values, where))
        elif isinstance(feature, Ids):
            values[name] = _padded(columns[name], feature, encoders[spec.table_of(side, name)], where)
        elif feature.make == "age":
            values[name] = _age(columns[name], time)
        else:
            values[name] = _number(columns[name])
    return values


def _clock(make: str, time: np.ndarray) -> np.ndarray:
    """Hour of day (1..24) or day of week (1..7, Monday first), UTC, as rows of a table; 1970-01-01 was a Thursday."""
    return time // _US_PER_HOUR % 24 + 1 if make == "hour" else (time // _US_PER_DAY + 3) % 7 + 1


def _age(column: pa.Array, time: np.ndarray) -> np.ndarray:
    """Days between a stored moment and the request; NaN when the moment is missing."""
    moment = column.cast(pa.int64())
    days = ((time - moment.fill_null(0).to_numpy(zero_copy_only=False)) / _US_PER_DAY).astype(np.float32)
    return np.where(_valid(column), days, np.float32("nan"))


def _number(column: pa.Array) -> np.ndarray:
    """float32, NaN where missing; infinities are missing too."""
    column = column if column.type == pa.float32() else column.cast(pa.float32(), safe=False)
    column = column.fill_null(float("nan")) if column.null_count else column
    values = column.to_numpy(zero_copy_only=False)
    return np.where(np.isinf(values), np.float32("nan"), values)


def _padded(column: pa.Array, feature: Ids, encoder: Encoder, where: str) -> np.ndarray:
    """The last L ids of each list, right-aligned [len(column), L], 0 before the first."""
    offsets = column.offsets.to_numpy()
    rows = encoder(as_ids(column.flatten(), feature.values, where))
    offsets = offsets - offsets[0]
    length = np.minimum(np.diff(offsets), feature.last)
    padded = np.zeros((len(column), feature.last), np.int64)
    line = np.repeat(np.arange(len(column)), length)
    place = spans(feature.last - length, length)
    padded[line, place] = rows[spans(offsets[1:] - length, length)]
    return padded


def _label(column: pa.Array) -> np.ndarray:
    if pa.types.is_floating(column.type):
        return _number(column)
    return column.fill_null(UNOBSERVED).to_numpy(zero_copy_only=False)


def _valid(column: pa.Array) -> np.ndarray:
    return pc.is_valid(column).to_numpy(zero_copy_only=False)
