"""Progressive layered extraction: levels of CGC, between which a shared gate carries on what the tasks share.

    u^0_t = u^0_sh = x              e_t,k = expert_t,k(u_t)    e_sh,k = expert_sh,k(u_sh)
    u_t  <- softmax(W_t u_t + b_t)    . [own experts of t; shared experts]
    u_sh <- softmax(W_sh u_sh + b_sh) . [all experts of all tasks; shared experts]      not at the last level

Tang et al., Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized Recommendations,
RecSys 2020, section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from rec.modules.config import Levels, ModelConfig, create_experts
from rec.modules.expert_groups import Counts, NonNegative, own_or_shared, owners, with_shared
from rec.modules.gates import Gates, mix
from rec.modules.linear import BatchedLinear, GroupLayer, PairLinear, SharedInputLayer


class Config(ModelConfig):
    """Settings of a PLE."""

    task_experts: Counts = Field(default=2, description="of a task, per level: for all, or by task")
    shared_experts: NonNegative = Field(default=2, description="of all tasks, per level; may be 0")
    levels: Levels = Field(default=[[256], [128]], description="per level, widths of an expert's layers")


class Model(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> [T, N, H].

    Raises SpecError when `task_experts` names no task, or leaves a task without any expert.
    """

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        number = with_shared(config.task_experts, config.shared_experts, list(tasks))
        owned, last = owners(number), len(config.levels) - 1
        self.experts, self.gates = nn.ModuleList(), nn.ModuleList()
        # groups with a gate come first; after the last level nothing reads what is shared
        self.gated = [len(number)] * last + [len(tasks)]
        self.width = 0
        for level, widths in enumerate(config.levels):
            rows = list(number)[: self.gated[level]]
            if level == 0:
                first = SharedInputLayer(context, candidate, count=len(owned), out=widths[0])
                logits = PairLinear(context, candidate, len(rows) * len(owned))
            else:
                first = GroupLayer(list(number.values()), self.width, widths[0])
                logits = BatchedLinear(len(rows), self.width, len(owned))
            self.experts.append(create_experts(config, first, owned, widths))
            self.gates.append(Gates(logits, rows, owned, own_or_shared))
            self.width = widths[-1]

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """One representation per task [T, N, H]."""
        x = context_BC, candidate_ND, owner_N
        group_UNH = mix(self.gates[0](*x), self.experts[0](*x))
        for experts, gates, gated in zip(self.experts[1:], self.gates[1:], self.gated[1:], strict=True):
            group_UNH = mix(gates(group_UNH[:gated]), experts(group_UNH))
        return group_UNH
