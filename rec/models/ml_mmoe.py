"""Multi-level MMoE: levels of shared experts; before the last, one gate for every expert of the next level.

    e^1_k = expert^1_k(x)           e^l_j = expert^l_j(u^l_j)
    u^{l+1}_j = sum_k softmax(W^l_j x + b^l_j)_k e^l_k         j: an expert of the next level, or at the last a task

Every gate of every level reads the raw input x. One level is MMoE.
Li et al., AdaTT: Adaptive Task-to-Task Fusion Network for Multitask Learning in Recommendations, KDD 2023
(its baseline ML-MMoE).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from rec.modules.config import Levels, ModelConfig, create_experts
from rec.modules.expert_groups import SHARED
from rec.modules.gates import Gates, mix
from rec.modules.linear import BatchedLinear, PairLinear, SharedInputLayer
from rec.spec import Few


class Config(ModelConfig):
    """Settings of a multi-level MMoE."""

    experts: Few = Field(default=8, description="of each level, shared by all tasks")
    levels: Levels = Field(default=[[256], [128]], description="per level, widths of an expert's layers")


class Model(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> [T, N, H]."""

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        owners = [SHARED] * config.experts
        last = len(config.levels) - 1
        self.experts, self.gates = nn.ModuleList(), nn.ModuleList()
        self.width = 0
        for level, widths in enumerate(config.levels):
            first = (
                SharedInputLayer(context, candidate, count=config.experts, out=widths[0])
                if level == 0
                else BatchedLinear(config.experts, self.width, widths[0])
            )
            rows = list(tasks) if level == last else owners
            self.experts.append(create_experts(config, first, owners, widths))
            self.gates.append(Gates(PairLinear(context, candidate, len(rows) * len(owners)), rows, owners))
            self.width = widths[-1]

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """One representation per task [T, N, H]."""
        x = context_BC, candidate_ND, owner_N
        group_UNH = mix(self.gates[0](*x), self.experts[0](*x))
        for experts, gates in zip(self.experts[1:], self.gates[1:], strict=True):
            group_UNH = mix(gates(*x), experts(group_UNH))
        return group_UNH
