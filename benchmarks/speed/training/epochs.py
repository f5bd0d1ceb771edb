"""Whole epochs in processes of their own: multigate beside other libraries, and two processes beside one."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks import CHECKOUT
from benchmarks.speed import synthetic
from benchmarks.speed.training import files
from benchmarks.speed.training.ours import TASKS
from benchmarks.speed.training.steps import precisions
from rec import spec as specs
from rec.atomic import read_json, write_json
from rec.data import loader, preprocessor
from rec.data.loader import Share
from rec.errors import BundleError
from rec.evaluation.classification import auc
from rec.progress import Progress

LIBRARIES = ("torch-rechub", "deepctr-torch")
BATCH, LR = 4096, 3e-3
_LARGE = 100_000  # rows of a table, above which others take seconds a step
_TAIL = 8  # lines of a failed command that are shown


@dataclass(frozen=True)
class Epoch:
    """An epoch from files: candidates per second and per core second, and AUC on held-out candidates."""

    rows_per_table: int
    candidates_per_request: int
    system: str
    per_second: float
    per_core_second: float
    of_best_peer: float | None
    auc_click: float
    auc_like: float
    auc_buy: float


@dataclass(frozen=True)
class ProcessSpeed:
    """Seconds of the quickest epoch after the first, of the trainer itself.

    `largest_share` of a batch's candidates, times processes: 1 where all have equally many, mean over batches. No step
    is quicker than its largest share.
    """

    processes: int
    seconds: float
    faster: float
    largest_share: float


def epochs(
    rows: Sequence[int],
    per_request: Sequence[int],
    *,
    peers: str | None,
    candidates: tuple[int, int],
    threads: int,
    progress: Progress,
) -> list[Epoch]:
    """All systems at every size; `candidates` are those of an epoch at small and at large tables.

    `peers` is an interpreter that has the other libraries. They see flat rows, to which it is all one how many
    candidates a request has: they are measured at the first of `per_request`, once for every size of tables.
    """
    ours = precisions()
    progress.start("bench train: epochs", len(rows) * (len(per_request) * len(ours) + len(LIBRARIES if peers else ())))
    out: list[Epoch] = []
    for size in rows:
        best: float | None = None
        count = candidates[size > _LARGE]
        for place, per in enumerate(per_request):
            with tempfile.TemporaryDirectory() as folder:
                job = _job(Path(folder), size, per, candidates=count, threads=threads)
                names = LIBRARIES if peers and place == 0 else ()
                others = [_epoch(job, name, peers or "", None, progress) for name in names]
                best = max((epoch.per_core_second for epoch in others), default=best)
                out += [_epoch(job, name, sys.executable, best, progress) for name in ours] + others
    return out


def processes(counts: Sequence[int], *, candidates: int, progress: Progress) -> list[ProcessSpeed]:
    """`multigate train` on so many processes, one thread each, in the order given; `faster` is than the first."""
    progress.start("bench train: processes", len(counts))
    seconds, shares = [], []
    with tempfile.TemporaryDirectory() as folder:
        job = _job(Path(folder), 10_000, 20, candidates=candidates, threads=1)
        with (Path(job["data"]) / "spec.toml").open("a", encoding="utf-8") as spec:
            spec.write('[source]\nkind = "shop"\n')  # what the command line asks of a spec, and does not read here
        for count in counts:
            run = Path(folder) / f"run{count}"
            data = Path(job["data"])
            command = ["-m", "pipelines.cli", "train", str(data / "spec.toml"), "--data", str(data), "--out", str(run)]
            _run([sys.executable, *command, "--procs", str(count), "--set", "train.epochs=4"], threads=1)
            seconds.append(min(entry["seconds"] for entry in read_json(run / "history.json")[1:]))
            shares.append(_largest_share(data, count))
            progress.advance(1)
    return [ProcessSpeed(n, t, seconds[0] / t, share) for n, t, share in zip(counts, seconds, shares, strict=True)]


def _largest_share(data: Path, processes: int) -> float:
    """Of the batches of an epoch, the mean of the largest process's candidates over a mean process's."""
    described = specs.load(data / "spec.toml")
    encoders = preprocessor.load(described, data / "fitted").encoders
    each = [loader.shuffled(data, described, encoders, epoch=2, share=Share(n, processes)) for n in range(processes)]
    mine = [[len(part.mine) for part in parts] for parts in zip(*each, strict=True)]
    return statistics.fmean(max(sizes) * processes / sum(sizes) for sizes in mine)


def _job(folder: Path, rows: int, per_request: int, *, candidates: int, threads: int) -> dict[str, Any]:
    data = folder / "data"
    described = synthetic.spec(rows, batch=BATCH)
    files.write(described, data, rows=rows, candidates=candidates, held_out=2 * BATCH, per_request=per_request)
    return {
        "data": str(data),
        "rows": rows,
        "per_request": per_request,
        "dim": synthetic.DIM,
        "batch": BATCH,
        "lr": LR,
        "threads": threads,
        "answer": str(folder / "answer.json"),
        "scores": str(folder / "scores.npy"),
    }


def _epoch(job: dict[str, Any], system: str, python: str, best: float | None, progress: Progress) -> Epoch:
    path = Path(job["answer"]).with_name("job.json")
    write_json(path, {**job, "library": system, "precision": system})
    worker = (
        ["-m", "benchmarks.speed.training.ours"]
        if system not in LIBRARIES
        else [str(Path(__file__).with_name("peers.py"))]
    )
    _run([python, "-W", "ignore", *worker, str(path)], threads=job["threads"])
    progress.advance(1)
    taken, data = read_json(Path(job["answer"])), Path(job["data"])
    candidates = pq.read_metadata(data / "train.parquet").num_rows
    labels, scores = pq.read_table(data / "validation.parquet", columns=list(TASKS)), np.load(job["scores"])
    figures = [auc(scores[:, k], labels[task].to_numpy()) or 0.5 for k, task in enumerate(TASKS)]
    speed = candidates / taken["core_seconds"]
    of_best = speed / best if best and system not in LIBRARIES else None
    return Epoch(job["rows"], job["per_request"], system, candidates / taken["seconds"], speed, of_best, *figures)


def _run(command: list[str], *, threads: int) -> None:
    """A command from the checkout, on so many threads; BundleError with the end of its output where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise BundleError(f"bench: {' '.join(command)} ended with {done.returncode}:\n" + "\n".join(lines[-_TAIL:]))
