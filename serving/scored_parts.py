"""Scores in a folder, a part per input: whole or not at all, verified by digests, resumed after the last whole one.

INPUT  ->  OUT/part-00000.parquet               the scores of what can be scored
           OUT/_quarantine/part-00000.jsonl     {"file", "row", "reason"} of what cannot; rows count from 1
           OUT/_parts.json                      what is done so far: digests of inputs and outputs, counts
           OUT/_manifest.json                   the same, of all parts
           OUT/_SUCCESS                         empty, written last: the scores are complete
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rec.atomic import flush, read_json, sha256, write_bytes, write_json
from rec.errors import DataError
from rec.progress import Progress

DONE, MANIFEST = "_parts.json", "_manifest.json"
SUCCESS = "_SUCCESS"  # for schedulers that wait for it, as Hadoop and Spark write it
QUARANTINE = "_quarantine"  # readers of a folder of Parquet files pass over names that begin like this
OWN = (DONE, MANIFEST, SUCCESS)
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")  # a part that is being written

Refuse = Callable[[int, str], None]  # puts a row, counted from 1, into quarantine with the reason


class BadRowsError(DataError):
    """More rows than are allowed cannot be scored."""


@dataclass(frozen=True)
class Job:
    """What is to be scored.

    `inputs` has the input of each part by the name of its output; `about` opens the manifest. `count` is the rows of an
    input, `tables` its scores: how many rows were read for each table. At most `bad_rows` of all rows may be refused.
    """

    what: str
    inputs: Mapping[str, Path]
    about: Mapping[str, Any]
    schema: pa.Schema
    count: Callable[[Path], int]
    tables: Callable[[Path, Refuse], Iterator[tuple[int, pa.Table]]]
    bad_rows: float = 0.0


class _BadRows:
    """Counts the rows in quarantine, and ends the job where they are more than allowed."""

    def __init__(self, allowed: float, rows: int, before: int) -> None:
        """Of `rows` in all inputs; `before` are in quarantine already."""
        self._allowed = allowed
        self._rows = rows
        self._count = before

    @property
    def exceeded(self) -> bool:
        """Whether there are more than allowed."""
        return self._count > self._allowed * self._rows

    def add(self, path: Path, row: int, reason: str) -> None:
        """One more; BadRowsError with its place if it is one too many."""
        self._count += 1
        if self.exceeded:
            raise BadRowsError(f"{path}: row {row}: {reason}\n{self._text()}")

    def check(self, out: Path) -> None:
        """BadRowsError where an earlier command was allowed more."""
        if self.exceeded:
            raise BadRowsError(f"{out / QUARANTINE}: {self._text()}")

    def drop(self, count: int) -> None:
        """Forget rows of an input that could not be read to its end."""
        self._count -= count

    def _text(self) -> str:
        return f"{self._count} of {self._rows} rows cannot be scored; --bad-rows {self._allowed:g} allows no more"


def write(job: Job, out: Path, progress: Progress) -> tuple[dict[str, Any], int]:
    """Score the parts that are not in `out` yet; an entry per part, and how many candidates were scored just now.

    Raises FileExistsError for a file in the place of a part that was never recorded, BadRowsError at the first row too
    many, and, after all other parts are scored, DataError naming inputs that cannot be read.
    """
    before = read_json(out / DONE, dict).get("parts", {}) if (out / DONE).exists() else {}
    done = {
        name: before[name]
        for name, path in job.inputs.items()
        if name in before and _verified(before[name], path, out, name)
    }
    rows = {path: done[name]["requests"] if name in done else _size(job, path) for name, path in job.inputs.items()}
    bad_rows = _BadRows(job.bad_rows, sum(rows.values()), sum(map(_rejected, done.values())))
    stale = len(job.inputs) - len(done)
    if not stale and not bad_rows.exceeded and (out / MANIFEST).exists() and (out / SUCCESS).exists():
        return done, 0
    if (out / MANIFEST).exists() and stale:
        progress.say(f"{out}: {stale} of {len(job.inputs)} parts are missing or changed, and are scored again")
    (out / SUCCESS).unlink(missing_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    _clean(out, job, before, done)
    bad_rows.check(out)
    progress.start(f"scoring {job.what}", sum(rows.values()), "requests")
    scored = _missing(job, out, done, bad_rows, progress)
    write_json(out / MANIFEST, _described(job, done))
    write_bytes(out / SUCCESS, b"")
    return done, scored


def summary(done: Mapping[str, Any], *, scored: int, seconds: float) -> dict[str, Any]:
    """How much there is, how much of it was scored in these seconds, and how fast."""
    return {
        "parts": len(done),
        "requests": sum(entry["requests"] for entry in done.values()),
        "candidates": sum(entry["candidates"] for entry in done.values()),
        "seconds": round(seconds, 3),
        "scored": scored,
        "candidates_per_s": round(scored / seconds),
    }


def _missing(job: Job, out: Path, done: dict[str, Any], bad_rows: _BadRows, progress: Progress) -> int:
    """Score the parts that are not `done`; how many candidates."""
    unreadable: list[str] = []
    began, scored = perf_counter(), 0

    def record(name: str, entry: Mapping[str, Any]) -> None:
        done[name] = entry
        write_json(out / DONE, _described(job, done))

    for name in job.inputs:
        if name in done:
            progress.advance(done[name]["requests"])
            continue
        try:
            _part(job, out, name, progress, bad_rows=bad_rows, record=record)
        except BadRowsError:
            raise
        except DataError as error:
            unreadable.append(str(error))
            continue
        scored += done[name]["candidates"]
        progress.advance(0, **{"candidates/s": scored / (perf_counter() - began)})
    if unreadable:
        raise DataError("\n".join([*unreadable, f"{len(done)} of {len(job.inputs)} parts were scored into {out}"]))
    return scored


def _clean(out: Path, job: Job, before: Mapping[str, Any], done: Mapping[str, Any]) -> None:
    """Remove what killed runs left, parts that are to be made again, and parts of inputs that are no more."""
    names = {place.name for name in job.inputs for place in _places(out, name)}
    for file in out.glob(".*.tmp"):
        if (unfinished := _UNFINISHED.fullmatch(file.name)) and unfinished["name"] in names:
            file.unlink()
    for name in sorted(set(job.inputs) - set(before)):
        for place in _places(out, name):
            if place.exists():
                raise FileExistsError(f"{place}: no part that `multigate score` wrote here; give another --out")
    for name in sorted(set(before) - set(done)):
        for place in _places(out, name):
            place.unlink(missing_ok=True)


def _places(out: Path, name: str) -> tuple[Path, Path]:
    """The scores of a part, and its quarantine; directly in their folders, whatever a record says."""
    place = out / Path(name).name
    return place, out / QUARANTINE / f"{place.stem}.jsonl"


def _size(job: Job, path: Path) -> int:
    """Rows of an input; none of one that cannot be read, which its turn will tell."""
    try:
        return job.count(path)
    except DataError:
        return 0


def _rejected(entry: Mapping[str, Any]) -> int:
    return entry.get("rejected", 0)


def _verified(entry: Mapping[str, Any], path: Path, out: Path, name: str) -> bool:
    output, quarantine = _places(out, name)
    whole = output.is_file() and sha256(output) == entry["sha256"] and sha256(path) == entry["input_sha256"]
    if not whole or not _rejected(entry):
        return whole
    return quarantine.is_file() and sha256(quarantine) == entry["quarantine_sha256"]


def _described(job: Job, done: Mapping[str, Any]) -> dict[str, Any]:
    return {**job.about, "parts": dict(sorted(done.items()))}


def _part(
    job: Job,
    out: Path,
    name: str,
    progress: Progress,
    *,
    bad_rows: _BadRows,
    record: Callable[[str, Mapping[str, Any]], None],
) -> None:
    """Score one part. Its entry is recorded before it has its name, so that a part without one is somebody else's."""
    path = job.inputs[name]
    output, quarantine = _places(out, name)
    beside, reasons = (out / f".{place.name}.{os.getpid()}.tmp" for place in (output, quarantine))
    counts = {"requests": 0, "candidates": 0, "rejected": 0}
    digest = sha256(path)
    try:
        with pq.ParquetWriter(beside, job.schema) as writer, reasons.open("wb") as lines:

            def refuse(row: int, reason: str) -> None:
                counts["requests"] += 1
                counts["rejected"] += 1
                bad_rows.add(path, row, reason)
                lines.write(json.dumps({"file": str(path), "row": row, "reason": reason}).encode() + b"\n")
                progress.advance(1)

            for count, table in job.tables(path, refuse):
                writer.write_table(table)
                counts["requests"] += count
                counts["candidates"] += len(table)
                progress.advance(count)
        entry = {"input_sha256": digest, **counts, "sha256": sha256(beside), "bytes": beside.stat().st_size}
        flush(beside)
        flush(reasons)
        record(name, {**entry, "quarantine_sha256": sha256(reasons)} if counts["rejected"] else entry)
        if counts["rejected"]:
            quarantine.parent.mkdir(exist_ok=True)
            reasons.replace(quarantine)
        beside.replace(output)
    except DataError:
        bad_rows.drop(counts["rejected"])
        raise
    finally:
        beside.unlink(missing_ok=True)
        reasons.unlink(missing_ok=True)
