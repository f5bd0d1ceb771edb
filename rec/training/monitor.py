"""The monitor: one number per validation, higher better, which decides the best one and when training stops.

It is the mean, weighted by `tasks.weight`, of `train.monitor` over the tasks; of a regression the corresponding metric.

    each task once      by the output that its loss is on: `buy|click` where `space = "parent"`, otherwise `buy`
    weight 0            is left out: its loss teaches nothing
    fewer than 30       positives or negatives (candidates of a regression) are left out: with fewer, the standard error
                        of an AUC of 0.7 is above 0.05 (Hanley and McNeil, Radiology 1982; rec/evaluation/remarks.py)
    nothing left        the newest validation is the best, and nothing stops before the last epoch

A history is a list of entries, one per validation, at the end of an epoch or inside one, in their order:

    {"epoch": 2, "step": 1500, "validation": {"click": {"auc": 0.71, "positives": 812, ...}, ...}, ...}

`epoch` counts from 1, `step` over all epochs; `step` may be absent where each epoch is validated once, at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rec.evaluation import regression
from rec.evaluation.remarks import FEWEST
from rec.spec import Spec
from rec.spec.tasks import in_order, loss_output

Entry = Mapping[str, Any]

# epochs differ by a few steps: this share of one is nothing to wait for
_SLACK = 0.05


def monitored(entry: Entry, spec: Spec) -> float | None:
    """What is compared of one validation, higher better; None where there is nothing to compare."""
    return _mean(entry, _comparable([entry], spec), spec)


def best(history: Sequence[Entry], spec: Spec) -> int:
    """The index of the best validation, the earlier of two that are alike; the newest where nothing is comparable.

    Only tasks that have figures in every entry are compared: a task that comes and goes would move the mean by itself.
    """
    tasks = _comparable(history, spec)
    values = [_mean(entry, tasks, spec) for entry in history]
    known = [value if value is not None else -np.inf for value in values]
    return int(np.argmax(known)) if tasks else len(history) - 1


def stalled(history: Sequence[Entry], spec: Spec) -> bool:
    """Whether `train.patience` epochs have passed since the best validation; by steps where entries have them."""
    if not history:
        return False
    top, last = history[best(history, spec)], history[-1]
    if "step" not in top or "step" not in last:
        return last["epoch"] - top["epoch"] >= spec.train.patience
    ended = max((entry for entry in history if entry["epoch"] < last["epoch"]), key=_step, default=None)
    if ended is None:
        return False
    steps_per_epoch = ended["step"] / ended["epoch"]
    return (last["step"] - top["step"]) / steps_per_epoch >= spec.train.patience - _SLACK


def remarks(entry: Entry, spec: Spec) -> list[str]:
    """A sentence for each task that the monitor leaves out, and one where it leaves out all; for the log of a run."""
    validation = entry["validation"]
    if not validation:
        return []
    lines = [
        f"{name}: left out of train.monitor: {reason}"
        for name in in_order(spec.tasks)
        if (reason := _left_out(validation, name, spec))
    ]
    if len(lines) == len(spec.tasks):
        lines.append(f"no task has a {spec.train.monitor} to compare: the newest weights are kept as the best")
    return lines


def figure(figures: Mapping[str, Any], metric: str) -> float | None:
    """A metric of one output by its name for events: of a regression its counterpart.

    >>> figure({"concordance": 0.8}, "auc")
    0.8
    """
    return figures[metric] if metric in figures else figures.get(regression.COUNTERPARTS[metric])


def _comparable(history: Iterable[Entry], spec: Spec) -> list[str]:
    """The tasks that every entry can be compared by; entries without a validation split leave none."""
    entries = list(history)
    return [
        name
        for name in in_order(spec.tasks)
        if entries and all(not _left_out(entry["validation"], name, spec) for entry in entries)
    ]


def _left_out(validation: Mapping[str, Any], name: str, spec: Spec) -> str:
    """Why a task says nothing about a model, or the empty string."""
    task = spec.tasks[name]
    output = loss_output(name, task)
    if not task.weight:
        return "its weight is 0"
    if output not in validation:
        return "it was not evaluated"
    figures = validation[output]
    if task.predict == "event":
        counts = {"positives": figures["positives"], "negatives": figures["candidates"] - figures["positives"]}
    else:
        counts = {"candidates": figures["candidates"]}
    for noun, count in counts.items():
        if count < FEWEST:
            return f"{count} {noun} in validation, fewer than {FEWEST}"
    value = figure(figures, spec.train.monitor)
    return "" if value is not None and np.isfinite(value) else f"its {spec.train.monitor} is undefined"


def _mean(entry: Entry, tasks: Sequence[str], spec: Spec) -> float | None:
    """The weighted mean of the metric over tasks, with the sign that makes higher better."""
    if not tasks:
        return None
    outputs = [entry["validation"][loss_output(name, spec.tasks[name])] for name in tasks]
    values = [figure(figures, spec.train.monitor) for figures in outputs]
    known = [value for value in values if value is not None]
    assert len(known) == len(values), "what is undefined is not comparable"
    sign = -1 if spec.train.monitor == "normalised_entropy" else 1
    return sign * float(np.average(known, weights=[spec.tasks[name].weight for name in tasks]))


def _step(entry: Entry) -> int:
    return entry["step"]
