"""A bounded sample of built session tables: whole users, the same ones however the log was read.

Users are sampled by hash (requests, for anonymous rows), so a sampled user's history has no gaps. Each user contributes
the first requests, up to a tenth of the sample.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from features.hashing import hashed
from rec.data import splits
from rec.data.session_table import flat, schema
from rec.data.splits import SPLITS
from rec.spec import Spec

SIZE = 100_000  # candidates per split, about
FEWER = 30_000  # where many features are sorted
_US_PER_DAY = 86_400_000_000


@dataclass(frozen=True)
class Sample:
    """Some requests of one split: columns of the context [B] and of candidates, labels among them [N]; owner [N].

    `time` is in microseconds [B]. What checks make of a column is kept, since several of them need it.
    """

    context: Mapping[str, pa.Array]
    candidates: Mapping[str, pa.Array]
    time: np.ndarray
    owner: np.ndarray
    _floats: dict[tuple[str, str], np.ndarray] = field(default_factory=dict[tuple[str, str], np.ndarray])
    _codes: dict[tuple[str, str], np.ndarray] = field(default_factory=dict[tuple[str, str], np.ndarray])

    def stored(self, side: str, name: str) -> pa.Array:
        """A feature as stored in the session table, [B] or [N]."""
        return (self.context if side == "context" else self.candidates)[name]

    def floats(self, side: str, name: str) -> np.ndarray:
        """`floats` of a column, not to be written to."""
        if (side, name) not in self._floats:
            self._floats[side, name] = floats(self.stored(side, name))
        return self._floats[side, name]

    def codes(self, side: str, name: str) -> np.ndarray:
        """`codes` of a column, not to be written to."""
        if (side, name) not in self._codes:
            self._codes[side, name] = codes(self.stored(side, name))
        return self._codes[side, name]

    def spread(self, side: str, values: np.ndarray) -> np.ndarray:
        """Values of a side, broadcast to candidates."""
        return values[self.owner] if side == "context" else values

    def numbers(self, side: str, name: str) -> np.ndarray:
        """A number as the model reads it, float64, NaN where missing; a timestamp becomes days before the request."""
        values = self.floats(side, name)
        if not pa.types.is_timestamp(self.stored(side, name).type):
            return np.where(np.isinf(values), np.nan, values)
        return (self.moments(side) - values) / _US_PER_DAY

    def moments(self, side: str) -> np.ndarray:
        """The timestamp of the request of every row of a side."""
        return self.time if side == "context" else self.time[self.owner]

    def label(self, task: str) -> np.ndarray:
        """Labels of a task, float64 [N], NaN where not observed."""
        values = self.floats("candidates", task)
        return np.where(values < 0, np.nan, values)


def floats(column: pa.Array) -> np.ndarray:
    """Any flat column of numbers or timestamps as float64, NaN where it is null."""
    column = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    return column.cast(pa.float64(), safe=False).fill_null(float("nan")).to_numpy(zero_copy_only=False)


def lengths(column: pa.Array) -> np.ndarray:
    """How long every list is, int64; a null has none."""
    return pc.list_value_length(column).fill_null(0).cast(pa.int64()).to_numpy(zero_copy_only=False)


def codes(column: pa.Array) -> np.ndarray:
    """Ordinal codes of distinct values from 1, in sorted order; 0 is null."""
    encoded = column.dictionary_encode()
    rank = pl.Series(encoded.dictionary).rank("dense").to_numpy().astype(np.int64)
    return np.append(rank, 0)[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]


def take(spec: Spec, data: Path, *, size: int = SIZE) -> dict[str, Sample]:
    """A sample of every split of DATA: about `size` candidates, or all of them where they are fewer."""
    (samples,) = nested(spec, data, size)
    return samples


def nested(spec: Spec, data: Path, *sizes: int) -> list[dict[str, Sample]]:
    """Nested samples of several sizes, the largest first; DATA is read once."""
    with ThreadPoolExecutor(thread_name_prefix="sampling") as threads:
        of_splits = threads.map(lambda split: list(_samples(spec, data, split, sizes)), SPLITS)
        return [dict(zip(SPLITS, of_size, strict=True)) for of_size in zip(*of_splits, strict=True)]


def together(samples: Mapping[str, Sample], only: Collection[str] | None = None) -> Sample:
    """The samples of all splits concatenated in order; of their columns `only` some, if it is given."""
    several = list(samples.values())
    begins = np.cumsum([0, *(len(sample.time) for sample in several)])

    def columns(side: str) -> dict[str, pa.Array]:
        names = several[0].context if side == "context" else several[0].candidates
        return {
            name: pa.concat_arrays([sample.stored(side, name) for sample in several])
            for name in names
            if only is None or name in only
        }

    return Sample(
        columns("context"),
        columns("candidates"),
        np.concatenate([sample.time for sample in several]),
        np.concatenate([sample.owner + begin for sample, begin in zip(several, begins, strict=False)]),
    )


def _samples(spec: Spec, data: Path, split: str, sizes: Sequence[int]) -> Iterator[Sample]:
    read = list(splits.read(data, split, spec))  # mapped, not held
    total = sum(_candidates(rows) for rows in read)
    for size in sizes:
        share = min(1.0, size / max(1, total))
        read = list(_chosen(spec, read, share=share, most=size if share == 1 else max(1, size // 10)))
        (rows,) = pa.Table.from_batches(read, schema(spec)).combine_chunks().to_batches() or [splits.nothing(spec)]
        columns = flat(rows, spec)
        yield Sample(columns.context, columns.candidates, columns.time, columns.owner)


def _chosen(spec: Spec, read: Iterable[pa.RecordBatch], *, share: float, most: int) -> Iterator[pa.RecordBatch]:
    """The requests of the chosen users, in order; of one user no more than `most` candidates, the first."""
    limit = np.uint64(min(share * 2.0**64, 2.0**64 - 2048))
    held: dict[int, int] = {}
    for rows in read:
        who = _who(spec, rows)
        chosen = np.flatnonzero((who <= limit) if share < 1 else np.ones(len(who), bool))
        if not len(chosen):
            continue
        order = np.argsort(who[chosen], kind="stable")
        chosen = chosen[order]
        who, counts = who[chosen], lengths(rows.column("candidates"))[chosen]
        start = np.flatnonzero(np.append(True, who[1:] != who[:-1]))
        before = np.cumsum(counts) - counts
        had = np.array([held.get(key, 0) for key in who[start].tolist()])
        length = np.diff(np.append(start, len(who)))
        inside = before - np.repeat(before[start] - had, length)
        held |= dict(zip(who[start].tolist(), (had + np.add.reduceat(counts, start)).tolist(), strict=True))
        yield rows.take(pa.array(np.sort(chosen[inside < most])))


def _who(spec: Spec, rows: pa.RecordBatch) -> np.ndarray:
    """The hash of every request's user, or of the request itself if anonymous [B] uint64."""
    user = spec.key_feature("user")
    if user is None:
        return hashed(pl.Series(rows.column("request_id")))
    users = pl.Series(rows.column("context").field(user))
    if not users.null_count():
        return hashed(users)
    return np.where(users.is_null().to_numpy(), hashed(pl.Series(rows.column("request_id"))), hashed(users))


def _candidates(rows: pa.RecordBatch) -> int:
    offsets = rows.column("candidates").offsets
    return offsets[-1].as_py() - offsets[0].as_py()
