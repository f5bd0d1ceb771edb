"""AdaTT in its general form: task experts and a shared group, with fusion on every level but the last.

    as adatt_sp, with the shared group as the (T+1)-th: all gates see all experts, and on every level but the last
    u_sh <- sum_k g_shk E_k + sum_(k of sh) v_k E_k                    on the last one it only supplies experts

Li et al., AdaTT: Adaptive Task-to-Task Fusion Network for Multitask Learning in Recommendations, KDD 2023.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from rec.models.adatt_sp import create_levels, through
from rec.modules.config import Levels, ModelConfig
from rec.modules.expert_groups import SHARED, Counts, NonNegative, counts


class Config(ModelConfig):
    """Settings of an AdaTT."""

    levels: Levels = Field(default=[[256], [128]], description="per level, widths of an expert's layers")
    task_experts: Counts = Field(default=2, description="native experts of a task, per level: for all, or by task")
    shared_experts: NonNegative = Field(default=1, description="experts of the shared group, per level")
    native: bool = Field(default=True, description="add the native sum of a group's own experts to what its gate mixes")


class Model(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> [T, N, H].

    Where all groups have one expert, native weights are 1; otherwise every group learns its own, a group with one
    expert too. Without shared experts there is no shared group: adatt_sp, whose groups of one expert have weight 1.
    """

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        number = counts(config.task_experts, list(tasks), "model.task_experts")
        if config.shared_experts:
            number = {**number, SHARED: config.shared_experts}
        learnt = list(number) if max(number.values()) > 1 else []
        native = learnt if config.native else None
        self.levels = create_levels(
            config.levels,
            number,
            list(tasks),
            learnt=native,
            config=config,
            context=context,
            candidate=candidate,
        )
        self.width = config.levels[-1][-1]

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """One representation per task [T, N, H]."""
        return through(self.levels, context_BC, candidate_ND, owner_N)
