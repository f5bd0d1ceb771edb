"""The bundle's store: the latest row of every known user and item, memory-mapped from two Arrow files.

Workers of one server map the same copy, so its pages are in memory once; what serving/online/encoded_store.py makes of
them is each worker's own.

    store/context.arrow      @key  @as_of  @seen | user_id  history  activity ...     sorted by @key
    store/candidates.arrow   @key  @as_of  @seen | item_id  author   price ...

A request sends ids and any feature values it has; `hydrate` fills in the rest. A value of the request overrides the
stored one, null included: a null in a request means "known to be missing". For an unknown user or item every column but
the id is null. How old what is stored is, serving/online/ages.py tells from the two moments of every row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data import arrow_file
from rec.data.session_table import TIME, side_fields
from rec.data.stored_rows import AS_OF, KEY, OF_LAST, SEEN
from rec.errors import BundleError
from rec.spec import AnyFeature, Number, Spec

# int keys whose values span less than this many times their count are looked up in a plain array
_DENSE_SPAN = 16

KeyLookup = Callable[[pa.Array], np.ndarray]


@dataclass(frozen=True, slots=True)
class SentColumn:
    """A column of a request: its values [n], and which rows sent one [n] bool (None: all)."""

    values: pa.Array
    present: np.ndarray | None = None


@dataclass(frozen=True)
class RowMoments:
    """When stored rows were true [rows], microseconds since 1970 UTC.

    `as_of` is of what is made of the past and of side tables, `seen` of the features `of_last`: values of the last
    impression.
    """

    as_of: np.ndarray
    seen: np.ndarray
    of_last: frozenset[str]


@dataclass(frozen=True)
class EntityTable:
    """The stored rows of all users, or of all items, and the lookup from key to row; -1 where the key is unknown.

    `moments` are None where the logs had no timestamps.

    >>> table.lookup(pa.array([7, 12345]))
    array([ 3, -1])
    """

    rows: pa.StructArray
    lookup: KeyLookup
    moments: RowMoments | None


@dataclass(frozen=True)
class HydratedRows:
    """Session-table columns [n], and the row of each in the store's table [n], -1 where the key is unknown.

    `index` is None where there is no such table.
    """

    rows: pa.StructArray
    index: np.ndarray | None

    @property
    def known(self) -> np.ndarray | None:
        """Which rows have a known key [n] bool (None: no store)."""
        return None if self.index is None else self.index >= 0


@dataclass(frozen=True)
class EntityStore:
    """The tables of users (context) and of items (candidates); None where the spec names no such key.

    `foreign` are features of a side whose stored value belongs to whatever request came last: null, unless sent.
    """

    context: EntityTable | None
    candidates: EntityTable | None
    fields: Mapping[str, Mapping[str, pa.Field]]
    keys: Mapping[str, str | None]
    foreign: Mapping[str, Mapping[str, frozenset[str]]]

    def table(self, side: str) -> EntityTable | None:
        """The table of a side ("context" or "candidates")."""
        return self.context if side == "context" else self.candidates

    def hydrate(self, side: str, sent: Mapping[str, SentColumn], count: int) -> HydratedRows:
        """The `count` rows of a side ("context" or "candidates"): sent values, then stored ones, then null."""
        stored, key = self.table(side), self.keys[side]
        if stored is None or key is None:
            return HydratedRows(self._assembled(side, sent, {}, count), None)
        index = stored.lookup(sent[key].values) if key in sent else np.full(count, -1)
        rows = _take(stored.rows, index)
        if len(sent) == 1 and key in sent and (index >= 0).all():
            # nothing but known ids was sent: the stored rows are the answer
            return HydratedRows(rows, index)
        lost = self.lost(side, sent)
        stored_columns = zip(self.fields[side], rows.flatten(), strict=True)
        columns = {name: column for name, column in stored_columns if name not in lost}
        return HydratedRows(self._assembled(side, sent, columns, count), index)

    def lost(self, side: str, sent: Mapping[str, SentColumn]) -> set[str]:
        """Features whose stored values are not those of this request, and which it does not send itself.

        >>> store.lost("context", {"user_id": ..., "device": ...})  # counts of the device that came last
        {'device_clicks'}
        """
        own = side == "context"
        return {
            name
            for name, columns in self.foreign[side].items()
            if name not in sent and (not own or not columns.isdisjoint(sent))
        }

    def _assembled(
        self, side: str, sent: Mapping[str, SentColumn], stored: Mapping[str, pa.Array], count: int
    ) -> pa.StructArray:
        fields = self.fields[side]
        if not fields:
            return pa.array([{}] * count, pa.struct([]))
        columns = [_merged(sent.get(name), stored.get(name), field.type, count) for name, field in fields.items()]
        return pa.StructArray.from_arrays(columns, fields=list(fields.values()))


def load(spec: Spec, folder: Path) -> EntityStore:
    """Map the store of a bundle; BundleError when a file is absent, broken, or of another schema."""
    fields = {side: {field.name: field for field in side_fields(features)} for side, features in spec.sides()}
    keys = {"context": spec.key_feature("user"), "candidates": spec.key_feature("item")}
    foreign = {side: _foreign(spec, side) for side, _ in spec.sides()}
    context, candidates = (
        None if key is None else _table(folder / f"{side}.arrow", fields[side], key) for side, key in keys.items()
    )
    if candidates is not None and foreign["candidates"]:
        candidates = _without(candidates, set(foreign["candidates"]))
    return EntityStore(context, candidates, fields, keys, foreign)


def _foreign(spec: Spec, side: str) -> dict[str, frozenset[str]]:
    """Features of a side that look at the past of the request's columns: its device, its session, for an item its user.

    What a user or an item has by itself, the item's shop for instance, is no column of the request.
    """
    user, item = spec.key_feature("user"), spec.key_feature("item")
    users = {spec.keys.user, *_columns({name: f for name, f in spec.context.items() if name == user})}
    of_request = {spec.keys.session, spec.keys.request, *users, *_columns(spec.context)}
    own = users if side == "context" else {spec.keys.item, item, *_columns(spec.candidates)}
    foreign = {}
    for name, feature in dict(spec.sides())[side].items():
        per = feature.per if isinstance(feature, Number) else None
        others = frozenset(({per} if isinstance(per, str) else set(per or ())) & of_request - own - {None})
        if others:
            foreign[name] = others
    return foreign


def _columns(features: Mapping[str, AnyFeature]) -> set[str]:
    """The names of a side's features and the columns that they are read from."""
    return {column for name, feature in features.items() for column in (name, getattr(feature, "column", None) or name)}


