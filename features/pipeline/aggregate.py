"""The third step: one bucket of a key's values, asked by all partitions, answered to each.

A bucket holds the whole past of its values, whichever users made it. Its answers are a batch per partition, in the
order in which the partition asked.
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
    """Answer the questions of a bucket; how many there were."""
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
    """What each event's key says at a moment of its own [E]; searched in the order of the keys, which memory likes."""
    found = answers(past, asked, past.of, time_E[past.order], job.hours)
    made = {}
    for name, values in found.items():
        made[name] = np.empty_like(values)
        made[name][past.order] = values
    return made


def past_of(rows: pl.DataFrame) -> EventIndex:
    """The past that questions are about: they are its events, too."""
    labels = {name.removeprefix(LABEL): rows[name].to_numpy() for name in rows.columns if name.startswith(LABEL)}
    return EventIndex(rows["code"].to_numpy(), rows["time"].to_numpy(), labels)


def given(job: BuildJob, group: int, partition: int, code: np.ndarray, missing: np.ndarray) -> dict[str, np.ndarray]:
    """The answers to a partition's questions about a key, a value per impression [N]; NaN (or 0) where it has none."""
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
    """What a counter says of a missing key: NaN, or the moment 0 for none."""
    return np.zeros(count, np.int64) if counter.make == "since" else np.full(count, np.nan)


def unseen(counter: Counter, count: int, job: BuildJob) -> np.ndarray:
    """What a counter says, just after the log's end, of a key that was never seen."""
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
