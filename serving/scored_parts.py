"""Scores in a folder, part by part: whole or not at all, verified by digests, resumed after the last whole ones.

INPUT  ->  OUT/part-00000.parquet               the scores of what can be scored
           OUT/_quarantine/part-00000.jsonl     {"file", "row", "reason"} of what cannot; rows count from 1
           OUT/_parts.json                      what is done so far: digests of inputs and outputs, counts
           OUT/_manifest.json                   the same, of all parts
           OUT/_SUCCESS                         empty, written last: the scores are complete

A large input has several parts, part-00000-00000.parquet and so on. Who works on them, and how many at a time, changes
no byte of any.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa

from features.pipeline import executors
from rec.atomic import read_json, sha256, write_bytes, write_json
from rec.errors import DataError
from rec.progress import Progress
from serving.bundle import Bundle
from serving.part_writer import Part, PartJob, Refuse, Scored, forget, score_part
from serving.worker_pool import ProcessExecutor

DONE, MANIFEST = "_parts.json", "_manifest.json"
SUCCESS = "_SUCCESS"  # for schedulers that wait for it, as Hadoop and Spark write it
QUARANTINE = "_quarantine"  # readers of a folder of Parquet files pass over names that begin like this
OWN = (DONE, MANIFEST, SUCCESS)
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")  # a part that is being written
_WORTH_ROWS = 2000  # rows for which a process is worth its start, where nobody says how many


@dataclass(frozen=True)
class ScoringWorkers:
    """Who scores: `procs` processes with `threads` threads per run of the model each, or an engine's workers.

    Without `procs` there are as many as cores, and no more than the rows are worth.
    """

    threads: int = 1
    procs: int | None = None
    engine: str = "auto"


@dataclass(frozen=True)
class Job:
    """What is to be scored: `parts` by the name of their output; `about` opens the manifest.

    `opened` and `tables` are those of PartJob. `gathered` is called with the parts that are to be scored, before they
    are, and returns the rows of those of which `rows` is a guess. At most the share `bad_rows` of all rows may be
    refused.
    """

    what: str
    parts: Mapping[str, Part]
    about: Mapping[str, Any]
    schema: pa.Schema
    opened: Callable[[Path, int], Any]
    tables: Callable[[Any, Part, Refuse], Iterator[Scored]]
    bad_rows: float = 0.0
    gathered: Callable[[Mapping[str, Part]], Mapping[str, int]] = lambda _: {}


class BadRowsError(DataError):
    """More rows than are allowed cannot be scored."""


class _BadRows:
    """Counts the rows in quarantine, and ends the job where they are more than allowed."""

    def __init__(self, allowed: float, rows: int, before: int) -> None:
        """Of `rows` in all inputs; `before` are in quarantine already."""
        self._allowed = allowed
        self._rows = rows
        self._count = before

    @classmethod
    def of(cls, job: Job, done: Mapping[str, Any], rows: Mapping[str, int]) -> _BadRows:
        """Of the parts that are `done`, and of those of which only the `rows` are known."""
        total = sum(rows.values()) + sum(entry["rows"] for entry in done.values())
        return cls(job.bad_rows, total, sum(entry["rejected"] for entry in done.values()))

    @property
    def spare(self) -> int:
        """How many more there may be."""
        return int(self._allowed * self._rows) - self._count

    def add(self, path: Path, count: int, reasons: Path) -> None:
        """Those of a part, `reasons` line by line; BadRowsError with the place of the first that is one too many."""
        spare = self.spare
        self._count += min(count, spare + 1)
        if count > spare:
            with reasons.open(encoding="utf-8") as lines:
                first = json.loads(next(islice(lines, spare, None)))
            raise BadRowsError(f"{path}: row {first['row']}: {first['reason']}\n{self._text()}")

    def check(self, out: Path) -> None:
        """BadRowsError where an earlier command was allowed more."""
        if self.spare < 0:
            raise BadRowsError(f"{out / QUARANTINE}: {self._text()}")

    def _text(self) -> str:
        return f"{self._count} of {self._rows} rows cannot be scored; --bad-rows {self._allowed:g} allows no more"


def divided(inputs: Sequence[Sequence[Part]]) -> dict[str, Part]:
    """The parts of all inputs by the names of their outputs; an input of one part has a short one."""
    return {
        f"part-{index:05d}.parquet" if len(parts) == 1 else f"part-{index:05d}-{number:05d}.parquet": part
        for index, parts in enumerate(inputs)
        for number, part in enumerate(parts)
    }


def write(
    job: Job, bundle: Bundle, out: Path, workers: ScoringWorkers, progress: Progress
) -> tuple[dict[str, Any], int]:
    """Score the parts that are not in `out` yet; an entry per part, and how many candidates were scored just now.

    Raises FileExistsError for a file in the place of a part that was never recorded, BadRowsError at the first row too
    many, and, after all other parts are scored, DataError naming inputs that cannot be read.
    """
    before = read_json(out / DONE, dict).get("parts", {}) if (out / DONE).exists() else {}
    digests = {path: sha256(path) for path in dict.fromkeys(part.path for part in job.parts.values())}
    done = {
        name: before[name]
        for name, part in job.parts.items()
        if name in before and _verified(before[name], digests[part.path], out, name)
    }
    stale = {name: part for name, part in job.parts.items() if name not in done}
    if not stale and (out / MANIFEST).exists() and (out / SUCCESS).exists():
        bad_rows = _BadRows.of(job, done, {})
        if bad_rows.spare >= 0:
            return done, 0
    if (out / MANIFEST).exists() and stale:
        progress.say(f"{out}: {len(stale)} of {len(job.parts)} parts are missing or changed, and are scored again")
    (out / SUCCESS).unlink(missing_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    _clean(out, job, before, done)
    guesses = {name: part.rows for name, part in stale.items()}
    rows = {**guesses, **(job.gathered(stale) if stale else {})}
    bad_rows = _BadRows.of(job, done, rows)
    bad_rows.check(out)
    total = sum(rows.values()) + sum(entry["rows"] for entry in done.values())
    progress.start(f"scoring {job.what}", total, "rows")
    work = PartJob(
        out=out,
        parts=job.parts,
        digests=digests,
        bundle=bundle.path,
        digest=bundle.digest,
        threads=workers.threads,
        spare=bad_rows.spare,
        base=Path.cwd(),
        opened=job.opened,
        tables=job.tables,
        schema=job.schema,
    )
    try:
        scored = _missing(job, work, workers, done=done, bad_rows=bad_rows, progress=progress)
    finally:
        forget()
        _clean_unfinished(out, job.parts)
    write_json(out / MANIFEST, _described(job, done))
    write_bytes(out / SUCCESS, b"")
    return done, scored


def summary(done: Mapping[str, Any], *, scored: int, seconds: float) -> dict[str, Any]:
    """How much there is, how much of it was scored in these seconds, and how fast."""
    return {
        "parts": len(done),
        "rows": sum(entry["rows"] for entry in done.values()),
        "requests": sum(entry["requests"] for entry in done.values()),
        "candidates": sum(entry["candidates"] for entry in done.values()),
        "seconds": round(seconds, 3),
        "scored": scored,
        "candidates_per_s": round(scored / seconds),
    }


def _missing(
    job: Job, work: PartJob, workers: ScoringWorkers, *, done: dict[str, Any], bad_rows: _BadRows, progress: Progress
) -> int:
    """Score the parts that are not `done`; how many candidates."""
    names = list(job.parts)
    missing = [index for index, name in enumerate(names) if name not in done]
    progress.advance(sum(entry["rows"] for entry in done.values()))
    unreadable: dict[int, str] = {}
    began, scored = perf_counter(), 0
    with _engine(workers, [job.parts[names[index]].rows for index in missing]) as engine:
        here = isinstance(engine, executors.SerialExecutor)
        shared = replace(work, advance=progress.advance) if here else work
        for index, result in engine.run(score_part, shared, missing):
            name = names[index]
            if "unreadable" in result:
                unreadable[index] = result["unreadable"]
                continue
            bad_rows.add(job.parts[name].path, result["rejected"], work.out / result["files"][1])
            _publish(job, work.out, name, result, done)
            scored += done[name]["candidates"]
            rate = {"candidates/s": scored / (perf_counter() - began)}
            progress.advance(0 if here else done[name]["rows"], **rate)
    if unreadable:
        messages = list(dict.fromkeys(unreadable[index] for index in sorted(unreadable)))
        raise DataError("\n".join([*messages, f"{len(done)} of {len(names)} parts were scored into {work.out}"]))
    return scored


@contextmanager
def _engine(workers: ScoringWorkers, rows: Sequence[int]) -> Iterator[executors.Executor]:
    """Who scores parts of so many rows each."""
    if workers.engine != "auto":
        with executors.engine(workers.engine, workers=workers.procs) as engine:
            yield engine
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    procs = workers.procs or min(cores, sum(rows) // _WORTH_ROWS)
    yield ProcessExecutor(procs) if min(procs, len(rows)) > 1 else executors.SerialExecutor()


def _publish(job: Job, out: Path, name: str, result: Mapping[str, Any], done: dict[str, Any]) -> None:
    """Name the files of a part. Its entry is recorded before, so that a part without one is somebody else's."""
    output, quarantine = _places(out, name)
    beside, reasons = (out / file for file in result["files"])
    done[name] = result["done"]
    write_json(out / DONE, _described(job, done))
    if result["rejected"]:
        quarantine.parent.mkdir(exist_ok=True)
        reasons.replace(quarantine)
    beside.replace(output)


