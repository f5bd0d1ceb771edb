"""Encoders: ids to rows of an embedding table, the same on every machine and in every process.

Row 0 is "missing or unknown" in every table. A vocabulary gives each value seen often enough in training its own row;
hashing spreads all values over a fixed number of rows with no state at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.atomic import read_json, write_json
from rec.data import arrow_file
from rec.errors import DataError
from rec.spec import AnyFeature, Id, Ids, Number, Spec
from rec.spec.features import CLOCKS

# an int vocabulary whose values span less than this many times its size is looked up in a plain array
_DENSE = 16
_MIX = tuple(map(np.uint64, (0x9E3779B97F4A7C15, 30, 0xBF58476D1CE4E5B9, 27, 0x94D049BB133111EB, 31)))

Finder = Callable[[pa.Array], np.ndarray]


class Encoder(Protocol):
    """Ids to rows of one table."""

    @property
    def rows(self) -> int:
        """How many rows the table has, row 0 included."""
        ...

    def __call__(self, ids: pa.Array) -> np.ndarray:
        """Rows [len(ids)] int64 in [0, self.rows); 0 for null and unknown."""
        ...


class Vocabulary:
    """One row per known value: the i-th value has row i + 1.

    >>> Vocabulary(pa.array(["a", "b"]))(pa.array(["b", None, "c"]))
    array([2, 0, 0])
    """

    def __init__(self, values: pa.Array) -> None:
        """Values in row order, without nulls or repeats: int64 or string."""
        self.values = values
        self.rows = len(values) + 1
        self._find = _int_finder(values) if pa.types.is_integer(values.type) else _string_finder(values)

    def __call__(self, ids: pa.Array) -> np.ndarray:
        """Rows of `ids`; 0 for null and unknown."""
        return self._find(ids)


@dataclass(frozen=True)
class Hashed:
    """A 64-bit hash of every value [n] uint64, and which values are not null [n] bool."""

    bits: np.ndarray
    known: np.ndarray

    def rows(self, rows: int) -> np.ndarray:
        """Rows 1 .. rows - 1 of an embedding table [n] int64, 0 for null."""
        return np.where(self.known, (self.bits % np.uint64(rows - 1)).astype(np.int64) + 1, 0)

    def mixed(self, other: Hashed) -> Hashed:
        """Hashes of ordered pairs; null where either value is."""
        return Hashed(mix(mix(self.bits) ^ other.bits), self.known & other.known)

    def take(self, index: np.ndarray) -> Hashed:
        """The hashes at `index`."""
        return Hashed(self.bits[index], self.known[index])


@dataclass(frozen=True)
class Hash:
    """Rows 1 .. rows - 1 by a fixed 64-bit mix (ints, SplitMix64) or digest (strings, BLAKE2b); null is 0."""

    rows: int

    def __call__(self, ids: pa.Array) -> np.ndarray:
        """Rows of `ids`; 0 for null."""
        return hashed(ids).rows(self.rows)


class Buckets:
    """One row per bucket of a number: 1 below the first edge, k + 1 from the k-th edge on.

    >>> Buckets([0.5, 2.0])(pa.array([0.0, 0.5, None, 9.0], pa.float32()))
    array([1, 2, 0, 3])
    """

    def __init__(self, edges: Sequence[float]) -> None:
        """Distinct ascending edges, each a float32."""
        self.edges = np.array(edges, np.float32)
        self.rows = len(edges) + 2

    def __call__(self, ids: pa.Array) -> np.ndarray:
        """Rows of float32 numbers; 0 for null and NaN."""
        numbers = (ids.fill_null(float("nan")) if ids.null_count else ids).to_numpy(zero_copy_only=False)
        return np.where(np.isnan(numbers), 0, 1 + np.searchsorted(self.edges, numbers, side="right"))


def hashed(ids: pa.Array) -> Hashed:
    """Int or string ids, hashed: a fixed 64-bit mix of ints (SplitMix64), a digest of strings (BLAKE2b)."""
    if pa.types.is_integer(ids.type):
        bits = mix((ids.fill_null(0) if ids.null_count else ids).to_numpy(zero_copy_only=False))
    else:
        codes = ids.dictionary_encode()
        digests = [0 if word is None else _digest(word) for word in codes.dictionary.to_pylist()]
        bits = np.array([*digests, 0], np.uint64)[codes.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return Hashed(bits, np.broadcast_to(_present(ids), len(ids)))


def counted(values: pa.Array) -> pa.Table:
    """Columns `value` and `count`, in order of first occurrence; nulls are not counted."""
    counts = pc.value_counts(values)
    table = pa.table({"value": counts.field("values"), "count": counts.field("counts")})
    return table.filter(table["value"].is_valid()) if values.null_count else table


def vocabulary_of(counts: pa.Table, *, min_count: int) -> Vocabulary:
    """The vocabulary of the values that occur at least `min_count` times, most frequent first."""
    frequent = counts.filter(pc.greater_equal(counts["count"], min_count))
    frequent = frequent.sort_by([("count", "descending"), ("value", "ascending")])
    return Vocabulary(frequent["value"].combine_chunks())


def save(encoders: Mapping[str, Encoder], folder: Path) -> None:
    """Write every vocabulary as `<table>.arrow` and all bucket edges as `buckets.json`; hashing has no state."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, encoder in encoders.items():
        if isinstance(encoder, Vocabulary):
            arrow_file.write(folder / f"{name}.arrow", pa.table({"value": encoder.values}))
    edges = {name: encoder.edges.tolist() for name, encoder in encoders.items() if isinstance(encoder, Buckets)}
    if edges:
        write_json(folder / "buckets.json", edges)


