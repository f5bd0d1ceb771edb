"""`multigate bench quality --suite NAME`: every row of a suite over its seeds, a process each, and what they found.

    OUT/data/SPEC/                  session tables, made once
    OUT/runs/ROW-SEED/              a training, as `multigate train` leaves it
    OUT/results/ROW-SEED.json       what is left of it, with the digest of what it was made from
    OUT/results/ROW-SEED.log        what it said, where it failed

A result whose digest is that of its spec and its tables is kept, so that an interrupted suite goes on where it
stopped. The code is no part of the digest: after a change of a model, remove its results (and its runs, where weights
would now be others).
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from benchmarks.quality import Made, Row, Suite
from benchmarks.quality import page as pages
from benchmarks.quality.statistics import summary
from pipelines.cli import commands
from rec import spec as specs
from rec.atomic import read_json, sha256, write_bytes, write_json
from rec.errors import SpecError, nearest
from rec.output_folder import digest
from rec.progress import Progress

POLL = 0.05  # seconds between two looks at the processes
TAIL = 5  # lines of a failed training that are shown


@dataclass(frozen=True)
class Job:
    """One row with one seed: what its process is told, and where its result will be."""

    row: str
    seed: int
    told: Mapping[str, Any]
    result: Path

    @property
    def name(self) -> str:
        """`row, seed 3`, as it is shown."""
        return f"{self.row}, seed {self.seed}"

    def fresh(self) -> bool:
        """Whether a result of exactly this job is there."""
        return self.result.exists() and read_json(self.result)["key"] == self.told["key"]


def run(
    name: str,
    suite: Suite,
    *,
    out: Path,
    rows: Sequence[str],
    seeds: int | None,
    jobs: int,
    page: Path,
    always: bool,
    progress: Progress,
) -> dict[str, Any]:
    """What a suite found, as tables for show.py; `page` is written when the suite is complete, or `always`.

    `rows` are names (none: all), `seeds` how many (None: as many as the suite wants). Raises SpecError for an unknown
    row, or a page without its marks. A training that fails does not stop the others: what it said last is in
    `failed`, which is None where all went well.
    """
    wanted = suite.seeds if seeds is None else seeds
    made = _made(suite, out, progress)
    every = suite.rows(made)
    chosen = _chosen(every, rows)
    queue = [_job(suite, made[row.of], row, seed, out) for seed in range(1, wanted + 1) for row in chosen]
    failed = _work([job for job in queue if not job.fresh()], jobs, progress, f"suite {name}")
    found = {row.name: _results(job for job in queue if job.row == row.name) for row in chosen}
    found = {row: results for row, results in found.items() if results}
    complete = not failed and len(chosen) == len(every) and wanted >= suite.seeds
    written = []
    if always or complete:
        written = pages.write(page, name, suite.page(found, made), progress)
    return {
        "suite": name,
        "seeds": wanted,
        "out": str(out),
        "pages": written,
        **summary(found),
        "failed": _complaint(failed, len(queue)),
    }


def _made(suite: Suite, out: Path, progress: Progress) -> dict[str, Made]:
    """The session tables of every spec of a suite, made once."""
    made = {}
    for key, path in suite.specs.items():
        data, overrides = out / "data" / _slug(key or path.stem), [*suite.overrides, *suite.changes.get(key, ())]
        commands.features(path, overrides, data, progress, how={"overwrite": "stale"})
        made[key] = Made(specs.load(path, overrides), data)
    return made


def _chosen(every: Sequence[Row], names: Sequence[str]) -> list[Row]:
    known = [row.name for row in every]
    for name in names:
        if name not in known:
            raise SpecError(f"--rows {name}: no such row: {', '.join(known)}{nearest(name, known)}")
    return [row for row in every if not names or row.name in names]


def _slug(name: str) -> str:
    """A name as part of a path."""
    return re.sub(r"[^a-z0-9_.+]+", "-", name)


def _job(suite: Suite, made: Made, row: Row, seed: int, out: Path) -> Job:
    """A job, with its spec written down."""
    name = f"{_slug(row.name)}-{seed}"
    described = specs.parse(
        specs.dump(made.spec), where=f"suite, row {row.name}", overrides=[*row.overrides, f"seed={seed}"]
    )
    text = specs.dump(described)
    told = {
        "key": digest(text, sha256(made.data / "manifest.json"), suite.measure),
        "row": row.name,
        "seed": seed,
        "spec": str(out / "specs" / f"{name}.toml"),
        "data": str(made.data),
        "run": str(out / "runs" / name),
        "result": str(out / "results" / f"{name}.json"),
        "measure": suite.measure,
    }
    for folder in ("specs", "runs", "results"):
        (out / folder).mkdir(exist_ok=True)
    write_bytes(Path(told["spec"]), text.encode())
    return Job(row.name, seed, told, Path(told["result"]))


def _work(todo: Sequence[Job], jobs: int, progress: Progress, what: str) -> list[tuple[Job, str]]:
    """Do all jobs, so many at a time; those that failed, with the end of what they said."""
    waiting, running, failed = list(todo), dict[subprocess.Popen[bytes], tuple[Job, TextIO, float]](), []
    progress.start(f"{what}, {len(todo)} trainings", len(todo))
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                job = waiting.pop(0)
                process, log = _started(job)
                running[process] = (job, log, time.monotonic())
            time.sleep(POLL)
            for process in [process for process in running if process.poll() is not None]:
                job, log, began = running.pop(process)
                log.close()
                if process.returncode:
                    failed.append((job, _tail(Path(log.name))))
                    progress.say(f"{job.name}: failed: {failed[-1][1].splitlines()[-1]}")
                else:
                    Path(log.name).unlink()
                    progress.say(f"{job.name}: {_line(job)}, {time.monotonic() - began:.0f} s")
                progress.advance(1)
    finally:
        for process, (_, log, _) in running.items():
            process.terminate()
            process.wait()
            log.close()
    return failed


def _started(job: Job) -> tuple[subprocess.Popen[bytes], TextIO]:
    described = job.result.with_suffix(".job")
    write_json(described, dict(job.told))
    log = job.result.with_suffix(".log").open("w", encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.quality.worker", str(described)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log), log  # noqa: S603


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-TAIL:]) or "it said nothing"


def _line(job: Job) -> str:
    found = read_json(job.result)
    auc = [f"{name} {f['auc']:.4f}" for name, f in found["report"]["outputs"].items() if f.get("auc") is not None]
    seconds = sum(entry["seconds"] for entry in found["epochs"]) / len(found["epochs"])
    return f"{', '.join(auc)} (epoch {found['best']} of {len(found['epochs'])}, {seconds:.1f} s each)"


def _results(jobs: Any) -> list[dict[str, Any]]:
    return [read_json(job.result) for job in jobs if job.fresh()]


def _complaint(failed: Sequence[tuple[Job, str]], total: int) -> str | None:
    if not failed:
        return None
    told = [f"{job.name} ({job.result.with_suffix('.log')}):\n{_indented(end)}" for job, end in failed]
    return f"{len(failed)} of {total} trainings failed; the others are kept\n" + "\n".join(told)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
