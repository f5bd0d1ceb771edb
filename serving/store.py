"""The online store: the latest row of every known user and item, mapped from two Arrow files of the bundle.

    store/context.arrow      key | user_id  history  activity ...     sorted by key, read by memory map
    store/candidates.arrow   key | item_id  author   price ...

A request sends ids and whatever it knows better; `hydrate` fills in the rest. What the request says wins, null
included: a null in a request means "known to be missing". Of an unknown user or item only the id is not null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data import arrow_file
from rec.data.session_table import side_fields
from rec.errors import BundleError
from rec.spec import Spec

# int keys whose values span less than this many times their count are looked up in a plain array
_DENSE = 16

Find = Callable[[pa.Array], np.ndarray]


@dataclass(frozen=True, slots=True)
class Sent:
    """One column of a request: its values [n], and where they were given [n] bool (None: everywhere)."""

    values: pa.Array
    given: np.ndarray | None = None


@dataclass(frozen=True)
class Side:
    """The stored rows of one side, and how to find a key among them.

    >>> side.find(pa.array([7, 12345]))
    array([ 3, -1])
    """

    rows: pa.StructArray
    find: Find


@dataclass(frozen=True)
class Filled:
    """Rows of one side as a session table holds them [n]; which of them the store knew [n] bool (None: no store)."""

    rows: pa.StructArray
    known: np.ndarray | None


@dataclass(frozen=True)
class Store:
    """Both sides; a side is None when the spec names no key for it."""

    context: Side | None
    candidates: Side | None
    fields: Mapping[str, Mapping[str, pa.Field]]
    keys: Mapping[str, str | None]

    def hydrate(self, side: str, sent: Mapping[str, Sent], count: int) -> Filled:
        """The `count` rows of a side ("context" or "candidates"): sent values, then stored ones, then null."""
        stored = self.context if side == "context" else self.candidates
        key = self.keys[side]
        if stored is None or key is None:
            return Filled(self._assembled(side, sent, {}, count), None)
        index = stored.find(sent[key].values) if key in sent else np.full(count, -1)
        known = index >= 0
        found = _take(stored.rows, index)
        if len(sent) == 1 and key in sent and known.all():
            # nothing but known ids was sent: the stored rows are the answer
            return Filled(found, known)
        columns = dict(zip(self.fields[side], found.flatten(), strict=True))
        return Filled(self._assembled(side, sent, columns, count), known)

    def _assembled(
        self, side: str, sent: Mapping[str, Sent], stored: Mapping[str, pa.Array], count: int
    ) -> pa.StructArray:
        fields = self.fields[side]
        if not fields:
            return pa.array([{}] * count, pa.struct([]))
        columns = [_merged(sent.get(name), stored.get(name), field.type, count) for name, field in fields.items()]
        return pa.StructArray.from_arrays(columns, fields=list(fields.values()))


def load(spec: Spec, folder: Path) -> Store:
    """Map the store of a bundle; BundleError when a file is absent, broken, or of another schema."""
    fields = {side: {field.name: field for field in side_fields(features)} for side, features in spec.sides()}
    keys = {"context": spec.keys.user, "candidates": spec.keys.item}
    context, candidates = (
        None if key is None else _side(folder / f"{side}.arrow", fields[side], key) for side, key in keys.items()
    )
    return Store(context, candidates, fields, keys)


def _side(path: Path, fields: Mapping[str, pa.Field], key: str) -> Side:
    table = arrow_file.read(path, what="table of the store")
    for name, kind in [("key", fields[key].type), *((field.name, field.type) for field in fields.values())]:
        found = table.schema.field(name).type if name in table.schema.names else None
        if found != kind:
            raise BundleError(f"{path.name}: {name}: expected {kind}, got {found or 'no such column'}")
    # one chunk stays mapped, several are copied into one
    keys = table["key"].combine_chunks()
    if keys.null_count:
        raise BundleError(f"{path.name}: key: expected no null, got {keys.null_count}")
    columns = [table[name].combine_chunks() for name in fields]
    rows = pa.StructArray.from_arrays(columns, fields=list(fields.values()))
    return Side(rows, _find_int(keys, path) if pa.types.is_integer(keys.type) else _find_string(keys))


def _find_int(keys: pa.Array, path: Path) -> Find:
    """Rows of int keys, -1 where unknown: by a plain array where keys are dense, by bisection where not."""
    known = keys.to_numpy(zero_copy_only=False)
    if np.any(known[1:] <= known[:-1]):
        raise BundleError(f"{path.name}: key: expected sorted keys without repeats")
    if not len(known):
        return lambda ids: np.full(len(ids), -1)
    if known[0] >= 0 and known[-1] < _DENSE * len(known) + 1024:
        return _find_dense(known)

    def find(ids: pa.Array) -> np.ndarray:
        wanted = ids.fill_null(0).to_numpy(zero_copy_only=False)
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        present = True if ids.null_count == 0 else pc.is_valid(ids).to_numpy(zero_copy_only=False)
        return np.where((known[place] == wanted) & present, place, -1)

    return find


def _find_dense(known: np.ndarray) -> Find:
    row_of = np.full(int(known[-1]) + 2, -1)
    row_of[known] = np.arange(len(known))
    last = len(row_of) - 1  # never a key, so its row is -1

    def find(ids: pa.Array) -> np.ndarray:
        wanted = (ids.fill_null(last) if ids.null_count else ids).to_numpy(zero_copy_only=False)
        # as unsigned numbers, negative ones are too large as well
        return row_of[np.minimum(wanted.view(np.uint64), np.uint64(last))]

    return find


def _find_string(keys: pa.Array) -> Find:
    row_of = {word: row for row, word in enumerate(keys.to_pylist())}

    def find(ids: pa.Array) -> np.ndarray:
        return np.array([row_of.get(word, -1) for word in ids.to_pylist()], np.int64)

    return find


def _take(rows: pa.StructArray, index: np.ndarray) -> pa.StructArray:
    """The rows at `index`, null where it is -1. One row is a slice: no copy."""
    if len(index) == 1 and index[0] >= 0:
        return rows.slice(int(index[0]), 1)
    return rows.take(pa.array(index, mask=index < 0))


def _merged(sent: Sent | None, stored: pa.Array | None, kind: pa.DataType, count: int) -> pa.Array:
    if sent is not None and sent.given is None:
        return sent.values
    stored = pa.nulls(count, kind) if stored is None else stored
    return stored if sent is None else pc.if_else(pa.array(sent.given), sent.values, stored)
