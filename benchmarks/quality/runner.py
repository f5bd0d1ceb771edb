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
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality import Suite, SuiteData, Variant
from benchmarks.quality import page as pages
from benchmarks.quality.statistics import summary
from pipelines.cli import commands
from rec import spec as specs
from rec.atomic import read_json, sha256, write_bytes, write_json
from rec.errors import SpecError, nearest
from rec.output_folder import digest
from rec.progress import Progress

POLL = 0.05  # seconds between two attempts to end what is running
TAIL = 5  # lines of a failed training that are shown


@dataclass(frozen=True)
class Training:
    """One row with one seed: the settings of its process, and where its result will be."""

    row: str
    seed: int
    settings: Mapping[str, Any]
    result: Path

    @property
    def name(self) -> str:
        """`row, seed 3`, as it is shown."""
        return f"{self.row}, seed {self.seed}"

    def fresh(self) -> bool:
        """Whether a result of exactly this job is there."""
        return self.result.exists() and read_json(self.result)["key"] == self.settings["key"]


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
    """What a suite found, as tables; `page` is written when the suite is complete, or `always`.

    `rows` are names (none: all), `seeds` how many (None: as many as the suite wants). Raises SpecError for an unknown
    row, or a page without its marks. A training that fails does not stop the others: what it said last is in
    `failed`, which is None where all went well.
    """
    suite_seeds = suite.seeds if seeds is None else seeds
    data_of = _data_of(suite, out, progress)
    every = suite.rows(data_of)
    chosen = _chosen(every, rows)
    queue = [_job(suite, data_of[row.of], row, seed, out) for seed in range(1, suite_seeds + 1) for row in chosen]
    failed = _work([job for job in queue if not job.fresh()], jobs, progress, f"suite {name}")
    results = {row.name: _results(job for job in queue if job.row == row.name) for row in chosen}
    results = {row: by_seed for row, by_seed in results.items() if by_seed}
    complete = not failed and len(chosen) == len(every) and suite_seeds >= suite.seeds
    written = []
    if always or complete:
        written = pages.write(page, name, suite.page(results, data_of), progress)
    return {
        "suite": name,
        "seeds": suite_seeds,
        "out": str(out),
        "pages": written,
        **summary(results),
        "failed": _complaint(failed, len(queue)),
    }


def _data_of(suite: Suite, out: Path, progress: Progress) -> dict[str, SuiteData]:
    """The session tables of every spec of a suite, made once."""
    data_of = {}
    for key, path in suite.specs.items():
        data, overrides = out / "data" / _slug(key or path.stem), [*suite.overrides, *suite.changes.get(key, ())]
        commands.features(path, overrides, data, progress, how={"overwrite": "stale"})
        data_of[key] = SuiteData(specs.load(path, overrides), data)
    return data_of


def _chosen(every: Sequence[Variant], names: Sequence[str]) -> list[Variant]:
    known = [row.name for row in every]
    for name in names:
        if name not in known:
            raise SpecError(f"--rows {name}: no such row: {', '.join(known)}{nearest(name, known)}")
    return [row for row in every if not names or row.name in names]


def _slug(name: str) -> str:
    """A name as part of a path."""
    return re.sub(r"[^a-z0-9_.+]+", "-", name)


def _job(suite: Suite, data: SuiteData, row: Variant, seed: int, out: Path) -> Training:
    """A job, with its spec written down."""
    name = f"{_slug(row.name)}-{seed}"
    described = specs.parse(
        specs.dump(data.spec), where=f"suite, row {row.name}", overrides=[*row.overrides, f"seed={seed}"]
    )
    text = specs.dump(described)
    settings = {
        "key": digest(text, sha256(data.data / "manifest.json"), suite.measure),
        "row": row.name,
        "seed": seed,
        "spec": str(out / "specs" / f"{name}.toml"),
        "data": str(data.data),
        "run": str(out / "runs" / name),
        "result": str(out / "results" / f"{name}.json"),
        "measure": suite.measure,
    }
    for folder in ("specs", "runs", "results"):
        (out / folder).mkdir(exist_ok=True)
    write_bytes(Path(settings["spec"]), text.encode())
    return Training(row.name, seed, settings, Path(settings["result"]))


def _work(todo: Sequence[Training], jobs: int, progress: Progress, what: str) -> list[tuple[Training, str]]:
    """Do all jobs, so many at a time; those that failed, with the end of their output."""
    failed: list[tuple[Training, str]] = []
    running: set[subprocess.Popen[bytes]] = set()
    progress.start(f"{what}, {len(todo)} trainings", len(todo))
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(_trained, job, running): job for job in todo}
        try:
            for future in as_completed(futures):
                job, log = futures[future], futures[future].result.with_suffix(".log")
                returned, seconds = future.result()
                if returned:
                    failed.append((job, _tail(log)))
                    progress.say(f"{job.name}: failed: {failed[-1][1].splitlines()[-1]}")
                else:
                    log.unlink()
                    progress.say(f"{job.name}: {_line(job)}, {seconds:.0f} s")
                progress.advance(1)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            # a thread may be about to start its process: look again until all have ended
            while wait(futures, timeout=POLL).not_done:
                for process in list(running):
                    process.terminate()
    return failed


def _trained(job: Training, running: set[subprocess.Popen[bytes]]) -> tuple[int, float]:
    """Do a job in a process of its own, which is in `running` meanwhile: its exit code, and the seconds it took."""
    described = job.result.with_suffix(".job")
    write_json(described, dict(job.settings))
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.quality.worker", str(described)]
    began = time.monotonic()
    with job.result.with_suffix(".log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
        running.add(process)
        try:
            return process.wait(), time.monotonic() - began
        finally:
            running.discard(process)


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-TAIL:]) or "it printed nothing"


def _line(job: Training) -> str:
    training = read_json(job.result)
    auc = [f"{name} {f['auc']:.4f}" for name, f in training["report"]["outputs"].items() if f.get("auc") is not None]
    seconds = sum(entry["seconds"] for entry in training["epochs"]) / len(training["epochs"])
    return f"{', '.join(auc)} (epoch {training['best']} of {len(training['epochs'])}, {seconds:.1f} s each)"


def _results(jobs: Iterable[Training]) -> list[dict[str, Any]]:
    return [read_json(job.result) for job in jobs if job.fresh()]


def _complaint(failed: Sequence[tuple[Training, str]], total: int) -> str | None:
    if not failed:
        return None
    lines = [f"{job.name} ({job.result.with_suffix('.log')}):\n{_indented(end)}" for job, end in failed]
    return f"{len(failed)} of {total} trainings failed; the others are kept\n" + "\n".join(lines)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
