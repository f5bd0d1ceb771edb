"""Predictions of the last training candidates, each made before the update that learnt from it.

The forward pass of a training step has the representation [T, N, H] of every candidate. The objective is asked for its
logits of that, without dropout and without a gradient: towers alone run twice, and only in steps inside a window.
Metrics are those of the classification tasks over the candidates of their loss (rec.spec.tasks.loss_rows), of all
ranks, with sample weights weighted. McMahan et al., Ad Click Prediction: a View from the Trenches, KDD 2013,
section 5.1 (progressive validation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec import world
from rec.evaluation import classification
from rec.evaluation.ranks import Alone
from rec.evaluation.weighted import WeightedAccumulator
from rec.losses.task_losses import among_seen, chain
from rec.spec import Task
from rec.spec.tasks import events, given, happened, loss_rows, sample_weights, weight_column, weighted
from rec.training.process_group import ProcessGroupRanks


class Window:
    """Logits and labels of the steps since the last `figures`; between them, call `seen` around every step."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = events(tasks)
        self._parts: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    @contextmanager
    def seen(self, objective: nn.Module, skip: Callable[[], None], mark: Callable[[str], None]) -> Iterator[None]:
        """Inside the block the candidates that the objective computes losses of are kept.

        `mark` and `skip` keep the time that this takes out of the step's (rec/training/step_clock.py).
        """
        if not self.tasks:
            yield
            return
        losses: Any = objective.losses

        def watched(hidden_TNH: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
            mark("forward")
            with_weights = [*self.tasks, *(weight_column(name) for name in weighted(self.tasks))]
            self._parts.append((_logits(objective, hidden_TNH.detach()), {name: labels[name] for name in with_weights}))
            skip()
            return losses(hidden_TNH, labels)

        objective.losses = watched  # pyright: ignore[reportArgumentType]
        try:
            yield
        finally:
            del objective.losses

    def figures(self) -> dict[str, dict[str, float | None]]:
        """{metric: {task: value}} of what was kept, which is let go; all ranks call together."""
        parts, self._parts = self._parts, []
        ranks = ProcessGroupRanks(world.hosts()) if world.size() > 1 else Alone()
        out: dict[str, dict[str, float | None]] = {"auc": {}, "normalised_entropy": {}}
        for name in self.tasks:
            rows = [_scored(name, self.tasks, logits, labels) for logits, labels in parts]
            columns = np.concatenate(ranks.gathered(np.concatenate(rows, 1).T)).T
            figures = _weighted_figures if len(columns) == 3 else _figures
            out["auc"][name], out["normalised_entropy"][name] = figures(*columns)
        return out


def _figures(score_N: np.ndarray, label_N: np.ndarray) -> tuple[float | None, float | None]:
    """AUC and normalised entropy."""
    return classification.auc(score_N, label_N), classification.normalised_entropy(score_N, label_N)


def _weighted_figures(
    score_N: np.ndarray, label_N: np.ndarray, weight_N: np.ndarray
) -> tuple[float | None, float | None]:
    """The same with sample weights, as an evaluation has them."""
    whole = WeightedAccumulator(weight="candidates", whole_groups=True)
    whole.add(score_N, label_N, np.zeros(len(score_N), np.int64), weight_N)
    figures: Any = whole.summary()
    return figures["auc"], figures["normalised_entropy"]


@torch.no_grad()
def _logits(objective: nn.Module, hidden_TNH: Tensor) -> dict[str, Tensor]:
    trains = objective.training
    objective.eval()
    try:
        return objective(hidden_TNH)
    finally:
        objective.train(trains)


def _scored(
    name: str, tasks: Mapping[str, Task], logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]
) -> np.ndarray:
    """Predictions and labels of a task's training candidates, and their weights if they have some [2 or 3, n].

    A prediction is the probability that its loss is about.
    """
    task = tasks[name]
    if task.space == "parent":
        yes, no = F.logsigmoid(logits[name].float()), F.logsigmoid(-logits[name].float())
    else:
        yes, no = chain({n: z.float() for n, z in logits.items()}, given(tasks))[name]
    probability = among_seen(yes, no, task.negatives)[0].exp()
    rows = loss_rows(name, task, labels)
    columns = [probability, happened(labels[name]).float()]
    sample_N = sample_weights(name, labels)
    columns += [] if sample_N is None else [sample_N]
    return torch.stack([column[rows] for column in columns]).cpu().numpy()
