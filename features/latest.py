"""The latest row of every user or item: features of the session table's types, and rows of the totals they count by.

Columns are plain arrays, so that reading some rows is a gather, and a new row is written over the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import polars as pl
import pyarrow as pa

from features import columns, keys
from features.counts import counters
from features.joins import Origin, column_of
from features.rows import roomy
from features.running import Totals
from rec.arrow import field_type
from rec.spec import AnyFeature, Id, Kept, Number, Spec

KEY, SEEN = "@key", "@seen"
_COMPUTED = ("count", "rate", "since", "history", "gaps", "session_requests", "session_seconds")
_FIRST = 1024  # rows there is room for from the beginning


@dataclass(frozen=True)
class Field:
    """A column of the latest rows: a feature as the session table stores it, or the hash of what is counted by."""

    name: str
    column: str
    kind: pa.DataType
    side: str
    feature: AnyFeature | None = None

    def of(self, spec: Spec, values: pl.Series) -> pa.Array:
        """The values of its column, as it stores them."""
        if self.feature is None:
            return pa.array(keys.hashed(values), mask=values.is_null().to_numpy() if values.null_count() else None)
        made = columns.attribute(spec, f"{self.side}.{self.name}", self.feature, values)
        return made if made.type == self.kind else made.cast(self.kind)

    def direct(self, kind: pl.DataType) -> pa.DataType | None:
        """What values of a column of type `kind` are in Arrow before `of` only copies them; None where it does more."""
        whole = kind.is_integer()
        if isinstance(self.feature, Id | Kept):
            same = pa.int64() if whole else {pl.Float64(): pa.float64(), pl.String(): pa.string()}.get(kind)
            return same if same == self.kind else None
        plain = isinstance(self.feature, Number) and self.feature.make == "column" and (whole or kind.is_float())
        return pa.float32() if plain else None


def fields(spec: Spec, side: str) -> list[Field]:
    """What is read for a side: its attributes, then the hashes of columns that its counters are per."""
    found = []
    for name, feature in dict(spec.sides())[side].items():
        kind = field_type(feature)
        if kind is not None and getattr(feature, "make", "column") not in _COMPUTED:
            found.append(Field(name, column_of(feature, name, spec), kind, side, feature))
    per = [column for counter in counters(spec) if counter.side == side for column in counter.per]
    return found + [Field(hash_of(side, column), column, pa.uint64(), side) for column in dict.fromkeys(per)]


def hash_of(side: str, column: str) -> str:
    """What the hash of a column is called that counters of a side are per."""
    return f"{side}#{column}"


def table_of(spec: Spec, origins: Mapping[str, Origin], field: Field) -> str:
    """Whose latest rows have a column: "users" or "items"; of impressions, the side's own."""
    origin = origins[field.column].table
    if field.column in (spec.keys.user, spec.keys.item):
        return "users" if field.column == spec.keys.user else "items"
    if origin == "impressions":
        return "users" if field.side == "context" else "items"
    return origin


