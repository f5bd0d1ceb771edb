"""One-gate mixture of experts: MMoE whose tasks all weigh the experts alike.

    e_k = expert_k(x)    g = softmax(W x + b)    h_t = sum_k g_k e_k, the same for every task

Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts, KDD 2018, section 4
(the baseline OMoE; its difference from MMoE is the effect of one gate per task).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from rec.modules.config import ModelConfig, create_experts
from rec.modules.expert_groups import SHARED
from rec.modules.gates import Gates, mix
from rec.modules.linear import PairLinear, SharedInputLayer
from rec.spec import Few, Positive


class Config(ModelConfig):
    """Settings of an OMoE."""

    experts: Few = Field(default=8, description="shared by all tasks")
    expert_widths: list[Positive] = Field(default=[256, 128], min_length=1, description="widths of an expert's layers")


class Model(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> [T, N, H]."""

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        self.tasks = len(tasks)
        owners = [SHARED] * config.experts
        first = SharedInputLayer(context, candidate, count=config.experts, out=config.expert_widths[0])
        self.experts = create_experts(config, first, owners, config.expert_widths)
        self.gates = Gates(PairLinear(context, candidate, config.experts), [SHARED], owners)
        self.width = config.expert_widths[-1]

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """The one representation, for every task [T, N, H]."""
        expert_ENH = self.experts(context_BC, candidate_ND, owner_N)
        return mix(self.gates(context_BC, candidate_ND, owner_N), expert_ENH).expand(self.tasks, -1, -1)
