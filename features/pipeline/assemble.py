"""Step 4, assemble: a partition's requests as session tables, one file per split and part, with statistics to fit on.

A part is a range of users that does not depend on the number of partitions. If a part is spread over several
partitions, its pieces are joined at the end of this step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.hashing import LINE, LINES
from features.pipeline import prepare as shard
from features.pipeline import store_state
from features.pipeline.job import BuildJob, save_arrays
from features.pipeline.point_in_time import PointInTime
from features.pipeline.prepare import Partition
from features.pipeline.snapshot import latest_items, latest_users
from features.transforms import attributes, labels, split
from rec.atomic import sha256
from rec.data import splits, statistics
from rec.data.session_table import flat, label_type, schema, to_rows
from rec.data.splits import SPLITS
from rec.request import spans
from rec.spec import Spec
from rec.spec.tasks import UNOBSERVED


@dataclass(frozen=True)
class AssembledPartition:
    """All requests of a partition as flat Arrow columns, with the split of each, and the part."""

    shard: Partition
    context: dict[str, pa.Array]
    candidates: dict[str, pa.Array]
    split: np.ndarray
    part: np.ndarray


def assemble(job: BuildJob, index: int) -> dict[str, Any]:
    """Write a partition's session tables; a summary of each file."""
    made = shard.opened(job, index)
    past = PointInTime(job, index, made)
    of_context, of_candidates = past.sides()
    table = AssembledPartition(
        made,
        attributes.side(job.spec, "context", _first(job, made), of_context),
        attributes.side(job.spec, "candidates", made.rows, of_candidates),
        split.assign(job.spec, made.grouped, made.rows),
        _part_of(job, made),
    )
    latest_users(job, index, past)
    latest_items(job, index, made)
    if job.snapshot:
        store_state.of_partition(job, index, made)
    return {"files": [one for part in range(job.division.sizes[1]) for one in _write(job, index, table, part)]}


def join(job: BuildJob, part: int) -> dict[str, Any]:
    """Join the pieces of a part that is spread over several partitions; a summary of its files."""
    found = []
    for name in SPLITS:
        pieces = sorted((job.work / "pieces" / name).glob(f"{part:05d}-*.arrow"))
        batches = [batch for path in pieces for batch in splits.read_part(path, job.spec)]
        rows = pa.Table.from_batches(batches, schema(job.spec)).combine_chunks().to_batches()
        whole = rows[0] if rows else splits.nothing(job.spec)
        found.append(_written(job, whole, name, part))
    return {"files": found}


def pieces(job: BuildJob, part: int) -> list[int]:
    """The partitions that hold requests of a part."""
    low, high = job.division.parts[part : part + 2]
    borders = job.division.partitions
    return [p for p in range(len(borders) - 1) if borders[p] < high and low < borders[p + 1]]


def _first(job: BuildJob, made: Partition) -> Any:
    """The first impression of every request, with the columns of its user that no candidate needed."""
    rows = made.impressions(made.grouped.offsets[:-1])
    users = job.side("users")
    return rows if users is None else users.joined(rows, job.of("users"), made.grouped.time)


def _part_of(job: BuildJob, made: Partition) -> np.ndarray:
    """The part every request belongs to [B]."""
    rows, first = made.grouped.rows, made.grouped.offsets[:-1]
    place = rows[LINE].to_numpy()[first] // LINES if LINE in rows.columns else hashing.grain(made.grouped.code)
    return np.searchsorted(np.array(job.division.parts), place, side="right") - 1


def _write(job: BuildJob, index: int, table: AssembledPartition, part: int) -> Iterator[dict[str, Any]]:
    holders = pieces(job, part)
    if index not in holders:
        return
    for place, name in enumerate(SPLITS):
        requests = np.flatnonzero((table.part == part) & (table.split == place))
        rows = _rows(job.spec, table, requests, train=place == 0)
        if len(holders) == 1:
            yield _written(job, rows, name, part)
        else:
            path = job.work / "pieces" / name / f"{part:05d}-{index:05d}.arrow"
            path.parent.mkdir(parents=True, exist_ok=True)
            splits.write(path, [rows], schema(job.spec))


def _written(job: BuildJob, rows: pa.RecordBatch, name: str, part: int) -> dict[str, Any]:
    """Write a part; its name, digest and size, and beside it the statistics of it."""
    path = job.work / "data" / name / f"part-{part:05d}.arrow"
    path.parent.mkdir(parents=True, exist_ok=True)
    splits.write(path, [rows], schema(job.spec))
    stored = flat(rows, job.spec)
    learnt = statistics.of if name == "train" else statistics.ids_of
    learnt(job.spec, stored).save(statistics_path(job, name, part))
    for keys_of, key, columns_of in (
        ("users", job.spec.keys.user, stored.context),
        ("items", job.spec.keys.item, stored.candidates),
    ):
        distinct = [] if key is None else hashing.hashed(pl.Series(columns_of[key].drop_null().unique()))
        save_arrays(job.work / keys_of / name / f"{part:05d}.arrow", {"key": np.array(distinct, np.uint64)})
    return {
        "path": f"{name}/{path.name}",
        "split": name,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "requests": len(rows),
        "candidates": int(stored.offsets[-1]),
        "observed": {task: int(labels.known(label).sum()) for task, label in stored.labels.items()},
        "positives": {task: int((label > 0).sum()) for task, label in stored.labels.items()},
    }


def statistics_path(job: BuildJob, name: str, part: int) -> Path:
    """The path of the statistics of a part of a split."""
    folder = job.work / "statistics" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{part:05d}"


def _rows(spec: Spec, table: AssembledPartition, requests: np.ndarray, *, train: bool) -> pa.RecordBatch:
    grouped = table.shard.grouped
    counts = np.diff(grouped.offsets)[requests]
    places = spans(grouped.offsets[requests], counts)
    shape = schema(spec)
    label = {
        name: pa.array(_learnt(spec, table.shard, name, places, train=train), label_type(task), from_pandas=True)
        for name, task in spec.tasks.items()
    }
    return to_rows(
        shape,
        request_id=grouped.ids.take(pa.array(requests)),
        time=pa.array(grouped.time[requests]).cast(shape.field("time").type),
        context=attributes.take(table.context, requests),
        candidates={**attributes.take(table.candidates, places), **label},
        offsets=np.concatenate([[0], np.cumsum(counts)]),
    )


def _learnt(spec: Spec, made: Partition, name: str, places: np.ndarray, *, train: bool) -> np.ndarray:
    """The labels of a task; in training, of impressions without the event only a share stays observed."""
    label = made.labels[name][places]
    share = spec.tasks[name].negatives
    if not train or share == 1:
        return label
    owner = made.grouped.owner()[places]
    code, _ = hashing.together(
        [
            pl.Series(hashing.hashed(pl.Series(made.grouped.ids))[owner].view(np.int64)),
            pl.Series(places - made.grouped.offsets[owner]),
            pl.Series(np.full(len(places), spec.seed)),
            pl.Series(np.full(len(places), list(spec.tasks).index(name))),
        ]
    )
    dropped = (label == 0) & (code >= np.uint64(int(share * 2**53) << 11))
    return np.where(dropped, np.int8(UNOBSERVED), label)
