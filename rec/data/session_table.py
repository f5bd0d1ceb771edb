"""The one conversion of session tables to RequestBatch ("the one door"): training, batch scoring and serving use it.

    request_id : string
    time       : timestamp[us, UTC]
    context    : struct<user_id: int64, history: list<int64>, ...>
    candidates : list<struct<item_id: int64, price: float, ..., click: int8, watch_seconds: float, ...>>

One row is one request. `list<struct>` has one offsets buffer, so candidate columns cannot disagree in length, and its
flat children are the model's inputs. Stateless transforms happen here, the same everywhere
(rec/data/transforms.py): ids become rows of tables, hour and weekday come from `time`, an age is `time` minus a stored
timestamp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rec.data import request_features, transforms
from rec.data.encoders import Encoder, Hashed, as_ids
from rec.errors import DataError, nearest
from rec.request import RequestBatch
from rec.spec import AnyFeature, Id, Ids, Kept, Number, Spec, Task, Vector, has_rows
from rec.spec.features import CLOCKS, IN_REQUEST
from rec.spec.tasks import UNOBSERVED, in_order, weight_column, weighted

Columns = Mapping[str, pa.Array]

TIME = pa.timestamp("us", tz="UTC")
_KEPT = {"int": pa.int64(), "string": pa.string(), "float": pa.float64()}


def field_type(feature: AnyFeature) -> pa.DataType | None:
    """The type a feature is stored as in the session table; None when it is derived from other columns."""
    if isinstance(feature, Kept):
        return _KEPT[feature.values]
    if isinstance(feature, Ids):
        return pa.list_(_KEPT[feature.values])
    if isinstance(feature, Id):
        return _KEPT[feature.values] if feature.make == "column" else None
    if isinstance(feature, Vector):
        return pa.list_(pa.float32())
    if feature.make in IN_REQUEST:
        return None
    return TIME if feature.make in transforms.MOMENTS else pa.float32()


def label_type(task: Task) -> pa.DataType:
    """The type a label is stored as: int8 of an event, float32 of a regression task."""
    return pa.int8() if task.predict == "event" else pa.float32()


def side_fields(features: Mapping[str, AnyFeature]) -> list[pa.Field]:
    """The struct fields of one side, in the order of the spec."""
    typed = ((name, field_type(feature)) for name, feature in features.items())
    return [pa.field(name, kind) for name, kind in typed if kind is not None]


def schema(spec: Spec, *, labels: bool = True) -> pa.Schema:
    """The session table's schema; without labels, that of requests to be scored."""
    candidate = side_fields(spec.candidates)
    if labels:
        candidate += [pa.field(name, label_type(spec.tasks[name])) for name in in_order(spec.tasks)]
        candidate += [pa.field(weight_column(name), pa.float32()) for name in weighted(spec.tasks)]
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


@dataclass(frozen=True)
class Flat:
    """Session-table rows as flat columns: time [B] in microseconds, context [B], candidates [N], owner and labels [N].

    Request b has the candidates from offsets[b] to offsets[b + 1]. Labels are read if the rows have them, and with them
    sample weights.
    """

    time: np.ndarray
    offsets: np.ndarray
    owner: np.ndarray
    context: Columns
    candidates: Columns
    labels: Mapping[str, np.ndarray]


def flat(rows: pa.RecordBatch, spec: Spec) -> Flat:
    """The columns of session-table rows, as they are stored."""
    candidates, offsets = _candidates(rows)
    return Flat(
        time=rows.column("time").cast(pa.int64()).to_numpy(zero_copy_only=False),
        offsets=offsets,
        owner=np.repeat(np.arange(len(rows)), np.diff(offsets)),
        context=_children(rows, "context"),
        candidates=candidates,
        labels={name: _label(candidates[name]) for name in outcomes_of(spec) if name in candidates},
    )


def outcomes_of(spec: Spec) -> list[str]:
    """The columns that only training and evaluation read: labels, and sample weights."""
    return [*in_order(spec.tasks), *map(weight_column, weighted(spec.tasks))]


def to_batch(rows: pa.RecordBatch, spec: Spec, encoders: Mapping[str, Encoder]) -> RequestBatch:
    """Session-table rows as a numpy RequestBatch, with labels and their sample weights if the rows have them.

    Raises DataError when a column is absent or of another type.
    """
    stored = flat(rows, spec)
    columns = {"context": stored.context, "candidates": stored.candidates}
    times = {"context": stored.time, "candidates": stored.time[stored.owner]}
    inputs = {side: _side(spec, side, columns[side], times[side], encoders) for side, _ in spec.sides()}
    for side, crosses in _crossed(spec, columns, times, stored.owner).items():
        inputs[side] |= crosses
    for side, numbers in neighbours(spec, stored).items():
        inputs[side] |= {name: bucketed(number, encoders.get(name)) for name, number in numbers.items()}
    return RequestBatch(len(rows), inputs["context"], inputs["candidates"], stored.owner, stored.labels)


