"""Multi-gate mixture of experts: shared experts, one linear softmax gate per task over the raw input.

    e_k = expert_k(x)    g_t = softmax(W_t x + b_t)    z_t = tower_t(sum_k g_tk e_k)

Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts, KDD 2018, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from rec.layers import Experts, Gates, Towers, mix
from rec.spec import Positive, Strict


class Config(Strict):
    """Sizes of an MMoE."""

    experts: Positive = Field(default=8, description="shared by all tasks")
    expert: list[Positive] = Field(default=[256, 128], min_length=1, description="widths of an expert's layers")
    tower: list[Positive] = Field(default=[64], description="widths of each task's own layers")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of units left out while training"
    )


class Model(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> {task: logit [N]}."""

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        self.tasks = list(tasks)
        self.experts = Experts(context, candidate, count=config.experts, widths=config.expert, dropout=config.dropout)
        self.gates = Gates(context, candidate, tasks=len(tasks), experts=config.experts)
        self.towers = Towers(len(tasks), config.expert[-1], config.tower, config.dropout)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> dict[str, Tensor]:
        """Logits by task, of the conditional probability where a task has a parent."""
        expert_ENH = self.experts(context_BC, candidate_ND, owner_N)
        gate_NTE = self.gates(context_BC, candidate_ND, owner_N)
        logit_TN = self.towers(mix(gate_NTE, expert_ENH))
        return dict(zip(self.tasks, logit_TN.unbind(0), strict=True))
