"""A slice's requests as session tables, one file per split, with the statistics to fit on."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.pipeline.job import BuildJob
from features.pipeline.point_in_time import Columns
from features.pipeline.prepare import PreparedSlice
from features.pipeline.side_columns import SideColumns
from features.transforms import attributes, joins, labels, sample_weights
from rec.atomic import flush, sha256
from rec.data import splits, statistics
from rec.data.session_table import field_type, flat, label_type, schema, to_rows
from rec.data.splits import SPLITS
from rec.request import spans
from rec.spec.tasks import UNOBSERVED, in_order, weight_column, weighted


def assemble(
    job: BuildJob,
    prepared: PreparedSlice,
    sides: Mapping[str, SideColumns],
    past: tuple[Columns, Columns],
    placed: np.ndarray,
) -> dict[str, Any]:
    """Write the session tables of a slice; a summary of each file. `placed` are the splits of its requests [B]."""
    of_context, of_candidates = past
    context = attributes.side(
        job.spec, "context", prepared.rows[prepared.first], of_context | _of_tables(job, "context", prepared, sides)
    )
    candidates = attributes.side(
        job.spec, "candidates", prepared.rows, of_candidates | _of_tables(job, "candidates", prepared, sides)
    )

    def written(place: int) -> dict[str, Any]:
        chosen, name = np.flatnonzero(placed == place), SPLITS[place]
        rows = _rows(job, prepared, chosen, context=context, candidates=candidates, train=name == "train")
        return _written(job, rows, name, prepared.number)

    with ThreadPoolExecutor(thread_name_prefix="writing") as beside:
        return {"files": list(beside.map(written, np.unique(placed).tolist()))}


def nothing(job: BuildJob, name: str) -> dict[str, Any]:
    """Write the one part of a split without requests; its summary."""
    return _written(job, splits.nothing(job.spec), name, 0)


def _of_tables(
    job: BuildJob, side: str, prepared: PreparedSlice, sides: Mapping[str, SideColumns]
) -> dict[str, pa.Array]:
    """The features that are columns of users or items."""
    columns = {}
    for name, feature in dict(job.spec.sides())[side].items():
        attribute = (
            getattr(feature, "make", "column") in ("column", "age", "tokens") and field_type(feature) is not None
        )
        column = joins.column_of(feature, name, job.spec)
        table = job.origins[column].table if attribute else ""
        if table in prepared.places:
            places = prepared.places[table]
            if side == "context":
                places = places[prepared.first] if table == "items" else places
            elif table == "users":
                places = np.repeat(places, np.diff(prepared.grouped.offsets))
            columns[name] = sides[table].attribute(job.spec, f"{side}.{name}", feature, column, places)
    return columns


def _rows(
    job: BuildJob,
    prepared: PreparedSlice,
    chosen: np.ndarray,
    *,
    context: dict[str, pa.Array],
    candidates: dict[str, pa.Array],
    train: bool,
) -> pa.RecordBatch:
    """Some requests, ascending, as session-table rows."""
    spec, grouped = job.spec, prepared.grouped
    counts = np.diff(grouped.offsets)[chosen]
    shape = schema(spec)
    begin, end = int(chosen[0]), int(chosen[-1]) + 1
    if end - begin == len(chosen):  # as splits by time are: no copy
        low, high = int(grouped.offsets[begin]), int(grouped.offsets[end])
        context = {name: column.slice(begin, end - begin) for name, column in context.items()}
        candidates = {name: column.slice(low, high - low) for name, column in candidates.items()}
        places = np.arange(low, high)
    else:
        places = spans(grouped.offsets[chosen], counts)
        context, candidates = attributes.take(context, chosen), attributes.take(candidates, places)
    label = {
        name: pa.array(_learnt(job, prepared, name, places, train=train), label_type(task), from_pandas=True)
        for name, task in spec.tasks.items()
    }
    weights = {column: pa.array(prepared.labels[column][places]) for column in map(weight_column, weighted(spec.tasks))}
    return to_rows(
        shape,
        request_id=grouped.ids.take(pa.array(chosen)),
        time=pa.array(grouped.time[chosen]).cast(shape.field("time").type),
        context=context,
        candidates={**candidates, **label, **weights},
        offsets=np.concatenate([[0], np.cumsum(counts)]),
    )


def _written(job: BuildJob, rows: pa.RecordBatch, name: str, part: int) -> dict[str, Any]:
    """Write a part; its name, digest and size, and beside it the statistics of it."""
    path = job.work / "data" / name / f"part-{part:05d}.arrow"
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = flat(rows, job.spec)
    learnt = statistics.of if name == "train" else statistics.ids_of
    with ThreadPoolExecutor(1, thread_name_prefix="statistics") as beside:
        learning = beside.submit(learnt, job.spec, stored)
        splits.write(path, [rows], schema(job.spec))
        digest = sha256(path)
        flush(path)
    learning.result().save(statistics_path(job, name, part))
    entry = {
        "path": f"{name}/{path.name}",
        "split": name,
        "part": part,
        "sha256": digest,
        "bytes": path.stat().st_size,
        "requests": len(rows),
        "candidates": int(stored.offsets[-1]),
        "observed": {task: int(labels.known(stored.labels[task]).sum()) for task in in_order(job.spec.tasks)},
        "positives": {task: int((stored.labels[task] > 0).sum()) for task in in_order(job.spec.tasks)},
    }
    if weighted(job.spec.tasks):
        entry["sample_weights"] = sample_weights.ranges(job.spec, stored.labels)
    return entry


def statistics_path(job: BuildJob, name: str, part: int) -> Path:
    """The path of the statistics of a part of a split."""
    folder = job.work / "statistics" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{part:05d}"


def _learnt(job: BuildJob, prepared: PreparedSlice, name: str, places: np.ndarray, *, train: bool) -> np.ndarray:
    """The labels of a task; in training, of impressions without the event only a share stays observed."""
    label, spec, grouped = prepared.labels[name][places], job.spec, prepared.grouped
    share = spec.tasks[name].negatives
    if not train or share == 1:
        return label
    owner = grouped.owner()[places]
    code, _ = hashing.together(
        [
            pl.Series(hashing.hashed(pl.Series(grouped.ids))[owner].view(np.int64)),
            pl.Series(places - grouped.offsets[owner]),
            pl.Series(np.full(len(places), spec.seed)),
            pl.Series(np.full(len(places), list(spec.tasks).index(name))),
        ]
    )
    dropped = (label == 0) & (code >= np.uint64(int(share * 2**53) << 11))
    return np.where(dropped, np.int8(UNOBSERVED), label)
