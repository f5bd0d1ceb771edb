"""A request hydrated to a session-table row: values sent, latest rows of its user and items, and aggregates.

No Python loop over candidates: a column is one indexed array read, and so are all counters of a key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.store.entities import Entities, EntityField, bitmap, fields, hash_of, plain, table_of
from features.store.request_values import FeatureRequest, RequestValues
from features.sweep.history_values import HistoryValues
from features.sweep.sweep import Sweep
from features.transforms.counters import NEVER, asked_by
from features.transforms.joins import ColumnOrigin
from rec.data.session_table import TIME, schema
from rec.errors import DataError, nearest
from rec.spec import Spec

SIDES = ("context", "candidates")


class Hydrator:
    """Hydrates requests from the store's entities and aggregates."""

    def __init__(
        self,
        spec: Spec,
        origins: Mapping[str, ColumnOrigin],
        kinds: Mapping[str, pl.DataType],
        *,
        sweep: Sweep,
        values: Mapping[str, HistoryValues],
        latest: Mapping[str, Entities],
    ) -> None:
        """`kinds` are the types of the columns in the logs."""
        self.spec, self.kinds = spec, kinds
        self.sweep, self.values, self.latest = sweep, values, latest
        self.shape = schema(spec, labels=False)
        self.fields = {side: {field.name: field for field in fields(spec, side)} for side in SIDES}
        counters = sweep.counters
        self.readers = {side: list(dict.fromkeys(c.per for c in counters if c.side == side)) for side in SIDES}
        self.bases: dict[str, float] | None = None
        self.direct = {f.name: f.direct(kinds[f.column]) for side in self.fields.values() for f in side.values()}
        self.tables = {f.name: table_of(spec, origins, f) for side in self.fields.values() for f in side.values()}
        self.shown = {side: [f for f in self.fields[side].values() if f.feature is not None] for side in SIDES}
        sides = {
            "context": self.shape.field("context").type,
            "candidates": self.shape.field("candidates").type.value_type,
        }
        self._parts = {side: ([part.name for part in kind], list(kind)) for side, kind in sides.items()}
        self._called = {side: self._names(side) for side in SIDES}
        self._ways: dict[tuple[str, frozenset[str], frozenset[str]], _HydrationPlan] = {}

    def request(
        self,
        time: int,
        request_id: str,
        *,
        user: object,
        items: Sequence[object],
        context: Mapping[str, object],
        candidates: Mapping[str, Sequence[object]],
    ) -> FeatureRequest:
        """A request of values by the names of features or of columns of the logs.

        Raises DataError for a name that is neither, a column of another length than `items`, a value of another type.
        """
        keyed = self.spec.keys
        request = {**({} if keyed.user is None else {keyed.user: user}), **context}
        if keyed.session is not None:
            request.setdefault(keyed.session, None)
        many = {**({} if keyed.item is None else {keyed.item: items}), **candidates}
        sent = dict(self._sent("context", name, [value]) for name, value in request.items())
        columns = dict(self._sent("candidates", name, values) for name, values in many.items())
        for name, column in columns.items():
            if len(column) != len(items):
                raise DataError(f"candidates.{name}: expected {len(items)} values, one per item, got {len(column)}")
        return FeatureRequest(time, request_id, sent, columns, len(items))

    def row(self, request: FeatureRequest) -> pa.RecordBatch:
        """The session-table row, without labels."""
        filling = _RowBuilder(self, request)
        sides = {side: filling.side(side) for side in SIDES}
        context, candidates = (
            pa.StructArray.from_arrays([sides[side][name] for name in names], fields=parts)
            if names
            else pa.array([{}] * (1 if side == "context" else request.count), pa.struct([]))
            for side, (names, parts) in self._parts.items()
        )
        lists = pa.ListArray.from_arrays(
            pa.array([0, request.count], pa.int32()), candidates, type=self.shape.field("candidates").type
        )
        columns = [pa.array([request.request_id], pa.string()), pa.array([request.time], TIME), context, lists]
        return pa.RecordBatch.from_arrays(columns, schema=self.shape)

    def way(self, side: str, request: FeatureRequest) -> _HydrationPlan:
        """Where each value of a side comes from: computed once for all requests that send the same columns."""
        shape = (side, frozenset(request.context), frozenset(request.candidates))
        if shape not in self._ways:
            self._ways[shape] = self._way(side, request)
        return self._ways[shape]

    def _way(self, side: str, request: FeatureRequest) -> _HydrationPlan:
        def by(column: str) -> str | None:
            if side == "candidates" and column in request.candidates:
                return "candidates"
            if column in request.context:
                return "context"
            # the context is read from the row of the first candidate
            return "first" if column in request.candidates else None

        sent = [(field, sender) for field in self.shown[side] if (sender := by(field.column)) is not None]
        stored: dict[str, list[str]] = {}
        for field in self.shown[side]:
            if by(field.column) is None:
                stored.setdefault(self.tables[field.name], []).append(field.name)
        near, far = [], []
        for per in self.readers[side]:
            parts = [self.fields[side][hash_of(side, column)] for column in asked_by(per)]
            if len(per) == 1 and by(per[0]) is None:
                near.append((per, parts[0]))
            else:
                far.append((per, [(field, by(field.column)) for field in parts]))
        return _HydrationPlan(sent, stored, near, far)

    def _names(self, side: str) -> dict[str, str]:
        """Valid names of sent values: columns of the logs, or features of them."""
        features = {field.name: field.column for field in self.fields[side].values() if field.feature is not None}
        return {**features, **{column: column for column in self.kinds}}

    def _sent(self, side: str, name: str, values: Sequence[object]) -> tuple[str, RequestValues]:
        column = self._called[side].get(name)
        if column is None:
            raise DataError(f"{side}.{name}: no such feature or column{nearest(name, self._called[side])}")
        return column, RequestValues(self.spec, f"{side}.{name}", self.kinds[column], values)


