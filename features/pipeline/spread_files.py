"""The files of a replay that is spread over tasks.

WORK/slices/00007/
    impressions.arrow  of-requests.arrow  places-items.arrow    a prepared slice
    unit-2.arrow  unit-2.edges.arrow  unit-2.order.arrow        what a group of keys is swept by, bucket after bucket
    answers-2-00004.arrow  requests-2-00004.arrow               what a bucket of them answered
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.pipeline.job import BuildJob
from features.sweep.events import Per
from features.sweep.history_values import HistoryValues
from features.transforms.joins import SideTable
from rec.data import arrow_file
from rec.spec import Ids


@dataclass(frozen=True)
class SpreadJob:
    """A build that is spread over tasks: `groups` of keys, `buckets` of their hashes, and how many slices there are.

    `as_text` are the histories that hold text. It is small, since every task gets it: what is large lies in files.
    """

    job: BuildJob
    groups: tuple[Per, ...]
    buckets: int
    slices: int = 0
    as_text: tuple[str, ...] = ()

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


def columns_in(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns of a table by name."""
    return dict(zip(table.column_names, table.columns, strict=True))


def put_sides(job: BuildJob) -> BuildJob:
    """Write the side tables; the job without them, and without the rows of logs that lie in memory."""
    for name, side in job.sides.items():
        arrow_file.write(job.work / f"{name}.arrow", side.rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
    return replace(job, impressions=replace(job.impressions, pieces=()), happened={}, sides={})


def sides_of(job: BuildJob) -> dict[str, SideTable]:
    """The side tables that `put_sides` wrote."""
    keys = {"users": job.spec.keys.user, "items": job.spec.keys.item}
    paths = {name: job.work / f"{name}.arrow" for name in keys}
    existing = {name: path for name, path in paths.items() if path.exists()}
    return {
        name: SideTable(pl.DataFrame(pl.from_arrow(arrow_file.read(path, what="side table"))), str(keys[name]))
        for name, path in existing.items()
    }


def put_words(shared: SpreadJob, values: Mapping[str, HistoryValues]) -> None:
    """Write the words that histories hold."""
    for name, words in values.items():
        save(shared.job.work / f"words-{name}", {"word": words.words.known()})


def words_of(shared: SpreadJob) -> dict[str, HistoryValues]:
    """The values of histories, with the words that `put_words` wrote."""
    words = {}
    for name, feature in shared.job.spec.context.items():
        if isinstance(feature, Ids) and feature.make in ("history", "gaps"):
            words[name] = HistoryValues(name, feature)
            words[name].add_words(table(shared.job.work / f"words-{name}")["word"])
            words[name].as_text = name in shared.as_text
    return words


def put_unit(
    shared: SpreadJob,
    folder: Path,
    number: str,
    keys: tuple[np.ndarray, np.ndarray],
    columns: Mapping[str, np.ndarray],
) -> None:
    """Write what one group is swept by: rows with a key, bucket after bucket, each in the order of the slice."""
    code, known = keys
    rows = np.flatnonzero(known)
    bucket = hashing.bucket(code[rows], shared.buckets)
    order = rows[np.argsort(bucket, kind="stable")]
    edges = np.append(0, np.cumsum(np.bincount(bucket, minlength=shared.buckets)))
    save(folder / f"unit-{number}", {"code": code[order], **{name: column[order] for name, column in columns.items()}})
    save(folder / f"unit-{number}.edges", {"edge": edges})
    save(folder / f"unit-{number}.order", {"place": order})


def part_of(folder: Path, name: str, bucket: int) -> dict[str, np.ndarray]:
    """The columns of a bucket's rows in a unit."""
    low, high = np.array(table(folder / f"unit-{name}.edges")["edge"])[bucket : bucket + 2]
    return {n: c.to_numpy() for n, c in columns_in(table(folder / f"unit-{name}").slice(low, high - low)).items()}


def listed(history: tuple[np.ndarray, np.ndarray, np.ndarray], part: int) -> pa.Array:
    """The times or the values of histories, one list per request."""
    return pa.LargeListArray.from_arrays(pa.array(history[2], pa.int64()), pa.array(history[part]))
