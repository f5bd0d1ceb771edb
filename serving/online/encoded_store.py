"""The bundle's store as model inputs, encoded once at load, for requests that send known ids and nothing else.

Features that do not depend on the time of the request have the same encoding in every request. So `to_batch` encodes
all stored rows at load, and a request gathers the rows of its user and its items:

    ids      int32   [rows, F]     all id features of a row side by side: one cache line per item
    numbers  float32 [rows, G]
    lists    int32   [rows, L]     per list feature
    vectors  float32 [rows, size]  per vector
    hashes   uint64  [rows]        per id that is crossed with an id of the other side, or with the hour or the weekday
    compared float32 [rows]        per number of items that is compared with those of the other candidates

Time-dependent features (hour, weekday, age, since) are encoded by `to_batch` for every request; ids of both sides are
crossed for every request, from the gathered hashes, and numbers compared, from the gathered ones. Any other request is
hydrated and encoded as a whole; tests/serving/online/test_encoded_store.py holds the two paths equal. Measured as
`features` in `timing_ms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rec.data import request_features
from rec.data.encoders import Encoder, Hashed
from rec.data.session_table import TIME, bucketed, field_type, side_fields, to_batch
from rec.data.transforms import MOMENTS, crossed, crosses, hashes, number
from rec.request import RequestBatch
from rec.spec import AnyFeature, Id, Ids, Kept, Number, Spec, Vector
from rec.spec.features import CLOCKS, COMPARED, IN_REQUEST
from serving.bundle import Bundle
from serving.store import EntityTable

# cells of 4 bytes held by each process; a larger store is encoded request by request
MAX_CELLS = 1 << 26


@dataclass(frozen=True)
class _EncodedSide:
    """The encoded rows of all users, or of all items, and the raw columns of time-dependent features."""

    id_names: tuple[str, ...]
    ids: np.ndarray
    number_names: tuple[str, ...]
    numbers: np.ndarray
    lists: Mapping[str, np.ndarray]
    vectors: Mapping[str, np.ndarray]
    time_columns: pa.StructArray
    hashes: Mapping[str, Hashed]

    def at(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The values of the rows at `index`, each contiguous [n] or [n, L]."""
        # gathered row by row, a cache line each, then transposed to an array per feature
        values = dict(zip(self.id_names, self.ids[index].T.astype(np.int64, order="C"), strict=True))
        values |= zip(self.number_names, np.ascontiguousarray(self.numbers[index].T), strict=True)
        values |= {name: rows[index].astype(np.int64) for name, rows in self.lists.items()}
        return values | {name: rows[index] for name, rows in self.vectors.items()}


class EncodedStore:
    """The users and items of a bundle's store as model inputs."""

    def __init__(
        self,
        sides: Mapping[str, _EncodedSide],
        time_spec: Spec,
        spec: Spec,
        encoders: Mapping[str, Encoder],
        compared: Mapping[str, np.ndarray],
    ) -> None:
        """Built by `encode_store`; `time_spec` has only the time-dependent features of `spec`."""
        self._compared = compared
        self._sides = sides
        self._time_spec = time_spec
        self._encoders = encoders
        self._spec = spec
        self._crosses = [(side, *cross) for side, features in spec.sides() for cross in _request_crosses(features)]

    def batch(self, user: int, items: np.ndarray, time: int) -> RequestBatch:
        """A request of the user in row `user` for the items in rows `items`; `time` is microseconds since 1970 UTC."""
        index = {"context": np.array([user]), "candidates": items}
        values = {side: encoded.at(index[side]) for side, encoded in self._sides.items()}
        if self._time_spec.context or self._time_spec.candidates:
            stored = {side: encoded.time_columns.take(pa.array(index[side])) for side, encoded in self._sides.items()}
            now = to_batch(_rows(stored["context"], stored["candidates"], time), self._time_spec, self._encoders)
            values["context"] |= now.context
            values["candidates"] |= now.candidates
        for side, name, cross in self._crosses:
            hashes_of_ids = [self._hashed(side, feature, index, time) for feature in cross.of]
            values[side][name] = crossed(hashes_of_ids, cross.rows)
        owner = np.zeros(len(items), np.int64)
        numbers_of_request = request_features.of_requests(
            self._spec, lambda name: self._number(name, items, time), owner, 1
        )
        for side, numbers in numbers_of_request.items():
            values[side] |= {name: bucketed(of, self._encoders.get(name)) for name, of in numbers.items()}
        return RequestBatch(1, values["context"], values["candidates"], owner)

    def _number(self, name: str, items: np.ndarray, time: int) -> np.ndarray:
        """An unscaled number of the items in rows `items` [N]."""
        if name in self._compared:
            return self._compared[name][items]
        feature = self._spec.candidates[name]
        assert isinstance(feature, Number), "the spec refuses anything else"
        column = self._sides["candidates"].time_columns.field(name).take(pa.array(items))
        return number(column, feature, np.full(len(items), time))

    def _hashed(self, side: str, name: str, index: Mapping[str, np.ndarray], time: int) -> Hashed:
        """The hashes of an id for a cross on `side`; those of the context are repeated for every candidate."""
        home = side if name in dict(self._spec.sides())[side] else "context"
        stored = self._sides[home].hashes.get(name)
        if stored is None:  # hour or weekday: the same for all
            clock = hashes(self._spec, home, name, None, np.array([time]))
            return clock.take(np.zeros(len(index[side]), np.int64))
        return stored.take(index[side] if home == side else np.repeat(index[home], len(index[side])))


