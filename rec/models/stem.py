"""STEM: an embedding of every id per task and a shared one; a task reads the others' experts but never trains them.

    E = experts of t on x_t, shared ones on x_S      g_t = softmax(W_t (x_t + x_S) + b_t) over all of them
    h_t = sum over own and shared g_tk E_k + sum over other tasks' g_tk stop(E_k)

Su et al., STEM: Unleashing the Power of Embeddings for Multi-task Recommendation, AAAI 2024.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from rec.modules.config import ModelConfig, create_experts
from rec.modules.expert_groups import Counts, own_or_shared, owners, with_shared
from rec.modules.gates import Gates, mix
from rec.modules.linear import GroupInputLayer
from rec.spec import Few, Positive


class Config(ModelConfig):
    """Settings of a STEM-Net."""

    expert_widths: list[Positive] = Field(default=[256, 128], min_length=1, description="widths of an expert's layers")
    task_experts: Counts = Field(default=1, description="experts of a task: for all, or by task")
    shared_experts: Few = Field(default=8, description="on the embeddings all tasks share")

    def copies(self, tasks: Mapping[str, str | None]) -> int:
        """One embedding of every id per task; the last copy is shared."""
        return len(tasks) + 1


class Model(nn.Module):
    """context [T + 1, B, C], candidate [T + 1, N, D], owner [N] -> [T, N, H]."""

    taught: Tensor

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        number = with_shared(config.task_experts, config.shared_experts, list(tasks))
        owned = owners(number)
        first = GroupInputLayer(context, candidate, counts=list(number.values()), out=config.expert_widths[0])
        self.experts = create_experts(config, first, owned, config.expert_widths)
        linear = GroupInputLayer(context, candidate, counts=[1] * len(tasks), out=len(owned))
        self.gates = Gates(linear, list(tasks), owned)
        taught = [[own_or_shared(task, owner) for owner in owned] for task in tasks]
        self.register_buffer("taught", torch.tensor(taught, dtype=torch.float32), persistent=False)
        self.width = config.expert_widths[-1]

    def forward(self, context_UBC: Tensor, candidate_UND: Tensor, owner_N: Tensor) -> Tensor:
        """One representation per task [T, N, H]."""
        expert_ENH = self.experts(context_UBC, candidate_UND, owner_N)
        # the last copy is the shared one
        context_TBC = context_UBC[:-1] + context_UBC[-1]
        candidate_TND = candidate_UND[:-1] + candidate_UND[-1]
        gate_NTE = self.gates(context_TBC, candidate_TND, owner_N)
        if not torch.is_grad_enabled():  # both forms give the same; this one is a single product
            return mix(gate_NTE, expert_ENH)
        taught_NTE = gate_NTE * self.taught
        return mix(taught_NTE, expert_ENH) + mix(gate_NTE - taught_NTE, expert_ENH.detach())
