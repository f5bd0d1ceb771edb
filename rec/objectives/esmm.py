"""Entire-space losses along the task graph (ESMM), or click-space ones for tasks with `space = "parent"`.

    log P(child) = log P(parent) + log sigmoid(z)    L = sum over tasks of the log loss of P(task) over all candidates

A child's tower has no loss of its own: it learns through P(child), on candidates with and without its parent.
Ma et al., Entire Space Multi-Task Model, SIGIR 2018, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from rec.losses.list_losses import ObjectiveConfig
from rec.losses.task_losses import task_losses
from rec.modules.heads import Heads
from rec.spec import Task


class Config(ObjectiveConfig):
    """No settings of its own."""


class Objective(nn.Module):
    """Representations [T, N, H] -> {task: logit [N]}."""

    sample_weights = True  # its losses read them

    def __init__(self, config: Config, *, heads: Heads, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        del config
        self.heads, self.tasks = heads, dict(tasks)

    def forward(self, hidden_TNH: Tensor) -> dict[str, Tensor]:
        """Logits by task, of the conditional probability where a task has a parent."""
        return self.heads(hidden_TNH)

    def losses(self, hidden_TNH: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean log loss of every task, unweighted."""
        return task_losses(self.heads(hidden_TNH), labels, self.tasks)
