"""Stored users and items, passed through the door once at load, for requests that send known ids and nothing else.

What depends only on a value (rows of tables, numbers) is the same in every request, so `arrow.to_batch` is asked for
all stored rows at load, and a request gathers them:

    ids      int32   [rows, F]     one line of memory per item, whatever the number of features
    numbers  float32 [rows, G]
    lists    int32   [rows, L]     per list feature
    vectors  float32 [rows, size]  per vector
    hashes   uint64  [rows]        per id that is crossed with one of the other side, or with the hour or the weekday

What depends on the moment (hour, weekday, age, since) still goes through the door for every request, and ids of both
sides are crossed for every request, from hashes that are gathered. Any other request takes the whole way;
tests/serving/online/test_encoded_store.py holds the two ways equal. Measured as `features` in an answer's `timing_ms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rec.data.encoders import Encoder, Hashed
from rec.data.session_table import TIME, field_type, side_fields, to_batch
from rec.data.transforms import MOMENTS, crossed, crosses, hashes
from rec.request import RequestBatch
from rec.spec import AnyFeature, Id, Ids, Kept, Spec, Vector
from rec.spec.features import CLOCKS
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
    vectors: Mapping[str, np.ndarray]
    moving: pa.StructArray
    hashes: Mapping[str, Hashed]

    def at(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The values of the rows at `index`, each contiguous [n] or [n, L]."""
        # gathered row by row, which is one line of memory each, then turned to one array per feature
        values = dict(zip(self.id_names, self.ids[index].T.astype(np.int64, order="C"), strict=True))
        values |= zip(self.number_names, np.ascontiguousarray(self.numbers[index].T), strict=True)
        values |= {name: rows[index].astype(np.int64) for name, rows in self.lists.items()}
        return values | {name: rows[index] for name, rows in self.vectors.items()}


class Prepared:
    """A bundle's store, encoded."""

    def __init__(
        self, sides: Mapping[str, _Encoded], moving: Spec, described: Spec, encoders: Mapping[str, Encoder]
    ) -> None:
        """Made by `prepare`; `moving` is the spec of the features that depend on the moment alone."""
        self._sides = sides
        self._moving = moving
        self._moves = bool(moving.context or moving.candidates)
        self._encoders = encoders
        self._spec = described
        self._crosses = [(side, *cross) for side, fs in described.sides() for cross in _crossing(fs)]

    def batch(self, user: int, items: np.ndarray, time: int) -> RequestBatch:
        """One request of a stored user (a row of the store) for stored items (rows), at a moment in microseconds."""
        index = {"context": np.array([user]), "candidates": items}
        made = {side: encoded.at(index[side]) for side, encoded in self._sides.items()}
        if self._moves:
            stored = {side: encoded.moving.take(pa.array(index[side])) for side, encoded in self._sides.items()}
            now = to_batch(_rows(stored["context"], stored["candidates"], time), self._moving, self._encoders)
            made["context"] |= now.context
            made["candidates"] |= now.candidates
        for side, name, cross in self._crosses:
            parts = [self._hashed(side, one, index, time) for one in cross.of]
            made[side][name] = crossed(parts, cross.rows)
        return RequestBatch(1, made["context"], made["candidates"], np.zeros(len(items), np.int64))

    def _hashed(self, side: str, name: str, index: Mapping[str, np.ndarray], time: int) -> Hashed:
        """The hashes of an id for a cross on `side`; what is of the context goes to all candidates."""
        home = side if name in dict(self._spec.sides())[side] else "context"
        stored = self._sides[home].hashes.get(name)
        if stored is None:  # of the clock, and one for all
            found = hashes(self._spec, home, name, None, np.array([time]))
            return found.take(np.zeros(len(index[side]), np.int64))
        return stored.take(index[side] if home == side else np.repeat(index[home], len(index[side])))


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
    sides = {
        "context": _encoded(
            context,
            _moving_columns(users.rows, moving.context, described.keys.user),
            _hashes(described, "context", users.rows),
        ),
        "candidates": _encoded(
            candidates,
            _moving_columns(items.rows, moving.candidates, described.keys.item),
            _hashes(described, "candidates", items.rows),
        ),
    }
    return Prepared(sides, moving, described, encoders)


def _cells(features: Mapping[str, AnyFeature], side: Side) -> int:
    return len(side.rows) * sum(map(_width, features.values()))


def _width(feature: AnyFeature) -> int:
    if isinstance(feature, Vector):
        return feature.size
    return 0 if isinstance(feature, Kept) else feature.last if isinstance(feature, Ids) else 1


def _crossing(features: Mapping[str, AnyFeature]) -> list[tuple[str, Id]]:
    """The crosses of a side that are not of its stored ids alone."""
    still = {name for name, f in features.items() if field_type(f) is not None}
    return [(name, cross) for name, cross in crosses(features).items() if not still.issuperset(cross.of)]


def _hashes(described: Spec, side: str, rows: pa.StructArray) -> dict[str, Hashed]:
    """The hashes of the stored ids of a side that crosses of either side need."""
    stored = {name for name, f in dict(described.sides())[side].items() if field_type(f) is not None}
    crossing = [cross for _, features in described.sides() for _, cross in _crossing(features)]
    needed = dict.fromkeys(name for cross in crossing for name in cross.of if name in stored)
    return {name: hashes(described, side, name, rows.field(name), np.zeros(0)) for name in needed}


def _narrowed(described: Spec, *, moving: bool) -> Spec:
    """The spec with only those features that depend on the moment, or only those that never change."""
    sides = {}
    for side, features in described.sides():
        crossing = dict(_crossing(features))
        sides[side] = {
            name: feature
            for name, feature in features.items()
            if not isinstance(feature, Kept) and name not in crossing and _moves(feature) == moving
        }
    return described.model_copy(update=sides)


def _moves(feature: AnyFeature) -> bool:
    return getattr(feature, "make", "column") in (*CLOCKS, *MOMENTS)


def _moving_columns(rows: pa.StructArray, features: Mapping[str, AnyFeature], key: str | None) -> pa.StructArray:
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


def _encoded(values: Mapping[str, np.ndarray], moving: pa.StructArray, hashed: Mapping[str, Hashed]) -> _Encoded:
    ids = {name: value for name, value in values.items() if value.ndim == 1 and value.dtype == np.int64}
    numbers = {name: value for name, value in values.items() if value.ndim == 1 and value.dtype == np.float32}
    wide = {name: value for name, value in values.items() if value.ndim == 2}
    count = len(moving)
    return _Encoded(
        id_names=tuple(ids),
        ids=np.stack(list(ids.values()), axis=1).astype(np.int32) if ids else np.zeros((count, 0), np.int32),
        number_names=tuple(numbers),
        numbers=np.stack(list(numbers.values()), axis=1) if numbers else np.zeros((count, 0), np.float32),
        lists={name: value.astype(np.int32) for name, value in wide.items() if value.dtype == np.int64},
        vectors={name: value for name, value in wide.items() if value.dtype == np.float32},
        moving=moving,
        hashes=hashed,
    )
