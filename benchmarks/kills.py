"""Training that is killed at random moments and taken up by the same command, against a run that nothing broke.

A seed draws the victim of every kill (one rank, or all processes with the launcher) and its moment: while a checkpoint
is being written, between two checkpoints, or while the processes start. Where a process was when it died is read
from the files it left. When a run ends before all kills are done, the next begins in a new folder; each is compared.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import CHECKOUT
from benchmarks.quality import PageContent
from benchmarks.quality.page import table
from rec.atomic import read_json, write_bytes
from rec.errors import BundleError
from rec.progress import Progress
from rec.spec import dump, load
from rec.training import checkpoint, tensor_folder

SHOP = (
    "source.users=200",
    "model.expert_widths=[16]",
    "model.tower_widths=[8]",
    "model.dropout=0.1",
    "train.batch=256",
    "train.epochs=6",
    "train.patience=9",
    "train.validate_every=15",
    "train.checkpoint.steps=2",
)
LIMIT = 120  # seconds in which the processes that were not killed must end
_POLL = 0.002
_WRITING, _BETWEEN, _STARTING = 0.02, 0.2, 10.0  # seconds after the moment began, at most
MOMENTS = ("keeping the best", "in a save", "in a step", "starting")


@dataclass(frozen=True)
class Kill:
    """One kill: of which run, the victim, where it was, the step that is kept, and how soon all others had ended."""

    run: int
    victim: str
    moment: str
    step: int
    seconds: float


@dataclass(frozen=True)
class TrainCommand:
    """The command that is killed: `multigate train SPEC --data DATA --procs N`."""

    spec: Path
    data: Path
    procs: int
    overrides: Sequence[str] = ()

    def words(self, out: Path) -> list[str]:
        """The command line."""
        changes = [word for override in self.overrides for word in ("--set", override)]
        places = ["--data", str(self.data), "--out", str(out), "--procs", str(self.procs)]
        return [sys.executable, "-m", "pipelines.cli", "train", str(self.spec), *places, *changes]


def of_a_shop(*, kills: int, procs: int, seed: int, progress: Progress) -> dict[str, Any]:
    """The same on a small synthetic shop, in a folder that is removed."""
    from features import sources
    from features.pipeline import build

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = load(CHECKOUT / "pipelines" / "cli" / "shop.toml", overrides=SHOP)
        write_bytes(folder / "spec.toml", dump(spec).encode())
        build.build(spec, sources.read(spec, folder), folder / "data", progress=progress)
        training = TrainCommand(folder / "spec.toml", folder / "data", procs)
        return bench(training, folder, kills=kills, seed=seed, progress=progress)


def bench(training: TrainCommand, folder: Path, *, kills: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Every kill, and what differs between the runs that were killed and one that was not.

    Raises BundleError where a run does not go on, or its processes do not end after one was killed.
    """
    random, done, run = np.random.default_rng(seed), list[Kill](), 0
    whole = folder / "unbroken"
    with started(training, whole) as process:
        _ended(process, whole)
    differences: list[str] = []
    progress.start("kills", kills, "kills")
    while len(done) < kills:
        run, out = run + 1, folder / f"killed-{run + 1}"
        while len(done) < kills and (kill := _killed(training, out, run, random)):
            done.append(kill)
            progress.advance(1)
            progress.say(f"{len(done)}: {kill.victim}, {kill.moment}, after step {kill.step}")
        with started(training, out) as process:
            _ended(process, out)
        differences += [f"run {run}: {what}" for what in compared(whole, out)]
    about = {"processes": training.procs, "seed": seed, "kills": len(done), "runs": run}
    return {**about, "differences": differences, "rows": done}


def compared(whole: Path, other: Path) -> list[str]:
    """What two finished runs do not have in common to the bit; seconds do not count."""
    differences = []
    for step, other_step in ((checkpoint.steps(whole)[-1], checkpoint.steps(other)[-1]), *_bests(whole, other)):
        mine, theirs = (dict(tensor_folder.tensors(folder)) for folder in (step, other_step))
        names = sorted(set(mine) | set(theirs))
        same = [n for n in names if n in mine and n in theirs and _bytes(mine[n]) == _bytes(theirs[n])]
        differences += [f"{step.name}: {name}" for name in sorted(set(names) - set(same))]
        differences += [f"{step.name}: state.json"] * (
            _untimed(step / "state.json") != _untimed(other_step / "state.json")
        )
    differences += ["history.json"] * (_untimed(whole / "history.json") != _untimed(other / "history.json"))
    weights = sorted(file.relative_to(whole) for file in (whole / "weights").rglob("*.safetensors"))
    differences += [str(name) for name in weights if (whole / name).read_bytes() != (other / name).read_bytes()]
    return differences + [f"left behind: {file.name}" for file in other.rglob(".*.tmp")]


