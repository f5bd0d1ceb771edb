"""Stored users and items, passed through the door once at load, for requests that send known ids and nothing else.

What depends only on a value (rows of tables, numbers) is the same in every request, so `arrow.to_batch` is asked for
all stored rows at load, and a request gathers them:

    ids      int32   [rows, F]     one line of memory per item, whatever the number of features
    numbers  float32 [rows, G]
    lists    int32   [rows, L]     per list feature

What depends on the moment (hour, weekday, age) still goes through the door for every request. Any other request takes
the whole way; tests/serving/test_prepared.py holds the two ways equal. Measured as
`features` in an answer's `timing_ms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rec.arrow import TIME, side_fields, to_batch
from rec.encode import Encoder
from rec.request import RequestBatch
from rec.spec import Id, Ids, Kept, Number, Spec
from serving.bundle import Bundle
from serving.store import Side

# cells of 4 bytes kept by each process at most; a larger store is read through the door request by request
MOST_CELLS = 1 << 26


@dataclass(frozen=True)
class _Encoded:
    """The rows of one side as the graph takes them, and the stored columns that depend on the moment."""

    id_names: tuple[str, ...]
    ids: np.ndarray
    number_names: tuple[str, ...]
    numbers: np.ndarray
    lists: Mapping[str, np.ndarray]
    moving: pa.StructArray

    def at(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The values of the rows at `index`, each contiguous [n] or [n, L]."""
        # gathered row by row, which is one line of memory each, then turned to one array per feature
        values = dict(zip(self.id_names, self.ids[index].T.astype(np.int64, order="C"), strict=True))
        values |= zip(self.number_names, np.ascontiguousarray(self.numbers[index].T), strict=True)
        values |= {name: rows[index].astype(np.int64) for name, rows in self.lists.items()}
        return values


class Prepared:
    """A bundle's store, encoded."""

    def __init__(self, context: _Encoded, candidates: _Encoded, moving: Spec, encoders: Mapping[str, Encoder]) -> None:
        """Made by `prepare`; `moving` is the spec of the features that depend on the moment alone."""
        self._context = context
        self._candidates = candidates
        self._moving = moving
        self._moves = bool(moving.context or moving.candidates)
        self._encoders = encoders

    def batch(self, user: int, items: np.ndarray, time: int) -> RequestBatch:
        """One request of a stored user (a row of the store) for stored items (rows), at a moment in microseconds."""
        users = np.array([user])
        context, candidates = self._context.at(users), self._candidates.at(items)
        if self._moves:
            rows = _rows(
                self._context.moving.take(pa.array(users)), self._candidates.moving.take(pa.array(items)), time
            )
            now = to_batch(rows, self._moving, self._encoders)
            context |= now.context
            candidates |= now.candidates
        return RequestBatch(1, context, candidates, np.zeros(len(items), np.int64))


def prepare(bundle: Bundle) -> Prepared | None:
    """The bundle's store, encoded; None when it has not both sides, or is too large to be held twice."""
    users, items = bundle.store.context, bundle.store.candidates
    if users is None or items is None:
        return None
    described, encoders = bundle.spec, bundle.fitted.encoders
    if _cells(described.context, users) + _cells(described.candidates, items) > MOST_CELLS:
        return None
    still = _narrowed(described, moving=False)
    nobody, nothing = pa.nulls(1, users.rows.type), pa.nulls(0, items.rows.type)
    context = to_batch(_rows(users.rows, nothing, 0), still, encoders).context
    candidates = to_batch(_rows(nobody, items.rows, 0), still, encoders).candidates
    moving = _narrowed(described, moving=True)
    return Prepared(
        _encoded(context, _moving_columns(users.rows, moving.context, described.keys.user)),
        _encoded(candidates, _moving_columns(items.rows, moving.candidates, described.keys.item)),
        moving,
        encoders,
    )


def _cells(features: Mapping[str, Id | Ids | Number | Kept], side: Side) -> int:
    widths = (f.last if isinstance(f, Ids) else 1 for f in features.values() if not isinstance(f, Kept))
    return len(side.rows) * sum(widths)


def _narrowed(described: Spec, *, moving: bool) -> Spec:
    """The spec with only those features that depend on the moment, or only the others."""
    sides = {
        side: {
            name: feature
            for name, feature in features.items()
            if not isinstance(feature, Kept) and (feature.make in ("hour", "weekday", "age")) == moving
        }
        for side, features in described.sides()
    }
    return described.model_copy(update=sides)


def _moving_columns(
    rows: pa.StructArray, features: Mapping[str, Id | Ids | Number | Kept], key: str | None
) -> pa.StructArray:
    """The stored columns of these features, and the key, so that there is always one."""
    fields = {field.name: field for field in rows.type}
    names = dict.fromkeys([str(key), *(field.name for field in side_fields(features))])
    return pa.StructArray.from_arrays([rows.field(name) for name in names], fields=[fields[name] for name in names])


def _rows(context: pa.StructArray, candidates: pa.StructArray, time: int) -> pa.RecordBatch:
    """Session-table rows, one per context; all candidates belong to the last."""
    offsets = np.zeros(len(context) + 1, np.int32)
    offsets[-1] = len(candidates)
    columns = {
        "request_id": pa.nulls(len(context), pa.string()),
        "time": pa.array(np.full(len(context), time)).cast(TIME),
        "context": context,
        "candidates": pa.ListArray.from_arrays(pa.array(offsets), candidates),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _encoded(values: Mapping[str, np.ndarray], moving: pa.StructArray) -> _Encoded:
    ids = {name: value for name, value in values.items() if value.ndim == 1 and value.dtype == np.int64}
    numbers = {name: value for name, value in values.items() if value.dtype == np.float32}
    lists = {name: value.astype(np.int32) for name, value in values.items() if value.ndim == 2}
    count = len(moving)
    return _Encoded(
        id_names=tuple(ids),
        ids=np.stack(list(ids.values()), axis=1).astype(np.int32) if ids else np.zeros((count, 0), np.int32),
        number_names=tuple(numbers),
        numbers=np.stack(list(numbers.values()), axis=1) if numbers else np.zeros((count, 0), np.float32),
        lists=lists,
        moving=moving,
    )
