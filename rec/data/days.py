"""The days of a split, by the UTC date of a request's time, each with the record batches that hold it.

Session tables come in order of time, so a day is a range of rows of a few record batches, and only those are read.
Tables in another order give the same days, and cost more reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from rec.data import splits
from rec.data.request_order import candidates_of, rows_of
from rec.data.session_table import check_schema
from rec.spec import Spec

_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class Day:
    """A day: how many requests and candidates it has, and in which record batches (part, index) they are."""

    number: int  # since 1970
    requests: int
    candidates: int
    places: frozenset[tuple[Path, int]]

    @property
    def date(self) -> str:
        """The date (UTC).

        >>> Day(20514, 1, 1, frozenset()).date
        '2026-03-02'
        """
        return datetime.fromtimestamp(self.number * 86_400, UTC).date().isoformat()

    def of(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a record batch that are of this day, in their order; not copied where they are adjacent."""
        return rows_of(rows, np.flatnonzero(_numbers(rows) == self.number))

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows of the day, a record batch at a time."""
        for path, index in sorted(self.places):
            with splits.opened(path) as reader:
                yield self.of(reader.get_batch(index))


def days(data: Path, split: str, spec: Spec) -> list[Day]:
    """The days of a split that have candidates, in order; of the rows only times and numbers of candidates are read.

    DataError names a file that is truncated or of another schema.
    """
    requests: dict[int, int] = {}
    candidates: dict[int, int] = {}
    places: dict[int, set[tuple[Path, int]]] = {}
    for path in splits.files(data, split):
        with splits.opened(path) as reader:
            check_schema(reader.schema, spec, str(path))
            for index in range(reader.num_record_batches):
                rows = reader.get_batch(index)
                count_B = candidates_of(rows)
                numbers, day_B = np.unique(_numbers(rows), return_inverse=True)
                of_day = np.bincount(day_B, count_B, len(numbers)).astype(int)
                for number, few, many in zip(numbers.tolist(), np.bincount(day_B).tolist(), of_day, strict=True):
                    requests[number] = requests.get(number, 0) + few
                    candidates[number] = candidates.get(number, 0) + int(many)
                    places.setdefault(number, set()).add((path, index))
    return [
        Day(number, requests[number], candidates[number], frozenset(places[number]))
        for number in sorted(requests)
        if candidates[number]
    ]


def _numbers(rows: pa.RecordBatch) -> np.ndarray:
    """The day of every request [B]."""
    return rows.column("time").cast(pa.int64()).to_numpy(zero_copy_only=False) // _DAY
