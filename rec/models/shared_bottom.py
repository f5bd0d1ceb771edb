"""Shared bottom: one perceptron that all tasks share, one tower per task.

    h_t = f(x)

Caruana, Multitask Learning, Machine Learning 28, 1997.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from rec.modules.config import ModelConfig, create_experts
from rec.modules.expert_groups import SHARED
from rec.modules.linear import SharedInputLayer
from rec.spec import Positive


class Config(ModelConfig):
    """Settings of a shared bottom."""

    bottom_widths: list[Positive] = Field(default=[512, 256], min_length=1, description="widths of the shared layers")


class Model(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> [T, N, H]."""

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        self.tasks = len(tasks)
        first = SharedInputLayer(context, candidate, count=1, out=config.bottom_widths[0])
        self.bottom = create_experts(config, first, [SHARED], config.bottom_widths)
        self.width = config.bottom_widths[-1]

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """The one representation, for every task [T, N, H]."""
        return self.bottom(context_BC, candidate_ND, owner_N).expand(self.tasks, -1, -1)
