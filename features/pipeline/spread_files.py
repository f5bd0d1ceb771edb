"""The files of a replay that is spread over tasks.

WORK/slices/00007/
    impressions.arrow  of-requests.arrow  places-items.arrow    a prepared slice
    unit-2.arrow  unit-2.edges.arrow  unit-2.order.arrow        what a group of keys is swept by, bucket after bucket
    answers-2-00004.arrow  requests-2-00004.arrow               what a bucket of them answered
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.pipeline.job import BuildJob
from features.sweep.events import Per
from features.sweep.history_values import HistoryValues
from rec.data import arrow_file


@dataclass(frozen=True)
class SpreadJob:
    """A build that is spread over tasks: `groups` of keys, `buckets` of their hashes, and how many slices there are."""

    job: BuildJob
    groups: tuple[Per, ...]
    buckets: int
    slices: int = 0
    values: Mapping[str, HistoryValues] | None = None

    def folder(self, number: int) -> Path:
        """Where a slice's columns are, and the answers to it."""
        return self.job.work / "slices" / f"{number:05d}"


def save(path: Path, arrays: Mapping[str, np.ndarray | pa.Array]) -> None:
    """Write arrays of one length as a small table, whole or not at all."""
    beside = path.with_name(f"{path.name}.tmp")
    arrow_file.write(beside, pa.table({name: pa.array(values) for name, values in arrays.items()}))
    beside.replace(path.with_name(f"{path.name}.arrow"))


def table(path: Path) -> pa.Table:
    """What `save` wrote, mapped."""
    return arrow_file.read(path.with_name(f"{path.name}.arrow"), what="part of the work")


def columns_in(found: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns of a table by name."""
    return dict(zip(found.column_names, found.columns, strict=True))
