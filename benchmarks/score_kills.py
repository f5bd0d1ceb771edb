"""`multigate score` killed at random moments and taken up by the same command, against a run that nothing broke.

A seed draws the input (session tables, requests, flat rows), the victim (the command, with the processes that it
started left to end by themselves, or one of these) and the moment, from the start to a little beyond the time that an
unbroken run takes. Where a run ends before it is killed, it begins anew in another folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from benchmarks.speed import serve
from rec.data import splits
from rec.data.session_table import outcomes_of
from rec.errors import BundleError
from rec.output_folder import RECORD
from rec.progress import Progress
from serving.bundle import load

LIMIT = 300  # seconds in which a command must end
_REQUESTS, _FILES = 300, 6


@dataclass(frozen=True)
class ScoreKill:
    """One kill: of which input, the victim, how many seconds after the start, and how many parts were done."""

    input: str
    victim: str
    seconds: float
    parts: int


def bench(*, kills: int, procs: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Every kill, and the files that differ from those of unbroken runs."""
    with serve.bench_folder(progress) as run, tempfile.TemporaryDirectory(prefix="multigate-bench-") as name:
        inputs = write_inputs(run / "bundle", run / "data", Path(name))
        return killed(run / "bundle", inputs, Path(name), kills=kills, procs=procs, seed=seed, progress=progress)


def write_inputs(bundle: Path, data: Path, folder: Path) -> dict[str, list[str]]:
    """The same requests as session tables, as requests and as flat rows, in several files; the words that name them."""
    spec = load(bundle).spec
    rows = next(splits.read(data, "train", spec)).slice(0, _REQUESTS)
    (folder / "data" / "test").mkdir(parents=True)
    requests, flat = list[str](), list[str]()
    for index in range(_FILES):
        part = rows.slice(index * _REQUESTS // _FILES, _REQUESTS // _FILES)
        splits.write(folder / f"data/test/part-{index:05d}.arrow", [part], rows.schema)
        bodies, lines = list[bytes](), list[bytes]()
        for row in part.to_pylist():
            kept = [{k: v for k, v in one.items() if k not in outcomes_of(spec)} for one in row["candidates"]]
            body = {**row, "time": row["time"].isoformat(), "candidates": kept}
            bodies.append(msgspec.json.encode(body))
            head = {"request_id": row["request_id"], "time": body["time"], **row["context"]}
            lines += [msgspec.json.encode({**head, **candidate}) for candidate in kept]
        for names, stem, texts in ((requests, "requests", bodies), (flat, "rows", lines)):
            path = folder / f"{stem}-{index}.jsonl"
            path.write_bytes(b"\n".join(texts) + b"\n")
            names.append(str(path))
    return {"tables": ["--data", str(folder / "data")], "requests": requests, "rows": flat}


def killed(
    bundle: Path,
    inputs: Mapping[str, Sequence[str]],
    folder: Path,
    *,
    kills: int,
    procs: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Kill commands on these inputs at random; BundleError where one does not end or does not go on."""
    random, done, differences, runs = np.random.default_rng(seed), list[ScoreKill](), list[str](), 0
    wholes, takes = dict[str, dict[str, bytes]](), dict[str, float]()
    for kind in inputs:
        began = time.monotonic()
        _finished(_words(bundle, inputs[kind], folder / kind, procs), folder / kind)
        wholes[kind], takes[kind] = _files(folder / kind), time.monotonic() - began
    progress.start("kills", kills, "kills")
    while len(done) < kills:
        runs += 1
        kind = list(inputs)[int(random.integers(len(inputs)))]
        out = folder / f"killed-{runs}"
        words = _words(bundle, inputs[kind], out, procs)
        for _ in range(int(random.integers(1, 4))):
            seconds, victim = float(random.random()) * takes[kind], ("command", "process")[int(random.integers(2))]
            if len(done) < kills and _killed(words, out, seconds, victim):
                done.append(ScoreKill(kind, victim, round(seconds, 2), len(list(out.glob("*.parquet")))))
                progress.advance(1)
        _finished(words, out)
        actual = _files(out)
        names = sorted({*actual, *wholes[kind]})
        differences += [f"{out.name}: {name}" for name in names if actual.get(name) != wholes[kind].get(name)]
    return {
        "processes": procs,
        "seed": seed,
        "kills": len(done),
        "runs": runs,
        "differences": differences,
        "rows": done,
    }


def _words(bundle: Path, inputs: Sequence[str], out: Path, procs: int) -> list[str]:
    return [
        *(sys.executable, "-m", "pipelines.cli", "score", str(bundle), *inputs),
        "--out",
        str(out),
        "--procs",
        f"{procs}",
    ]


def _killed(words: Sequence[str], out: Path, seconds: float, victim: str) -> bool:
    """Start the command, and kill it or one of its processes after so many seconds; False where it ended first."""
    with out.with_suffix(".log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ})  # noqa: S603
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        else:
            return False
        children = psutil.Process(process.pid).children(recursive=True)
        scoring = [child for child in children if "spawn_main" in " ".join(_line(child))]
        (scoring[0] if victim == "process" and scoring else process).kill()
        process.wait(LIMIT)
        left = psutil.wait_procs(children, timeout=LIMIT)[1]
    if left:
        raise BundleError(f"{out}: {len(left)} processes outlived the command that started them")
    return True


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # ended meanwhile
        return []


def _finished(words: Sequence[str], out: Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LIMIT)  # noqa: S603
    if done.returncode:
        raise BundleError(f"{out}: ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")


def _files(out: Path) -> dict[str, bytes]:
    """Every file of a folder, but for its record."""
    return {
        file.relative_to(out).as_posix(): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.is_file() and file.name != RECORD
    }