def _clean(out: Path, job: Job, before: Mapping[str, Any], done: Mapping[str, Any]) -> None:
    """Remove what killed runs left, parts that are to be made again, and parts of inputs that are no more."""
    _clean_unfinished(out, job.parts)
    for name in sorted(set(job.parts) - set(before)):
        for place in _places(out, name):
            if place.exists():
                raise FileExistsError(f"{place}: no part that `multigate score` wrote here; give another --out")
    for name in sorted(set(before) - set(done)):
        for place in _places(out, name):
            place.unlink(missing_ok=True)


def _clean_unfinished(out: Path, parts: Iterable[str]) -> None:
    """Remove what was written of parts and has no name yet."""
    names = {place.name for name in parts for place in _places(out, name)}
    for file in out.glob(".*.tmp"):
        if (unfinished := _UNFINISHED.fullmatch(file.name)) and unfinished["name"] in names:
            file.unlink(missing_ok=True)


def _places(out: Path, name: str) -> tuple[Path, Path]:
    """The scores of a part, and its quarantine; directly in their folders, whatever a record says."""
    place = out / Path(name).name
    return place, out / QUARANTINE / f"{place.stem}.jsonl"


def _verified(entry: Mapping[str, Any], digest: str, out: Path, name: str) -> bool:
    output, quarantine = _places(out, name)
    whole = output.is_file() and sha256(output) == entry["sha256"] and digest == entry["input_sha256"]
    if not whole or not entry["rejected"]:
        return whole
    return quarantine.is_file() and sha256(quarantine) == entry["quarantine_sha256"]


def _described(job: Job, done: Mapping[str, Any]) -> dict[str, Any]:
    return {**job.about, "parts": dict(sorted(done.items()))}
