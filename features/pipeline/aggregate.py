"""Step 3, aggregate: point-in-time counters of one bucket of keys (items, say), for the rows of all partitions.

A bucket holds all events of its keys, whichever users caused them. Its output is one batch per partition, in the order
of that partition's lookups.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.pipeline import shuffle, store_state
from features.pipeline.job import BuildJob, load_arrays, save_arrays
from features.pipeline.prepare import LABEL
from features.transforms.counters import Counter, EventIndex, answers


def answer(job: BuildJob, index: int) -> int:
    """Compute the counters that partitions looked up in a bucket; the number of lookups."""
    partitions, _, buckets = job.division.sizes
    group, bucket = divmod(index, buckets)
    asked = job.groups[job.foreign[group]]
    folder = job.work / "ask" / str(group)
    parts = [shuffle.read([folder / f"{p:05d}.arrow"], bucket, bucket + 1) for p in range(partitions)]
    rows = pl.concat(parts)
    past = past_of(rows)
    made = own(past, asked, rows["at"].to_numpy(), job)
    _write(job.work / "answer" / str(group) / f"{bucket:05d}.arrow", made, [len(part) for part in parts])
    final = answers(past, asked, np.arange(len(past.keys)), np.full(len(past.keys), job.last + 1), job.hours)
    save_arrays(_final(job, group, bucket), {"code": past.keys, **final})
    if job.snapshot:
        store_state.of_bucket(job, group, bucket, past)
    return len(rows)


def own(past: EventIndex, asked: list[Counter], time_E: np.ndarray, job: BuildJob) -> dict[str, np.ndarray]:
    """Counters of each event's key at a timestamp per event [E]; searched in key order, for cache locality."""
    found = answers(past, asked, past.of, time_E[past.order], job.hours)
    made = {}
    for name, values in found.items():
        made[name] = np.empty_like(values)
        made[name][past.order] = values
    return made


def past_of(rows: pl.DataFrame) -> EventIndex:
    """The events of a bucket: every lookup is an event of its key, too."""
    labels = {name.removeprefix(LABEL): rows[name].to_numpy() for name in rows.columns if name.startswith(LABEL)}
    return EventIndex(rows["code"].to_numpy(), rows["time"].to_numpy(), labels)


def given(job: BuildJob, group: int, partition: int, code: np.ndarray, missing: np.ndarray) -> dict[str, np.ndarray]:
    """The counters of a key for a partition's impressions [N]; NaN (or 0) where the key is missing."""
    folder = job.work / "answer" / str(group)
    asked = np.flatnonzero(~missing)
    bucket = hashing.bucket(code[asked], job.division.buckets)
    order = asked[hashing.grouped(bucket)]
    found = [_batch(folder / f"{number:05d}.arrow", partition) for number in range(job.division.buckets)]
    made = {}
    for counter in job.groups[job.foreign[group]]:
        values = nothing(counter, len(code))
        values[order] = np.concatenate([batch.column(counter.name).to_numpy() for batch in found])
        made[counter.name] = values
    return made


def final(job: BuildJob, group: int, code: np.ndarray, missing: np.ndarray) -> dict[str, np.ndarray]:
    """The values just after the log's end, of some keys by their hashes [n]."""
    found = [load_arrays(_final(job, group, bucket)) for bucket in range(job.division.buckets)]
    known = np.concatenate([one["code"] for one in found])  # buckets are ranges of hashes, each sorted
    place = np.minimum(np.searchsorted(known, code), max(0, len(known) - 1))
    here = ~missing & (known[place] == code) if len(known) else np.zeros(len(code), bool)
    made = {}
    for counter in job.groups[job.foreign[group]]:
        values = unseen(counter, len(code), job)
        values[missing] = nothing(counter, 1)[0]
        column = np.concatenate([one[counter.name] for one in found])
        values[here] = column[place[here]]
        made[counter.name] = values
    return made


def nothing(counter: Counter, count: int) -> np.ndarray:
    """A counter's value for a missing key: NaN, or the timestamp 0 for none."""
    return np.zeros(count, np.int64) if counter.make == "since" else np.full(count, np.nan)


def unseen(counter: Counter, count: int, job: BuildJob) -> np.ndarray:
    """A counter's value, just after the log's end, for a key that was never seen."""
    if counter.make == "rate":
        return np.full(count, job.hours[str(counter.task)].base(np.array([job.last + 1]))[0])
    return np.zeros(count, np.int64) if counter.make == "since" else np.zeros(count)


def _final(job: BuildJob, group: int, bucket: int) -> Path:
    return job.work / "final" / str(group) / f"{bucket:05d}.arrow"


def _write(path: Path, made: dict[str, np.ndarray], lengths: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {name: values if values.dtype == np.int64 else values.astype(np.float32) for name, values in made.items()}
    batch = pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in table.items()})
    beside = path.with_suffix(".tmp")
    with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        start = 0
        for length in lengths:
            writer.write_batch(batch.slice(start, length))
            start += length
    beside.replace(path)


def _batch(path: Path, index: int) -> pa.RecordBatch:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).get_batch(index)
