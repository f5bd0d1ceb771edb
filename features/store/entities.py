"""The latest row of every user or item: features in the session table's types, and rows of their totals.

Columns are plain arrays, so reading rows is one indexed read per column, and a new row overwrites the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.sweep.key_group import KeyGroup
from features.sweep.key_rows import resized
from features.transforms import attributes
from features.transforms.counters import asked_by, counters
from features.transforms.joins import ColumnOrigin, column_of
from rec.data.session_table import field_type
from rec.spec import AnyFeature, Id, Kept, Number, Spec
from rec.spec.features import PAST

KEY, SEEN = "@key", "@seen"
_COMPUTED = (*PAST, "history", "gaps", "session_requests", "session_seconds")
_FIRST = 1024  # rows there is room for from the beginning
_DENSE = 16  # keys below so many times their count are looked up in a plain array


@dataclass(frozen=True)
class EntityField:
    """A column of the latest rows: a feature as the session table stores it, or the hash of what is counted by."""

    name: str
    column: str
    kind: pa.DataType
    side: str
    feature: AnyFeature | None = None

    def of(self, spec: Spec, values: pl.Series) -> pa.Array:
        """The values of its column, as it stores them."""
        if self.feature is None:
            return pa.array(hashing.hashed(values), mask=values.is_null().to_numpy() if values.null_count() else None)
        values_of = attributes.attribute(spec, f"{self.side}.{self.name}", self.feature, values)
        return values_of if values_of.type == self.kind else values_of.cast(self.kind)

    def direct(self, kind: pl.DataType) -> pa.DataType | None:
        """What values of a column of type `kind` are in Arrow before `of` only copies them; None where it does more."""
        whole = kind.is_integer()
        if isinstance(self.feature, Id | Kept):
            same = pa.int64() if whole else {pl.Float64(): pa.float64(), pl.String(): pa.string()}.get(kind)
            return same if same == self.kind else None
        plain = isinstance(self.feature, Number) and self.feature.make == "column" and (whole or kind.is_float())
        return pa.float32() if plain else None


def fields(spec: Spec, side: str) -> list[EntityField]:
    """What is read for a side: its attributes, then the hashes of columns that its counters are per."""
    fields_of = []
    for name, feature in dict(spec.sides())[side].items():
        kind = field_type(feature)
        if kind is not None and getattr(feature, "make", "column") not in _COMPUTED:
            fields_of.append(EntityField(name, column_of(feature, name, spec), kind, side, feature))
    per = [column for counter in counters(spec) if counter.side == side for column in asked_by(counter.per)]
    return fields_of + [EntityField(hash_of(side, column), column, pa.uint64(), side) for column in dict.fromkeys(per)]


def hash_of(side: str, column: str) -> str:
    """What the hash of a column is called that counters of a side are per."""
    return f"{side}#{column}"


def table_of(spec: Spec, origins: Mapping[str, ColumnOrigin], field: EntityField) -> str:
    """Whose latest rows have a column: "users" or "items"; of impressions, the side's own."""
    origin = origins[field.column].table
    if field.column in (spec.keys.user, spec.keys.item):
        return "users" if field.column == spec.keys.user else "items"
    if origin == "impressions":
        return "users" if field.side == "context" else "items"
    return origin


