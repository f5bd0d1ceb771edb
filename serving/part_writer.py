"""One part of a scoring job, written beside its place by whoever works on it: this process, another, a Ray worker.

    score_part(job, index)   {"done": {"input_sha256": ..., "rows": 20, "rejected": 0, ...}, "files": [scores, reasons]}
                             {"rejected": 4, "files": [..., reasons]}    more rows cannot be scored than may be
                             {"unreadable": "..."}                       its input cannot be read

    OUT/.part-00000.parquet.<pid>.tmp    the scores of what can be scored
    OUT/.part-00000.jsonl.<pid>.tmp      {"file", "row", "reason"} of what cannot

A part is a file, or some consecutive rows of one, and its bytes depend on nothing but these rows and the bundle. Who
called it gives both files their names, or removes them (serving/scored_parts.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rec.atomic import flush, sha256
from rec.errors import BundleError, DataError
from serving.bundle import digest_of

Refuse = Callable[[int, str], None]  # puts a row, counted from 1, into quarantine with the reason


class Scored(NamedTuple):
    """Some scores, and of how many rows of the input and how many requests they are."""

    rows: int
    requests: int
    table: pa.Table


@dataclass(frozen=True)
class Part:
    """`rows` rows of an input, from its section `start` to before `stop`; `offset` is where a text has the first.

    Where they were gathered from all over the input, `source` is the file that they were gathered in.
    """

    path: Path
    rows: int
    start: int = 0
    stop: int = 0
    offset: int = 0
    source: Path | None = None


@dataclass(frozen=True)
class PartJob:
    """What every worker has to know: all parts by the name of their output, the bundle, and how an input is scored.

    `opened` makes of the bundle and of `threads` what `tables` scores with; both are functions of a module. At most
    `spare` rows of one part may be refused. `base` is the folder that relative paths start from.
    """

    out: Path
    parts: Mapping[str, Part]
    digests: Mapping[Path, str]
    bundle: Path
    digest: str
    threads: int
    spare: int
    base: Path
    opened: Callable[[Path, int], Any]
    tables: Callable[[Any, Part, Refuse], Iterator[Scored]]
    schema: pa.Schema
    advance: Callable[[int], object] | None = None  # told of rows, where the caller does the work itself


class _ExceededError(Exception):
    """More rows are refused than may be."""


_OPEN: dict[tuple[Any, ...], Any] = {}  # the one thing that this process scores with


def opened_here(opened: Callable[[Path, int], Any], bundle: Path, threads: int) -> Any:
    """What a bundle is scored with, kept for the parts that this process scores until `forget`."""
    scorer = opened(bundle, threads)
    _OPEN.clear()
    _OPEN[opened, bundle, digest_of(bundle), threads] = scorer
    return scorer


def forget() -> None:
    """Keep no bundle open."""
    _OPEN.clear()


def _scorer(job: PartJob) -> Any:
    """What a job is scored with; BundleError where the bundle is another than it was."""
    key = (job.opened, job.bundle, job.digest, job.threads)
    if key not in _OPEN:
        opened_here(job.opened, job.bundle, job.threads)
        if key not in _OPEN:
            raise BundleError(f"{job.bundle}: changed while it was in use")
    return _OPEN[key]


def score_part(job: PartJob, index: int) -> dict[str, Any]:
    """Score part `index`; what became of it."""
    if Path.cwd() != job.base:
        os.chdir(job.base)  # of a worker elsewhere: paths are those that were given
    name = list(job.parts)[index]
    part = job.parts[name]
    output, reasons = (job.out / f".{place}.{os.getpid()}.tmp" for place in (name, f"{Path(name).stem}.jsonl"))
    counts = {"rows": 0, "requests": 0, "candidates": 0, "rejected": 0}
    names = [output.name, reasons.name]
    try:
        _write(job, part, output, reasons, counts)
    except _ExceededError:
        return {"rejected": counts["rejected"], "files": names}
    except DataError as error:
        return {"unreadable": str(error)}
    done = {"input_sha256": job.digests[part.path], **counts, "sha256": sha256(output), "bytes": output.stat().st_size}
    if counts["rejected"]:
        done["quarantine_sha256"] = sha256(reasons)
    flush(output)
    flush(reasons)
    return {"done": done, "rejected": counts["rejected"], "files": names}


def _write(job: PartJob, part: Part, output: Path, reasons: Path, counts: dict[str, int]) -> None:
    """Write the scores of a part and what cannot be scored, and count both."""
    advance = job.advance or (lambda _: None)
    scorer = _scorer(job)
    with pq.ParquetWriter(output, job.schema) as writer, reasons.open("wb") as lines:

        def refuse(row: int, reason: str) -> None:
            counts["rows"] += 1
            counts["rejected"] += 1
            lines.write(json.dumps({"file": str(part.path), "row": row, "reason": reason}).encode() + b"\n")
            if counts["rejected"] > job.spare:
                raise _ExceededError
            advance(1)

        for scored in job.tables(scorer, part, refuse):
            writer.write_table(scored.table)
            counts["rows"] += scored.rows
            counts["requests"] += scored.requests
            counts["candidates"] += len(scored.table)
            advance(scored.rows)
