"""Cross-stitch: one network per task; after every level each task takes a learned mix of all their outputs.

    e_s = expert_s(u_s)    u_t <- sum_s A_ts e_s          A [T, T] of the level, the same for every input

A is initialised near the identity: 0.9 on a task's own output, the rest uniform over the others. A random A would give
every task an arbitrary mixture at first; the identity would share nothing. Rows that sum to 1 preserve the scale of the
activations, as the paper's initial convex combinations do.
Misra et al., Cross-stitch Networks for Multi-task Learning, CVPR 2016, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from rec.modules.config import Levels, ModelConfig, create_experts
from rec.modules.gates import mix
from rec.modules.linear import BatchedLinear, SharedInputLayer

OWN = 0.9  # of a task's output at the start


class Config(ModelConfig):
    """Settings of a cross-stitch network."""

    levels: Levels = Field(default=[[256], [128]], description="per level, widths of each task's layers")


class Model(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> [T, N, H]."""

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        count = len(tasks)
        self.experts = nn.ModuleList()
        self.stitch = nn.ParameterList(start(count) for _ in config.levels)
        self.width = 0
        for level, widths in enumerate(config.levels):
            first = (
                SharedInputLayer(context, candidate, count=count, out=widths[0])
                if level == 0
                else BatchedLinear(count, self.width, widths[0])
            )
            self.experts.append(create_experts(config, first, list(tasks), widths))
            self.width = widths[-1]

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """One representation per task [T, N, H]."""
        unit_TNH = self._stitched(0, context_BC, candidate_ND, owner_N)
        for level in range(1, len(self.experts)):
            unit_TNH = self._stitched(level, unit_TNH)
        return unit_TNH

    def _stitched(self, level: int, *inputs: Tensor) -> Tensor:
        expert_TNH = self.experts[level](*inputs)
        return mix(self.stitch[level].expand(expert_TNH.shape[1], -1, -1), expert_TNH)


def start(tasks: int) -> Tensor:
    """The initial A of a level [T, T]; rows sum to 1."""
    if tasks == 1:
        return torch.ones(1, 1)
    others = (1 - OWN) / (tasks - 1)
    return torch.full((tasks, tasks), others).fill_diagonal_(OWN)