class Entities:
    """Rows by key. Row 0 is that of everybody nothing is known of.

    >>> latest.take(["city"], latest.find([7, 12345]))
    {"city": ["Delft", null]}
    """

    def __init__(self, nothing: Mapping[str, pa.Array], totals: Mapping[str, KeyGroup]) -> None:
        """No rows; `nothing` is row 0, one value of each column. `totals` are those per one hash alone, by its name."""
        self.row_of: dict[object, int] = {}
        self._totals = totals
        kinds = {name: column.type for name, column in nothing.items()}
        self._blocks = [_Block({n: k for n, k in kinds.items() if _width(k) == width}, width) for width in (4, 8)]
        self._words = {name: _TextColumn() for name, kind in kinds.items() if kind == pa.string()}
        others = [name for name, kind in kinds.items() if _width(kind) == 0 and name not in self._words]
        self._objects = {name: np.zeros(_FIRST, object) for name in others}
        self._dense: np.ndarray | None = np.zeros(1, np.int64)  # rows by key, where keys are small whole numbers
        self._kinds = kinds
        self._counted = {name: np.zeros(_FIRST, np.int64) for name in totals}
        self._seen = np.full(_FIRST, np.iinfo(np.int64).min)
        self._write(np.zeros(1, np.int64), nothing)

    def find(self, keys: Sequence[object] | np.ndarray) -> np.ndarray:
        """The rows of keys [n]; 0 where there is none."""
        if not isinstance(keys, np.ndarray):
            return np.fromiter(map(self.row_of.get, keys, repeat(0)), np.int64, len(keys))
        if self._dense is not None:
            # as unsigned numbers, negative ones are too large as well
            return self._dense[np.minimum(keys.view(np.uint64), np.uint64(len(self._dense) - 1))]
        return np.fromiter(map(self.row_of.get, keys.tolist(), repeat(0)), np.int64, len(keys))

    def take(self, names: Sequence[str], rows: np.ndarray) -> dict[str, pa.Array]:
        """Some columns of some rows."""
        columns = {name: self._words[name].take(rows) for name in names if name in self._words}
        columns |= {n: pa.array(self._objects[n][rows], self._kinds[n]) for n in names if n in self._objects}
        for block in self._blocks:
            columns |= block.take([name for name in names if name in block.place], rows)
        return columns

    def hashed(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The hashes in a column of some rows [n] uint64, and where there is one [n] bool."""
        return self._blocks[1].bits(name, rows)

    def counted(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Where the totals per a hash are of some rows [n]; -1 where the hash is missing."""
        return self._counted[name][rows]

    def put(self, keys: Sequence[object], columns: Mapping[str, pa.Array]) -> None:
        """New values of some columns of keys, none twice; the other columns stay as they were."""
        rows, before = self.find(keys), len(self.row_of)
        new = np.flatnonzero(rows == 0)
        rows[new] = np.arange(before + 1, before + 1 + len(new))
        added = [keys[place] for place in new.tolist()]
        self.row_of.update(zip(added, rows[new].tolist(), strict=True))
        self._room(before + 1, len(self.row_of) + 1)
        self._index(added, rows[new])
        self._write(rows, columns)

    def see(self, keys: Sequence[object], time: np.ndarray, columns: Mapping[str, pa.Array]) -> None:
        """The same of what was seen at some timestamps [n], unless something later was seen before."""
        newer = np.flatnonzero(time >= self._seen[self.find(keys)])
        index = pa.array(newer)
        chosen = [keys[place] for place in newer.tolist()]
        self.put(chosen, {name: column.take(index) for name, column in columns.items()})
        self._seen[self.find(chosen)] = time[newer]

    def table(self, names: Sequence[str]) -> pa.Table:
        """Some columns of every key that was seen, and when it was, to be saved."""
        rows = np.arange(1, len(self.row_of) + 1)
        seen = self._seen[rows] > np.iinfo(np.int64).min
        columns = {KEY: pa.array(list(self.row_of)).filter(pa.array(seen)), SEEN: pa.array(self._seen[rows[seen]])}
        taken = self.take(names, rows[seen])
        return pa.table(columns | {name: taken[name] for name in names})

    def _index(self, added: Sequence[object], rows: np.ndarray) -> None:
        """Find keys that are small whole numbers in an array of their own, whose last place is nobody's."""
        if self._dense is None or not added:
            return
        index = np.asarray(added)
        if index.dtype.kind != "i" or index.min() < 0 or index.max() > _DENSE * len(self.row_of) + _FIRST:
            self._dense = None
            return
        self._dense = resized(self._dense, int(index.max()) + 2)
        self._dense[index] = rows

    def _room(self, begin: int, end: int) -> None:
        """New rows are as row 0 until they are written."""
        for block in self._blocks:
            block.room(begin, end)
        for words in self._words.values():
            words.room(begin, end)
        for name, values in self._objects.items():
            self._objects[name] = resized(values, end)
            for place in range(begin, end):
                self._objects[name][place] = self._objects[name][0]
        for name, values in self._counted.items():
            self._counted[name] = resized(values, end)
            self._counted[name][begin:end] = self._counted[name][0]
        self._seen = resized(self._seen, end)
        self._seen[begin:end] = self._seen[0]

    def _write(self, rows: np.ndarray, columns: Mapping[str, pa.Array]) -> None:
        for name, values in columns.items():
            known = values.is_valid().to_numpy(zero_copy_only=False)
            if name in self._words:
                self._words[name].put(rows, values)
            elif name in self._objects:
                for row, value in zip(rows.tolist(), values.to_pylist(), strict=True):
                    self._objects[name][row] = value
            else:
                block = next(block for block in self._blocks if name in block.place)
                block.put(name, rows, values, known)
            if name in self._totals:
                self._counted[name][rows] = self._totals[name].rows(values.fill_null(0).to_numpy(), known)


class _Block:
    """Columns of numbers of one width, side by side, so that what is known of a key lies in one place."""

    def __init__(self, kinds: Mapping[str, pa.DataType], width: int) -> None:
        self.place = {name: place for place, name in enumerate(kinds)}
        self._kinds = kinds
        self._values = np.zeros((_FIRST, len(kinds)), f"u{width}")
        self._known = np.zeros((_FIRST, len(kinds)), bool)

    def room(self, begin: int, end: int) -> None:
        """New rows, as row 0."""
        self._values, self._known = resized(self._values, end), resized(self._known, end)
        self._values[begin:end], self._known[begin:end] = self._values[0], self._known[0]

    def put(self, name: str, rows: np.ndarray, values: pa.Array, known: np.ndarray) -> None:
        """Write a column's values over rows [n]."""
        self._known[rows, self.place[name]] = known
        if len(values):
            bits = np.frombuffer(values.buffers()[1], self._values.dtype)
            self._values[rows, self.place[name]] = bits[values.offset : values.offset + len(values)]

    def take(self, names: Sequence[str], rows: np.ndarray) -> dict[str, pa.Array]:
        """Some columns of rows [n]."""
        if not names:
            return {}
        values, known = self._values[rows], self._known[rows]
        columns: dict[str, pa.Array] = {}
        whole = np.all(known, axis=0).tolist()
        for name in names:
            place = self.place[name]
            valid = None if whole[place] else bitmap(known[:, place])
            columns[name] = plain(self._kinds[name], np.ascontiguousarray(values[:, place]), valid)
        return columns

    def bits(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A column of rows [n] as it lies in memory, and where there is a value [n] bool."""
        place = self.place[name]
        return self._values[rows, place], self._known[rows, place]


class _TextColumn:
    """A column of text: a number per row, and the words they stand for, as Arrow as far as they are old."""

    def __init__(self) -> None:
        self._codes = np.zeros(_FIRST, np.int32)
        self._code_of: dict[str | None, int] = {None: 0}
        self._words: list[str | None] = [None]
        self._old = pa.array(self._words, pa.string())

    def room(self, begin: int, end: int) -> None:
        """New rows, as row 0."""
        self._codes = resized(self._codes, end)
        self._codes[begin:end] = self._codes[0]

    def put(self, rows: np.ndarray, values: pa.Array) -> None:
        """Write words over rows [n]."""
        for row, word in zip(rows.tolist(), values.to_pylist(), strict=True):
            code = self._code_of.setdefault(word, len(self._words))
            if code == len(self._words):
                self._words.append(word)
            self._codes[row] = code
        # now and then, so that it costs little however many words there are
        if len(self._words) > len(self._old) + len(self._old) // 8:
            self._old = pa.array(self._words, pa.string())

    def take(self, rows: np.ndarray) -> pa.Array:
        """The words of rows [n]."""
        codes = self._codes[rows]
        if len(codes) and codes.max() >= len(self._old):
            return pa.array([self._words[code] for code in codes.tolist()], pa.string())
        return self._old.take(pa.array(codes))


def _width(kind: pa.DataType) -> int:
    """Bytes of a number of a type; 0 where it is something else."""
    return kind.bit_width // 8 if pa.types.is_primitive(kind) else 0


def bitmap(known: np.ndarray) -> pa.Buffer | None:
    """Where there is a value [n] bool, as Arrow has it; None where there is one everywhere."""
    return None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))


def plain(kind: pa.DataType, values: np.ndarray, valid: pa.Buffer | None) -> pa.Array:
    """Numbers [n] as an Arrow array of a type of their width, null where `bitmap` says so."""
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(values)])
