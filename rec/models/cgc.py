"""Customised gate control: experts of each task beside shared ones; a task's gate sees its own and the shared.

    h_t = sum_k g_tk e_k    g_t = softmax(W_t x + b_t) over the experts of task t and the shared ones

Tang et al., Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized Recommendations,
RecSys 2020, section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from rec.modules.config import ModelConfig, create_experts
from rec.modules.expert_groups import Counts, NonNegative, own_or_shared, owners, with_shared
from rec.modules.gates import Gates, mix
from rec.modules.linear import PairLinear, SharedInputLayer
from rec.spec import Positive


class Config(ModelConfig):
    """Settings of a CGC."""

    task_experts: Counts = Field(default=2, description="of a task: for all, or by task")
    shared_experts: NonNegative = Field(default=2, description="of all tasks; may be 0")
    expert_widths: list[Positive] = Field(default=[256, 128], min_length=1, description="widths of an expert's layers")


class Model(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> [T, N, H].

    Raises SpecError when `task_experts` names no task, or leaves a task without any expert.
    """

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        rows = list(tasks)
        owned = owners(with_shared(config.task_experts, config.shared_experts, rows))
        first = SharedInputLayer(context, candidate, count=len(owned), out=config.expert_widths[0])
        self.experts = create_experts(config, first, owned, config.expert_widths)
        self.gates = Gates(PairLinear(context, candidate, len(rows) * len(owned)), rows, owned, own_or_shared)
        self.width = config.expert_widths[-1]

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """One representation per task [T, N, H]."""
        expert_ENH = self.experts(context_BC, candidate_ND, owner_N)
        return mix(self.gates(context_BC, candidate_ND, owner_N), expert_ENH)