@dataclass(frozen=True)
class _HydrationPlan:
    """Where each value of a side comes from, for requests that send the same columns.

    Features of values `sent` (and by which side of the request), features by the latest rows they are `stored` in, keys
    whose totals are found by a latest row alone (`near`), and keys that have to be looked up (`far`).
    """

    sent: Sequence[tuple[EntityField, str]]
    stored: Mapping[str, Sequence[str]]
    near: Sequence[tuple[tuple[str, ...], EntityField]]
    far: Sequence[tuple[tuple[str, ...], Sequence[tuple[EntityField, str | None]]]]


class _RowBuilder:
    """One request while it is hydrated."""

    def __init__(self, hydrator: Hydrator, request: FeatureRequest) -> None:
        self._of, self._request = hydrator, request

    def side(self, side: str) -> dict[str, pa.Array]:
        """Every stored feature of a side."""
        way = self._of.way(side, self._request)
        columns = {field.name: self._sent(field, by).of(field, self._of.direct[field.name]) for field, by in way.sent}
        for table, names in way.stored.items():
            columns |= self._of.latest[table].take(names, self._rows(side, table))
        for per, field in way.near:
            table = self._of.tables[field.name]
            columns |= self._counted(side, per, self._of.latest[table].counted(field.name, self._rows(side, table)))
        for per, parts in way.far:
            columns |= self._counted(side, per, self._looked_up(side, per, parts))
        if side == "context":
            return columns | self._remembered()
        count = self._request.count
        return {name: column if len(column) == count else _repeated(column, count) for name, column in columns.items()}

    def _sent(self, field: EntityField, by: str) -> RequestValues:
        """The values sent of a field's column: by the context, by the candidates, or by the first of these."""
        if by == "context":
            return self._request.context[field.column]
        sent = self._request.candidates[field.column]
        return sent.first() if by == "first" else sent

    def _rows(self, side: str, table: str) -> np.ndarray:
        """The latest rows of the user [1], of the items [N], or for the context of the first item [1]."""
        if table == "users":
            return self._user
        return self._items[:1] if side == "context" else self._items

    @cached_property
    def _user(self) -> np.ndarray:
        key = self._of.spec.keys.user
        return self._of.latest["users"].find([None] if key is None else self._request.context[key].keys())

    @cached_property
    def _items(self) -> np.ndarray:
        key = self._of.spec.keys.item
        known = [None] * self._request.count if key is None else self._request.candidates[key].keys()
        return self._of.latest["items"].find(known)

    def _looked_up(
        self, side: str, per: tuple[str, ...], parts: Sequence[tuple[EntityField, str | None]]
    ) -> np.ndarray:
        """Where the totals of a key are, of the context [1] or the candidates [N] or [1]; -1 where it is missing."""
        if len(per) == 1 and per[0] in (self._of.spec.keys.user, self._of.spec.keys.item):
            ((field, _),) = parts
            table = self._of.tables[field.name]
            rows = self._rows(side, table)
            if rows.all():  # of somebody who is known the place is, too
                return self._of.latest[table].counted(field.name, rows)
        code, known = [], np.ones(1, bool)
        for field, by in parts:
            table = self._of.tables[field.name]
            stored = self._of.latest[table]
            hashes, present = (
                stored.hashed(field.name, self._rows(side, table)) if by is None else self._sent(field, by).hashed
            )
            code.append(hashes)
            known = known & present
        return np.where(known, self._of.sweep.groups[per].table.find(hashing.combined(code)), -1)

    def _counted(self, side: str, per: tuple[str, ...], places: np.ndarray) -> dict[str, pa.Array]:
        bases = self._of.bases = self._of.bases or self._of.sweep.base_rates()
        known, read = places >= 0, self._of.sweep.groups[per].read(side, places, bases, self._request.time)
        # no base, no rate; no value, no mean
        valid, missing = bitmap(known), any(map(math.isnan, bases.values())) or bool(self._of.sweep.groups[per].values)
        columns = {}
        for name, values in read.items():
            if values.dtype == np.int64:
                columns[name] = plain(TIME, values, bitmap(known & (values != NEVER)))
            else:
                columns[name] = plain(pa.float32(), values, bitmap(~np.isnan(values)) if missing else valid)
        return columns

    def _remembered(self) -> dict[str, pa.Array]:
        """Histories, and features of the session so far."""
        request, sweep = self._request, self._of.sweep
        if not sweep.histories and not sweep.sessions:
            return {}
        keyed = self._of.spec.keys
        user, known = request.context[str(keyed.user)].hashed
        person, now = int(sweep.people.find(user)[0]) if known[0] else 0, np.array([request.time])
        columns = {}
        for name, history in sweep.histories.items():
            times, values = history.read(person)
            columns[name] = self._of.values[name].listed((times, values, np.array([0, len(times)])), now)
        if sweep.sessions:
            session, named = (user, known) if keyed.session is None else request.context[keyed.session].hashed
            earlier = past = 0
            if known[0] and named[0]:
                code = user if keyed.session is None else hashing.combined([user, session])
                earlier, past = sweep.open_sessions.read(int(sweep.open_sessions.table.find(code)[0]), request.time)
            figures = {"session_requests": earlier, "session_seconds": past / 1_000_000}
            columns |= {name: pa.array([figures[make]], pa.float32()) for name, make in sweep.sessions.items()}
        return columns


def _repeated(column: pa.Array, count: int) -> pa.Array:
    return column.take(pa.array(np.zeros(count, np.int64)))