def load(spec: Spec, folder: Path) -> dict[str, Encoder]:
    """The encoder of every table of the spec, vocabularies and edges read from `folder`."""
    encoders = stateless(spec)
    for name, feature in spec.tables().items():
        if isinstance(feature, Number):
            encoders[name] = Buckets(read_json(folder / "buckets.json", dict)[name])
        elif has_vocabulary(feature):
            values = arrow_file.read(folder / f"{name}.arrow", what="vocabulary", full=True)
            encoders[name] = Vocabulary(values["value"].combine_chunks())
    return encoders


def stateless(spec: Spec) -> dict[str, Encoder]:
    """The encoders that need no fitting: hashes of ids and of crosses."""
    return {
        name: Hash(feature.rows)
        for name, feature in spec.tables().items()
        if isinstance(feature, Id | Ids) and feature.make not in CLOCKS and not has_vocabulary(feature)
    }


def has_vocabulary(feature: AnyFeature) -> bool:
    """Whether the table that a feature declares is looked up by vocabulary."""
    fixed = (*CLOCKS, "cross")
    return isinstance(feature, Id | Ids) and feature.make not in fixed and feature.encode == "vocabulary"


def _int_finder(values: pa.Array) -> Finder:
    known = values.to_numpy(zero_copy_only=False).astype(np.int64)
    if len(known) and 0 <= known.min() and known.max() < _DENSE * len(known) + 1024:
        return _dense_finder(known)
    order = np.argsort(known)
    ordered, rows = known[order], order.astype(np.int64) + 1

    def find(ids: pa.Array) -> np.ndarray:
        numbers = (ids.fill_null(0) if ids.null_count else ids).to_numpy(zero_copy_only=False)
        if not len(ordered):
            return np.zeros(len(numbers), np.int64)
        place = np.minimum(np.searchsorted(ordered, numbers), len(ordered) - 1)
        return np.where((ordered[place] == numbers) & _present(ids), rows[place], 0)

    return find


def _dense_finder(known: np.ndarray) -> Finder:
    row_of = np.zeros(int(known.max()) + 2, np.int64)
    row_of[known] = np.arange(1, len(known) + 1)
    last = len(row_of) - 1  # never a known value: its row is 0

    def find(ids: pa.Array) -> np.ndarray:
        numbers = (ids.fill_null(last) if ids.null_count else ids).to_numpy(zero_copy_only=False)
        # as unsigned numbers, negative ones are too large as well
        return row_of[np.minimum(numbers.view(np.uint64), np.uint64(last))]

    return find


def _string_finder(values: pa.Array) -> Finder:
    row_of = {word: row for row, word in enumerate(values.to_pylist(), start=1)}

    def find(ids: pa.Array) -> np.ndarray:
        codes = ids.dictionary_encode()
        rows = [row_of.get(word, 0) for word in codes.dictionary.to_pylist()]
        # an index of -1 (null) picks the 0 appended at the end
        return np.array([*rows, 0], np.int64)[codes.indices.fill_null(-1).to_numpy(zero_copy_only=False)]

    return find


def _present(ids: pa.Array) -> np.ndarray | bool:
    return True if ids.null_count == 0 else pc.is_valid(ids).to_numpy(zero_copy_only=False)


def mix(values: np.ndarray) -> np.ndarray:
    """A 64-bit bijective hash [n] uint64: SplitMix64 (Steele et al., OOPSLA 2014, fig. 17)."""
    z = values.astype(np.uint64) + _MIX[0]
    z ^= z >> _MIX[1]
    z *= _MIX[2]
    z ^= z >> _MIX[3]
    z *= _MIX[4]
    z ^= z >> _MIX[5]
    return z


def _digest(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def as_ids(values: pa.Array, kind: str, where: str) -> pa.Array:
    """`values` as int64 or string ids; DataError naming `where` when they are of the other type."""
    dtype = pa.int64() if kind == "int" else pa.string()
    if values.type == dtype:
        return values
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), dtype)
    fits = pa.types.is_integer(values.type) or pa.types.is_boolean(values.type) if kind == "int" else True
    if fits:
        return values.cast(dtype)
    example = next((v for v in values.to_pylist() if v is not None), None)
    raise DataError(f'{where}: expected an id (int), got {example!r}; for ids that are text say values = "string"')