def _without(table: EntityTable, names: set[str]) -> EntityTable:
    """A table whose columns of these names are null."""
    fields = list(table.rows.type)
    columns = [
        pa.nulls(len(table.rows), field.type) if field.name in names else column
        for field, column in zip(fields, table.rows.flatten(), strict=True)
    ]
    return replace(table, rows=pa.StructArray.from_arrays(columns, fields=fields))


def _table(path: Path, fields: Mapping[str, pa.Field], key: str) -> EntityTable:
    table = arrow_file.read(path, what="table of the store", full=True)
    own = [(KEY, fields[key].type), (AS_OF, TIME), (SEEN, TIME)]
    for name, kind in [*own, *((field.name, field.type) for field in fields.values())]:
        stored = table.schema.field(name).type if name in table.schema.names else None
        if stored != kind:
            raise BundleError(f"{path.name}: {name}: expected {kind}, got {stored or 'no such column'}")
    keys = _whole(table[KEY])
    if keys.null_count:
        raise BundleError(f"{path.name}: {KEY}: expected no null, got {keys.null_count}")
    columns = [_whole(table[name]) for name in fields]
    rows = pa.StructArray.from_arrays(columns, fields=list(fields.values()))
    lookup = _int_lookup(keys, path) if pa.types.is_integer(keys.type) else _text_lookup(keys)
    return EntityTable(rows, lookup, _moments(table, path))


def _moments(table: pa.Table, path: Path) -> RowMoments | None:
    moments = {}
    for name in (AS_OF, SEEN):
        column = _whole(table[name])
        if column.null_count not in (0, len(column)):
            raise BundleError(f"{path.name}: {name}: expected a moment in every row or in none, got some")
        if column.null_count:
            return None
        moments[name] = column.view(pa.int64()).to_numpy()
    marked = (field.name for field in table.schema if (field.metadata or {}).items() >= OF_LAST.items())
    return RowMoments(moments[AS_OF], moments[SEEN], frozenset(marked))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece: one chunk stays mapped, several are copied."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _int_lookup(keys: pa.Array, path: Path) -> KeyLookup:
    """Lookup of integer keys: a direct-address table if they are dense, otherwise binary search."""
    known = keys.to_numpy(zero_copy_only=False)
    if np.any(known[1:] <= known[:-1]):
        raise BundleError(f"{path.name}: {KEY}: expected sorted keys without repeats")
    if not len(known):
        return lambda ids: np.full(len(ids), -1)
    if known[0] >= 0 and known[-1] < _DENSE_SPAN * len(known) + 1024:
        return _dense_lookup(known)

    def lookup(ids: pa.Array) -> np.ndarray:
        keys_N = ids.fill_null(0).to_numpy(zero_copy_only=False)
        index_N = np.minimum(np.searchsorted(known, keys_N), len(known) - 1)
        valid = True if ids.null_count == 0 else pc.is_valid(ids).to_numpy(zero_copy_only=False)
        return np.where((known[index_N] == keys_N) & valid, index_N, -1)

    return lookup


def _dense_lookup(known: np.ndarray) -> KeyLookup:
    row_of = np.full(int(known[-1]) + 2, -1)
    row_of[known] = np.arange(len(known))
    last = len(row_of) - 1  # never a key, so its row is -1

    def lookup(ids: pa.Array) -> np.ndarray:
        keys_N = (ids.fill_null(last) if ids.null_count else ids).to_numpy(zero_copy_only=False)
        # viewed as unsigned, negative keys are too large as well
        return row_of[np.minimum(keys_N.view(np.uint64), np.uint64(last))]

    return lookup


def _text_lookup(keys: pa.Array) -> KeyLookup:
    row_of = {word: row for row, word in enumerate(keys.to_pylist())}

    def lookup(ids: pa.Array) -> np.ndarray:
        return np.array([row_of.get(word, -1) for word in ids.to_pylist()], np.int64)

    return lookup


def _take(rows: pa.StructArray, index: np.ndarray) -> pa.StructArray:
    """The rows at `index`, null where it is -1. One row is a slice: no copy."""
    if len(index) == 1 and index[0] >= 0:
        return rows.slice(int(index[0]), 1)
    return rows.take(pa.array(index, mask=index < 0))


def _merged(sent: SentColumn | None, stored: pa.Array | None, kind: pa.DataType, count: int) -> pa.Array:
    if sent is not None and sent.present is None:
        return sent.values
    stored = pa.nulls(count, kind) if stored is None else stored
    return stored if sent is None else pc.if_else(pa.array(sent.present), sent.values, stored)
