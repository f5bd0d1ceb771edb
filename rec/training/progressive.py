"""Progressive training: each day of the training split, in order, is first evaluated on, then learnt from once.

    [train] mode = "progressive"        MODEL/progressive.json    the figures of every day, before it was learnt from

A day (UTC, rec/data/days.py) is what an epoch is otherwise: it is shuffled by itself, in pools of `train.shuffle`
requests, and a checkpoint says in which day, at which batch a run is. So the figures are those of a model that was
trained until midnight and served on the day after. After the last day the validation split is evaluated as always.
"""

from __future__ import annotations

from collections.abc import Sequence

from rec import world
from rec.atomic import write_json
from rec.data.days import Day
from rec.training import monitor
from rec.training.averages import averaged_weights
from rec.training.state import Run
from rec.training.validation import evaluated

PAGE = "progressive.json"


def steps(days: Sequence[Day], batch: int) -> int:
    """How many steps all days take, of about `batch` candidates: what schedules run over."""
    return sum(max(1, round(day.candidates / batch)) for day in days)


def before(run: Run, day: Day) -> None:
    """Evaluate the model, as it is, on a day it has learnt nothing from; all ranks call together."""
    with averaged_weights(run.fit):
        figures = evaluated(run, day.read(), day.requests, f"evaluating {day.date}")
    size = {"requests": day.requests, "candidates": day.candidates}
    run.daily.append({"day": day.date, "step": run.fit.steps, **size, "evaluated": figures, "train": None})
    _write(run)
    auc = [(name, monitor.figure(output, "auc")) for name, output in figures.items()]
    shown = ", ".join(f"{name} {value:.4f}" for name, value in auc if value is not None) or "undefined"
    run.progress.say(f"{day.date}, before it is learnt: {day.candidates:,} candidates, AUC {shown}")


def after(run: Run) -> None:
    """The day is learnt: its mean training losses beside its figures; all ranks call together."""
    run.daily[-1]["train"] = {"loss": run.losses()}
    _write(run)


def _write(run: Run) -> None:
    if world.rank() == 0:
        write_json(run.folder / PAGE, run.daily)
