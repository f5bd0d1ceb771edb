"""Refit: what validation chose is trained anew on the training and the validation split together.

    [train] refit = true      MODEL/refit/                  vocabularies and scales of both splits, checkpoints, looks
                              MODEL/checkpoint/refit/       the weights, which are evaluated and exported
                              MODEL/checkpoint/best/        those of the run before it, whose validation was held out

The newest requests teach most of what the next ones will be, and validation holds them back. Once it has chosen how
long to train, it is learnt from: a fresh model passes over both splits as often as the best validation had over one,
with everything that is fitted fitted on both. Nothing is chosen any more, and nothing that is measured on validation
is held out: figures of the history are those of the run before. The test split is not touched.

Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, section 7.10, on what is fitted last.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rec import ranker, world
from rec.atomic import read_json, whole_folder
from rec.data import loader, preprocessor, splits
from rec.errors import DataError
from rec.progress import Progress
from rec.spec import Spec
from rec.training import beginning, checkpoint, monitor, plain_weights, redraw, state, weight_average
from rec.training.averages import averaged_weights
from rec.training.beginning import Beginning
from rec.training.checkpoint import REFIT, Saver
from rec.training.epoch import train_epoch
from rec.training.state import Run
from rec.training.step import new_fit
from rec.training.watch import WatchedSteps

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Passes:
    """Whole epochs, and the share of one more."""

    whole: int
    share: float = 0.0

    def __str__(self) -> str:
        """`3 epochs`, `2.5 epochs`."""
        return f"{self.whole + self.share:g} epoch{'' if self.whole + self.share == 1 else 's'}"


def passes(history: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> Passes:
    """How often the model of a validation had seen the training split.

    >>> passes([{"epoch": 1, "step": 10}, {"epoch": 2, "step": 15}, {"epoch": 2, "step": 20}], {"epoch": 2, "step": 15})
    Passes(whole=1, share=0.5)
    """
    ends = {entry["epoch"]: entry["step"] for entry in history}  # the last validation of an epoch is at its end
    before = ends.get(best["epoch"] - 1, 0)
    share = (best["step"] - before) / (ends[best["epoch"]] - before)
    return Passes(best["epoch"]) if share == 1 else Passes(best["epoch"] - 1, share)


def refuse(spec: Spec, data: Path) -> None:
    """DataError where nothing would be chosen by validation."""
    if spec.train.refit and not splits.count(data, "validation"):
        raise DataError(f"{data / 'validation'}: no request, so nothing chooses the epochs of train.refit; see [split]")


def trained(
    spec: Spec,
    data: Path,
    folder: Path,
    history: Sequence[Mapping[str, Any]],
    *,
    start: Beginning,
    tables: ranker.Tables | None,
    progress: Progress,
) -> dict[str, Any]:
    """Train anew what the history of a run in `folder` chose, or go on with that; as `checkpoint.refit_of`.

    All ranks call together.
    """
    best = history[monitor.best(history, spec)]
    chosen = passes(history, best)
    before = checkpoint.refit_of(folder)
    if before is not None and before["passes"] == [chosen.whole, chosen.share]:
        return before
    count = loader.batches(data, spec, SPLITS)
    stop = math.ceil(chosen.share * count)
    if world.rank() == 0:
        _prepared(spec, data, folder / REFIT, (chosen.whole, stop))
    world.agreed(True)  # the others look when that is done
    learnt = preprocessor.load(spec, folder / REFIT / "fitted")
    run = Run(spec, learnt, data, folder / REFIT, new_fit(spec, learnt, tables), progress, splits=SPLITS)
    run.fit.of = count * spec.train.epochs
    progress.say(f"refit: {chosen} anew on train and validation, as chosen by validation (epoch {best['epoch']})")
    _passed(run, start, chosen, stop)
    requests = {name: splits.count(data, name) for name in SPLITS}
    of = {"passes": [chosen.whole, chosen.share], "steps": run.fit.steps, "requests": requests, "text": _text(chosen)}
    saver = Saver(folder, keep=spec.train.checkpoint.keep)
    with averaged_weights(run.fit), weight_average.mean(run, upto=chosen.whole):
        place = {"epoch": best["epoch"], "step": run.fit.steps}
        saver.save_as(REFIT, checkpoint.weights(run.fit.ranker), {**place, "refit": of})
    if world.rank() == 0:
        plain_weights.write(folder)
    return of


def _prepared(spec: Spec, data: Path, place: Path, end: tuple[int, int]) -> None:
    """What is fitted on both splits; checkpoints that are beyond the end, of an earlier choice, are removed."""
    if not (place / "fitted").exists():
        rows = (part for split in SPLITS for part in splits.read(data, split, spec))
        place.mkdir(exist_ok=True)
        with whole_folder(place / "fitted") as beside:
            preprocessor.fit(rows, spec).save(beside)
    checkpoint.recover(place)
    last = checkpoint.steps(place)[-1:]
    if last and _place(read_json(last[0] / "state.json")) > (end[0] + 1, end[1]):
        shutil.rmtree(place / "checkpoint")


def _place(about: Mapping[str, Any]) -> tuple[int, int]:
    return about["epoch"], about["batch"]


def _passed(run: Run, start: Beginning, chosen: Passes, stop: int) -> None:
    """The passes that are left."""
    saver = Saver(run.folder, keep=run.spec.train.checkpoint.keep)
    if not checkpoint.steps(run.folder):
        beginning.fill(run, start)
    state.restore(run)
    watch = WatchedSteps(run, None)
    try:
        while (run.epoch, run.batch) < (chosen.whole + 1, stop):
            redraw.begin_epoch(run, start)
            train_epoch(run, saver, watch, stop=stop if run.epoch > chosen.whole else None)
    except BaseException:
        saver.give_up()
        raise
    finally:
        watch.close()
    saver.wait()


def _text(chosen: Passes) -> str:
    return (
        f"the weights were trained anew on train and validation, for the {chosen} that validation chose: "
        "figures on these splits are not held out, test is"
    )
