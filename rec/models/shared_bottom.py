"""Shared bottom: one perceptron that all tasks share, one tower per task.

    h = f(x)    z_t = tower_t(h)

Caruana, Multitask Learning, Machine Learning 28, 1997.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from rec.layers import Experts, Towers
from rec.spec import Positive, Strict


class Config(Strict):
    """Sizes of a shared bottom."""

    bottom: list[Positive] = Field(default=[512, 256], min_length=1, description="widths of the shared layers")
    tower: list[Positive] = Field(default=[64], description="widths of each task's own layers")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of units left out while training"
    )


class Model(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> {task: logit [N]}."""

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        self.tasks = list(tasks)
        self.bottom = Experts(context, candidate, count=1, widths=config.bottom, dropout=config.dropout)
        self.towers = Towers(len(tasks), config.bottom[-1], config.tower, config.dropout)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> dict[str, Tensor]:
        """Logits by task, of the conditional probability where a task has a parent."""
        hidden_1NH = self.bottom(context_BC, candidate_ND, owner_N)
        logit_TN = self.towers(hidden_1NH.expand(len(self.tasks), -1, -1))
        return dict(zip(self.tasks, logit_TN.unbind(0), strict=True))