def encode_store(bundle: Bundle) -> EncodedStore | None:
    """The bundle's store, encoded; None when users or items have no key, or it has more than MAX_CELLS cells."""
    users, items = bundle.store.context, bundle.store.candidates
    if users is None or items is None:
        return None
    spec, encoders = bundle.spec, bundle.preprocessor.encoders
    if _cells(spec.context, users) + _cells(spec.candidates, items) > MAX_CELLS:
        return None
    static = _restricted(spec, time_dependent=False)
    no_user, no_items = pa.nulls(1, users.rows.type), pa.nulls(0, items.rows.type)
    context = to_batch(_rows(users.rows, no_items, 0), static, encoders).context
    candidates = to_batch(_rows(no_user, items.rows, 0), static, encoders).candidates
    time_spec = _restricted(spec, time_dependent=True)
    sides = {
        "context": _encoded(
            context,
            _columns(users.rows, time_spec.context, spec.key_feature("user")),
            _hashes(spec, "context", users.rows),
        ),
        "candidates": _encoded(
            candidates,
            _columns(items.rows, time_spec.candidates, spec.key_feature("item")),
            _hashes(spec, "candidates", items.rows),
        ),
    }
    return EncodedStore(sides, time_spec, spec, encoders, _compared(spec, items.rows))


def _compared(spec: Spec, rows: pa.StructArray) -> dict[str, np.ndarray]:
    """The numbers of items that are compared with those of other candidates, where they do not depend on the time."""
    names = {str(f.of) for f in spec.candidates.values() if isinstance(f, Number) and f.make in COMPARED}
    features = {name: f for name, f in spec.candidates.items() if name in names and isinstance(f, Number)}
    return {
        name: number(rows.field(name), feature, np.zeros(len(rows), np.int64))
        for name, feature in features.items()
        if not _time_dependent(feature)
    }


def _cells(features: Mapping[str, AnyFeature], table: EntityTable) -> int:
    return len(table.rows) * sum(map(_width, features.values()))


def _width(feature: AnyFeature) -> int:
    if isinstance(feature, Vector):
        return feature.size
    return 0 if isinstance(feature, Kept) else feature.last if isinstance(feature, Ids) else 1


def _request_crosses(features: Mapping[str, AnyFeature]) -> list[tuple[str, Id]]:
    """The crosses computed per request: with an id of the other side, or with the hour or the weekday."""
    stored = {name for name, feature in features.items() if field_type(feature) is not None}
    return [(name, cross) for name, cross in crosses(features).items() if not stored.issuperset(cross.of)]


def _hashes(spec: Spec, side: str, rows: pa.StructArray) -> dict[str, Hashed]:
    """The hashes of a side's stored ids that are inputs of `_request_crosses`."""
    stored = {name for name, feature in dict(spec.sides())[side].items() if field_type(feature) is not None}
    request_crosses = [cross for _, features in spec.sides() for _, cross in _request_crosses(features)]
    needed = dict.fromkeys(name for cross in request_crosses for name in cross.of if name in stored)
    return {name: hashes(spec, side, name, rows.field(name), np.zeros(0)) for name in needed}


def _restricted(spec: Spec, *, time_dependent: bool) -> Spec:
    """The spec with only its time-dependent features, or only the others."""
    sides = {}
    for side, features in spec.sides():
        request_crosses = dict(_request_crosses(features))
        sides[side] = {
            name: feature
            for name, feature in features.items()
            if not isinstance(feature, Kept)
            and name not in request_crosses
            and getattr(feature, "make", "") not in IN_REQUEST
            and _time_dependent(feature) == time_dependent
        }
    return spec.model_copy(update=sides)


def _time_dependent(feature: AnyFeature) -> bool:
    return getattr(feature, "make", "column") in (*CLOCKS, *MOMENTS)


def _columns(rows: pa.StructArray, features: Mapping[str, AnyFeature], key: str | None) -> pa.StructArray:
    """The stored columns of these features, and the key, so that there is at least one."""
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


def _encoded(
    values: Mapping[str, np.ndarray], time_columns: pa.StructArray, hashed: Mapping[str, Hashed]
) -> _EncodedSide:
    ids = {name: value for name, value in values.items() if value.ndim == 1 and value.dtype == np.int64}
    numbers = {name: value for name, value in values.items() if value.ndim == 1 and value.dtype == np.float32}
    wide = {name: value for name, value in values.items() if value.ndim == 2}
    count = len(time_columns)
    return _EncodedSide(
        id_names=tuple(ids),
        ids=np.stack(list(ids.values()), axis=1).astype(np.int32) if ids else np.zeros((count, 0), np.int32),
        number_names=tuple(numbers),
        numbers=np.stack(list(numbers.values()), axis=1) if numbers else np.zeros((count, 0), np.float32),
        lists={name: value.astype(np.int32) for name, value in wide.items() if value.dtype == np.int64},
        vectors={name: value for name, value in wide.items() if value.dtype == np.float32},
        time_columns=time_columns,
        hashes=hashed,
    )