@contextmanager
def started(training: TrainCommand, out: Path) -> Iterator[subprocess.Popen[str]]:
    """The training as a child process that does not outlive the block, with its ranks; its words go to OUT.log."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with out.with_suffix(".log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(  # noqa: S603
            training.words(out), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True
        )
        try:
            yield process
        finally:
            _kill(_family(process))
            process.wait()


def ranks(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The processes that a launcher started so far, by what they call themselves: "rank 0", "rank 1"."""
    pids = {}
    for child in psutil.Process(process.pid).children():
        try:
            rank = child.environ().get("RANK")
        except psutil.Error:  # ended meanwhile
            continue
        if rank is not None:
            pids[f"rank {rank}"] = child
    return pids


def page(result: Mapping[str, Any]) -> PageContent:
    """The tables of docs/measured/kills.md."""
    rows: Sequence[Kill] = result["rows"]
    victims = sorted({row.victim for row in rows})
    lines = [
        [moment, *(f"{sum((row.moment, row.victim) == (moment, victim) for row in rows)}" for victim in victims)]
        for moment in MOMENTS
    ]
    slowest = max((row.seconds for row in rows), default=0.0)
    about = [
        ["processes", f"{result['processes']}"],
        ["seed", f"{result['seed']}"],
        ["kills", f"{result['kills']}"],
        ["runs", f"{result['runs']}"],
        ["tensors and files that differ", f"{len(result['differences'])}"],
        ["seconds from a kill to the end of all processes, at most", f"{slowest:.1f}"],
    ]
    return PageContent({"kills": table(["", "count"], about), "moments": table(["killed", *victims], lines)})


def _killed(training: TrainCommand, out: Path, run: int, random: np.random.Generator) -> Kill | None:
    """Start or go on, and kill; None where the training ended first."""
    victims = ["all", "launcher", *(f"rank {rank}" for rank in range(training.procs))]
    victim = victims[int(random.integers(len(victims)))]
    moment = ("save", "save", "step", "step", "start")[int(random.integers(5))]
    after, delay = int(random.integers(6)), float(random.random())
    before = _last(out)
    with started(training, out) as process:
        if not _reached(process, out, moment, after, delay):
            _ended(process, out)
            return None
        began, family = time.monotonic(), ranks(process)
        if victim in family:
            _kill([family[victim]])
            left = {*(out / "checkpoint").glob(".*.tmp")}
            code = process.wait(LIMIT)
            if not code:
                raise BundleError(f"{out}: {victim} was killed, and the command said it was well")
        elif victim == "launcher" and family:
            process.kill()
            left = {*(out / "checkpoint").glob(".*.tmp")}
            if psutil.wait_procs(family.values(), timeout=LIMIT)[1]:
                raise BundleError(f"{out}: the launcher was killed, and a rank goes on without it")
        else:
            victim = "all"  # ranks that have not started cannot be killed
            _kill(_family(process))
            left = {*(out / "checkpoint").glob(".*.tmp")}
            process.wait(LIMIT)
        seconds = time.monotonic() - began
    return Kill(run, victim, _where(left, started_up=_last(out) > before), max(_last(out), 0), seconds)


def _reached(process: subprocess.Popen[str], out: Path, moment: str, after: int, delay: float) -> bool:
    """Wait for a moment to kill; False where the training ended first."""
    if moment == "start":
        time.sleep(_STARTING * delay)
        return process.poll() is None
    seen: set[str] = {folder.name for folder in checkpoint.steps(out)}
    first = len(seen)
    while process.poll() is None:
        seen |= {folder.name for folder in checkpoint.steps(out)}
        writing = any((out / "checkpoint").glob(".*.tmp"))
        if len(seen) - first > after and writing == (moment == "save"):
            time.sleep((_WRITING if writing else _BETWEEN) * delay)
            return process.poll() is None
        time.sleep(_POLL)
    return False


def _where(left: set[Path], *, started_up: bool) -> str:
    if not left:
        return "in a step" if started_up else "starting"
    return "keeping the best" if any(file.name.startswith(".best") for file in left) else "in a save"


def _ended(process: subprocess.Popen[str], out: Path) -> None:
    """Wait for a training to end well."""
    if process.wait():
        lines = out.with_suffix(".log").read_text(encoding="utf-8").splitlines()
        raise BundleError(f"{out}: training ended with exit code {process.returncode}:\n" + "\n".join(lines[-8:]))


def _family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The launcher first, which would stop the others in its own way."""
    try:
        launcher = psutil.Process(process.pid)
        return [launcher, *launcher.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes[1:] or processes, timeout=LIMIT)


def _last(out: Path) -> int:
    """The step of the newest checkpoint, -1 where there is none."""
    steps = checkpoint.steps(out)
    return int(steps[-1].name.removeprefix("step-")) if steps else -1


def _bests(whole: Path, other: Path) -> list[tuple[Path, Path]]:
    return [(whole / "checkpoint" / checkpoint.BEST, other / "checkpoint" / checkpoint.BEST)]


def _bytes(tensor: Any) -> bytes:
    return tensor.contiguous().view(-1).numpy().tobytes()


def _untimed(path: Path) -> Any:
    """A JSON file without the seconds that anything took."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(inner) for key, inner in value.items() if key != "seconds"}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    return without(read_json(path))
