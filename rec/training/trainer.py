"""Training: one process or many, on CPUs or CUDA devices, by the same spec and to the same numbers.

Every rank trains on its part of each batch (rec/data/loader.py). Embedding tables are sharded over ranks
(rec/training/sharding.py); everything else is the same on each. The state is saved on the way, and a run that was
killed goes on from the last checkpoint to the same weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rec import baselines, ranker, world
from rec.atomic import read_json, sweep, write_bytes, write_json
from rec.data import days, loader, preprocessor, splits
from rec.data.preprocessor import Preprocessor
from rec.errors import DataError
from rec.modules import precision
from rec.output_folder import Origin, Overwrite, digest
from rec.progress import Progress
from rec.spec import Spec, dump, load, sections
from rec.training import (
    baseline_run,
    beginning,
    checkpoint,
    monitor,
    plain_weights,
    progressive,
    redraw,
    refit,
    state,
)
from rec.training.beginning import FRESH, Beginning
from rec.training.checkpoint import Saver
from rec.training.epoch import train_epoch
from rec.training.profile import Profile
from rec.training.state import Run
from rec.training.step import Fit, new_fit
from rec.training.together import opened_together
from rec.training.watch import WatchedSteps

VERSION = 3  # of the weights that training leads to: counts up when the same spec and tables give others
ENTRIES = (
    "spec.toml",
    "fitted",
    "manifest.json",
    "checkpoint",
    "failed",
    "refit",
    "weights",
    "history.json",
    "warm_start.json",
    "progressive.json",
    "report.json",
    "report.html",
    "watch.jsonl",
    "tensorboard",
    "mlflow.json",
    "trace.json",
)
_STABLE = ("spec.toml", "fitted", "refit/fitted", "manifest.json", "history.json")  # more epochs change the others


def train(
    spec: Spec,
    data: Path,
    run: Path,
    *,
    progress: Progress,
    overwrite: Overwrite = "never",
    start: Beginning = FRESH,
    profiled: bool = False,
) -> dict[str, Any]:
    """Train on DATA/train, evaluate on DATA/validation, leave everything in MODEL; the summary of the best validation.

    A new run begins as `start` says. Interrupted, the same call goes on from the last checkpoint to the same numbers as
    an unbroken run; with more epochs than a finished run had, it adds those; `profiled` traces a few steps of rank 0
    (rec/training/profile.py). In a process group all ranks call together, and rank 0 writes. Raises FileExistsError
    when MODEL holds anything else (rec/output_folder.py), DataError when there is nothing to train on.
    """
    _same_tables(spec, data)
    if baselines.named(spec):
        baselines.validate(spec)
        baseline_run.refuse(spec, processes=world.size(), start=start.run is not None, profiled=profiled)
    else:
        ranker.validate(spec)
    redraw.refuse(spec, start)
    refit.refuse(spec, data)
    learnt = preprocessor.load(spec, data / "fitted")
    with opened_together(run, origin(spec, data, start), overwrite=overwrite, progress=progress) as folder_state:
        if world.rank() == 0:
            _tidied(run)
            _describe(spec, learnt, data, run)
        world.agreed(True)  # the others look when that is done
        if baselines.named(spec):
            if folder_state != "finished":
                baseline_run.fit(spec, learnt, data, run, progress)
            return read_json(run / "history.json", list)[0]
        tables = _sharded(spec, data)
        history = state.history(run) if folder_state == "finished" else []
        if not history or _unfinished(history, spec, epoch=history[-1]["epoch"] + 1):
            if history:
                progress.say(f"{run}: going on after epoch {history[-1]['epoch']} of {spec.train.epochs}")
            first = Run(spec, learnt, data, run, new_fit(spec, learnt, tables), progress)
            history = _trained(first, start, profiled=profiled)
            del first  # and its tables, before others are made
        elif history[-1]["epoch"] < spec.train.epochs and spec.train.mode == "epochs":
            last = f"train.patience = {spec.train.patience} ended training after epoch {history[-1]['epoch']}"
            progress.say(f"{last} of {spec.train.epochs}; a larger one goes on")
        chosen = history[monitor.best(history, spec)]
        if not spec.train.refit:
            return chosen
        of = refit.trained(spec, data, run, history, start=start, tables=tables, progress=progress)
        return {**chosen, "refit": of}


def origin(spec: Spec, data: Path, start: Beginning = FRESH) -> Origin:
    """What a run is made of, and what lies in its folder."""
    parts = {place: digest(part) for place, part in sections.of_model(spec).items()}
    made_of = {"session tables": splits.digest(data)[:16], **parts, **start.made_of(spec), "training version": VERSION}
    if spec.train.mode == "epochs" and spec.train.decay != "constant":
        made_of["number of epochs, over which train.decay runs:"] = spec.train.epochs
    return Origin("train", spec.name, made_of, ENTRIES, (data, *start.inputs(spec)), _STABLE)


def _trained(run: Run, start: Beginning, *, profiled: bool) -> list[dict[str, Any]]:
    """Train the remaining epochs, or days; the history of validations."""
    spec, fit, progress = run.spec, run.fit, run.progress
    if spec.train.mode == "progressive":
        run.days = days.days(run.data, "train", spec)
    fit.of = _steps(run)
    saver = Saver(run.folder, keep=spec.train.checkpoint.keep)
    if not checkpoint.steps(run.folder):
        beginning.fill(run, start)
    state.restore(run)
    profile = Profile(run.folder, fit.device) if profiled and world.rank() == 0 else None
    watch = WatchedSteps(run, profile)
    progress.say(f"{_count(fit)} on {fit.device}" + (f" x {world.size()}" if world.size() > 1 else ""))
    if spec.train.precision == "bf16" and not precision.quick(fit.device):
        progress.say(
            "train.precision = 'bf16' is many times slower than 'fp32' on this CPU, which has no instructions for it"
        )
    try:
        while _unfinished(run.history, spec, epoch=run.epoch):
            redraw.begin_epoch(run, start)
            train_epoch(run, saver, watch)
    except BaseException:
        saver.give_up()
        raise
    finally:
        watch.close()
    saver.wait()
    if world.rank() == 0 and not spec.train.refit:
        plain_weights.write(run.folder)
    return run.history


def _sharded(spec: Spec, data: Path) -> ranker.Tables | None:
    """What shards the embedding tables over the ranks, of which there are several."""
    if world.size() == 1:
        return None
    from rec.training import planning  # TorchRec's sharding takes seconds to import

    return planning.sharded(spec, data)


def _steps(run: Run) -> int:
    """How many steps schedules run over."""
    train = run.spec.train
    if train.mode == "progressive":
        return progressive.steps(run.days, train.batch)
    return loader.batches(run.data, run.spec) * train.epochs


def _unfinished(history: list[dict[str, Any]], spec: Spec, *, epoch: int) -> bool:
    """Whether there is an epoch to do, and validation did not stop improving; of a progressive run, a day."""
    if spec.train.mode == "progressive":
        return not history  # which has one entry, after the last day
    return epoch <= spec.train.epochs and not monitor.stalled(history, spec)


def _same_tables(spec: Spec, data: Path) -> None:
    """Refuse data whose spec says otherwise how a column of the tables is made; widths and weights may differ."""
    path = data / "spec.toml"
    if not path.exists():
        raise DataError(f"{data}: no session tables here; `multigate features SPEC --out {data}` makes them")
    before, after = sections.of_tables(load(path)), sections.of_tables(spec)
    for where in sorted(set(before) | set(after)):
        if before.get(where) != after.get(where):
            raise DataError(f"{data}: was made with another {where}; make it again with `multigate features --force`")


def _tidied(run: Path) -> None:
    """Put away what a killed process left."""
    for name in ENTRIES:
        sweep(run / name)
    checkpoint.recover(run)


def _describe(spec: Spec, learnt: Preprocessor, data: Path, run: Path) -> None:
    """Spec, vocabularies and scales of a run; a spec that differs in nothing a model depends on replaces the former."""
    text = dump(spec).encode()
    if not (run / "spec.toml").exists() or (run / "spec.toml").read_bytes() != text:
        write_bytes(run / "spec.toml", text)
    if not (run / "manifest.json").exists():
        learnt.save(run / "fitted")
        about = {"format": 1, "kind": "run", "name": spec.name, "data": splits.digest(data)}
        write_json(run / "manifest.json", about)


def _count(fit: Fit) -> str:
    shapes = fit.ranker.stored_tables().shapes()
    dense = sum(p.numel() for p in fit.ranker.dense().values())
    return f"{dense:,} dense weights, {sum(rows * dim for rows, dim in shapes.values()):,} in {len(shapes)} tables"