class Latest:
    """Rows by key. Row 0 is that of everybody nothing is known of.

    >>> latest.take("city", latest.find([7, 12345]))
    ["Delft", null]
    """

    def __init__(self, nothing: Mapping[str, pa.Array], totals: Mapping[str, Totals]) -> None:
        """No rows; `nothing` is row 0, one value of each column. `totals` are those per one hash alone, by its name."""
        self.row_of: dict[object, int] = {}
        self._totals = totals
        self._columns = {name: _Column(one.type) for name, one in nothing.items()}
        self._counted = {name: np.zeros(_FIRST, np.int64) for name in totals}
        self._seen = np.full(_FIRST, np.iinfo(np.int64).min)
        self._write(np.zeros(1, np.int64), nothing)

    def find(self, wanted: Sequence[object]) -> np.ndarray:
        """The rows of keys [n]; 0 where there is none."""
        return np.fromiter(map(self.row_of.get, wanted, repeat(0)), np.int64, len(wanted))

    def take(self, name: str, rows: np.ndarray) -> pa.Array:
        """A column of some rows."""
        return self._columns[name].take(rows)

    def hashed(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The hashes in a column of some rows [n], and where there is one [n] bool."""
        return self._columns[name].bits(rows)

    def counted(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Where the totals per a hash are of some rows [n]; -1 where the hash is missing."""
        return self._counted[name][rows]

    def put(self, wanted: Sequence[object], made: Mapping[str, pa.Array]) -> None:
        """New values of some columns of keys, none twice; the other columns stay as they were."""
        rows, before = self.find(wanted), len(self.row_of)
        new = np.flatnonzero(rows == 0)
        rows[new] = np.arange(before + 1, before + 1 + len(new))
        self.row_of.update(zip((wanted[place] for place in new.tolist()), rows[new].tolist(), strict=True))
        self._room(before + 1, len(self.row_of) + 1)
        self._write(rows, made)

    def see(self, wanted: Sequence[object], time: np.ndarray, made: Mapping[str, pa.Array]) -> None:
        """The same of what was seen at some moments [n], unless something later was seen before."""
        newer = np.flatnonzero(time >= self._seen[self.find(wanted)])
        index = pa.array(newer)
        chosen = [wanted[place] for place in newer.tolist()]
        self.put(chosen, {name: column.take(index) for name, column in made.items()})
        self._seen[self.find(chosen)] = time[newer]

    def table(self, names: Sequence[str]) -> pa.Table:
        """Some columns of every key that was seen, and when it was, to be saved."""
        rows = np.arange(1, len(self.row_of) + 1)
        seen = self._seen[rows] > np.iinfo(np.int64).min
        made = {KEY: pa.array(list(self.row_of)).filter(pa.array(seen)), SEEN: pa.array(self._seen[rows[seen]])}
        return pa.table(made | {name: self.take(name, rows[seen]) for name in names})

    def _room(self, begin: int, end: int) -> None:
        """New rows are as row 0 until they are written."""
        for column in self._columns.values():
            column.room(begin, end)
        for name, kept in self._counted.items():
            self._counted[name] = roomy(kept, end)
            self._counted[name][begin:end] = self._counted[name][0]
        self._seen = roomy(self._seen, end)
        self._seen[begin:end] = self._seen[0]

    def _write(self, rows: np.ndarray, made: Mapping[str, pa.Array]) -> None:
        for name, values in made.items():
            self._columns[name].put(rows, values)
            if name in self._totals:
                code, missing = values.fill_null(0).to_numpy(), np.zeros(len(values), bool)
                if values.null_count:
                    missing = values.is_null().to_numpy(zero_copy_only=False)
                self._counted[name][rows] = self._totals[name].add(code, missing)


class _Column:
    """The values of one column: numbers as they lie in Arrow, anything else as Python objects."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._plain = np.dtype(f"u{kind.bit_width // 8}") if pa.types.is_primitive(kind) else None
        self._values = np.zeros(_FIRST, self._plain or object)
        self._known = np.zeros(_FIRST, bool)

    def room(self, begin: int, end: int) -> None:
        """New rows, as row 0."""
        self._values, self._known = roomy(self._values, end), roomy(self._known, end)
        self._known[begin:end] = self._known[0]
        if self._plain is None:
            for place in range(begin, end):
                self._values[place] = self._values[0]
        else:
            self._values[begin:end] = self._values[0]

    def put(self, rows: np.ndarray, values: pa.Array) -> None:
        """Write values over rows [n]."""
        self._known[rows] = values.is_valid().to_numpy(zero_copy_only=False)
        if self._plain is None:
            for row, value in zip(rows.tolist(), values.to_pylist(), strict=True):
                self._values[row] = value
        elif len(values):
            bits = np.frombuffer(values.buffers()[1], self._plain)
            self._values[rows] = bits[values.offset : values.offset + len(values)]

    def take(self, rows: np.ndarray) -> pa.Array:
        """Values of rows [n]."""
        if self._plain is None:
            return pa.array(self._values[rows], self._kind)
        values, known = self.bits(rows)
        return plain(self._kind, values, bitmap(known))

    def bits(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of rows as they lie in memory [n], and where there is one [n] bool."""
        return self._values[rows], self._known[rows]


def bitmap(known: np.ndarray) -> pa.Buffer | None:
    """Where there is a value [n] bool, as Arrow has it; None where there is one everywhere."""
    return None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))


def plain(kind: pa.DataType, values: np.ndarray, valid: pa.Buffer | None) -> pa.Array:
    """Numbers [n] as an Arrow array of a type of their width, null where `bitmap` says so."""
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(values)])