def neighbours(spec: Spec, rows: Flat) -> dict[str, dict[str, np.ndarray]]:
    """The numbers made from requests alone (rec/data/request_features.py), by side, unscaled: [B] and [N] float32.

    Raises DataError when a column they are made of is absent.
    """

    def number(name: str) -> np.ndarray:
        feature = spec.candidates[name]
        assert isinstance(feature, Number), "the spec refuses anything else"
        return transforms.number(_column(rows.candidates, "candidates", name), feature, rows.time[rows.owner])

    return request_features.of_requests(spec, number, rows.owner, len(rows.time))


def bucketed(number: np.ndarray, encoder: Encoder | None) -> np.ndarray:
    """A number, or the row of its bucket where it has buckets."""
    return number if encoder is None else encoder(pa.array(number))


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
    from rec.data.encoders import Hash

    return Hash(2**63 - 1)(ids)


def check_schema(actual: pa.Schema, spec: Spec, where: str, *, labels: bool = True) -> None:
    """Refuse a table that is not of the spec's schema, naming the first field that differs; all `labels` or any."""
    want = schema(spec, labels=labels)
    for side in ("request_id", "time", "context", "candidates"):
        if side not in actual.names:
            raise DataError(f"{where}: {side}: not in this table; is it a session table?")
        if actual.field(side).type == want.field(side).type:
            continue
        have, need = _struct(actual.field(side).type), _struct(want.field(side).type)
        need |= {name: kind for name, kind in _struct(schema(spec).field(side).type).items() if name in have}
        for name in need:
            if name not in have:
                raise DataError(f"{where}: {side}.{name}: not in this table{nearest(name, have)}")
            if have[name] != need[name]:
                raise DataError(f"{where}: {side}.{name}: expected {need[name]}, got {have[name]}")
        extra = ", ".join(set(have) - set(need)) or (f"{actual.field(side).type}" if labels else "")
        if extra:
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
    spec: Spec, side: str, columns: Columns, time: np.ndarray, encoders: Mapping[str, Encoder]
) -> dict[str, np.ndarray]:
    """The features of one side, without crosses."""
    inputs = {}
    for name, feature in dict(spec.sides())[side].items():
        if isinstance(feature, Kept) or getattr(feature, "make", "") in IN_REQUEST:
            continue
        if isinstance(feature, Id) and feature.make in CLOCKS:
            inputs[name] = transforms.clock(feature.make, time)
        elif not isinstance(feature, Id) or feature.make != "cross":
            encoder = encoders[spec.table_of(side, name)] if has_rows(feature) else None
            inputs[name] = _value(feature, f"{side}.{name}", _column(columns, side, name), time=time, encoder=encoder)
    return inputs


def _value(
    feature: Id | Ids | Number | Vector, where: str, column: pa.Array, *, time: np.ndarray, encoder: Encoder | None
) -> np.ndarray:
    if isinstance(feature, Vector):
        return transforms.vectors(column, feature.size, where)
    if isinstance(feature, Number):
        return bucketed(transforms.number(column, feature, time), encoder)
    assert encoder is not None, "ids have rows"
    if isinstance(feature, Ids):
        return transforms.padded(column, feature, encoder, where)
    return encoder(as_ids(column, feature.values, where))


def _crossed(
    spec: Spec, stored: Mapping[str, Columns], times: Mapping[str, np.ndarray], owner: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """The crosses of each side; each input is hashed once, context inputs once per request."""
    hashes: dict[tuple[str, str], Hashed] = {}

    def part(side: str, name: str) -> Hashed:
        home = side if name in dict(spec.sides())[side] else "context"
        if (home, name) not in hashes:
            clock = field_type(dict(spec.sides())[home][name]) is None
            column = None if clock else _column(stored[home], home, name)
            hashes[home, name] = transforms.hashes(spec, home, name, column, times[home])
        return hashes[home, name] if home == side else hashes[home, name].take(owner)

    return {
        side: {
            name: transforms.crossed([part(side, of) for of in cross.of], cross.rows)
            for name, cross in transforms.crosses(features).items()
        }
        for side, features in spec.sides()
    }


def _column(columns: Columns, side: str, name: str) -> pa.Array:
    if name not in columns:
        raise DataError(f"{side}.{name}: not in this table{nearest(name, columns)}")
    return columns[name]


def _label(column: pa.Array) -> np.ndarray:
    if pa.types.is_floating(column.type):
        return transforms.floats(column)
    return column.fill_null(UNOBSERVED).to_numpy(zero_copy_only=False)
