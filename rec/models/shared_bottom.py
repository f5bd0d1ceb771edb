"""Shared bottom: one perceptron that all tasks share, one tower per task.

    h_t = f(x)

Caruana, Multitask Learning, Machine Learning 28, 1997.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from rec.modules.config import Sizes
from rec.modules.expert_groups import SHARED
from rec.modules.experts import Experts
from rec.modules.linear import FromInput
from rec.spec import Positive


class Config(Sizes):
    """Sizes of a shared bottom."""

    bottom: list[Positive] = Field(default=[512, 256], min_length=1, description="widths of the shared layers")


class Body(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> [T, N, H]."""

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        self.tasks = len(tasks)
        first = FromInput(context, candidate, count=1, out=config.bottom[0])
        self.bottom = Experts(first, [SHARED], config.bottom, config)
        self.width = config.bottom[-1]

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """The one representation, for every task [T, N, H]."""
        return self.bottom(context_BC, candidate_ND, owner_N).expand(self.tasks, -1, -1)
