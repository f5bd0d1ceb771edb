"""AdaTT with task-specific experts only: gates over all tasks' experts, plus a weighted sum of a task's own.

    E = experts, each on its task's u_t      g_t = softmax(W_t u_t + b_t) over all of them
    u_t <- sum_k g_tk E_k + sum_(k of t) v_k E_k                                   level by level, u_t = x at first

Li et al., AdaTT: Adaptive Task-to-Task Fusion Network for Multitask Learning in Recommendations, KDD 2023: AdaTT-sp.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from rec.errors import SpecError
from rec.modules.config import Levels, ModelConfig, create_experts
from rec.modules.expert_groups import Counts, counts, owners
from rec.modules.experts import Experts
from rec.modules.gates import Gates, mix
from rec.modules.linear import GroupLayer, PairLinear, SharedInputLayer


class Config(ModelConfig):
    """Settings of an AdaTT-sp."""

    levels: Levels = Field(default=[[256], [128]], description="per level, widths of an expert's layers")
    task_experts: Counts = Field(default=2, description="native experts of a task, per level: for all, or by task")
    native: bool = Field(default=True, description="add the native sum of a task's own experts to what its gate mixes")


class Model(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> [T, N, H]."""

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        number = counts(config.task_experts, list(tasks), "model.task_experts")
        learnt = {task for task, n in number.items() if n > 1} if config.native else None
        self.levels = create_levels(
            config.levels,
            number,
            list(tasks),
            learnt=learnt,
            config=config,
            context=context,
            candidate=candidate,
        )
        self.width = config.levels[-1][-1]

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """One representation per task [T, N, H]."""
        return through(self.levels, context_BC, candidate_ND, owner_N)


class Native(nn.Module):
    """Native experts (AdaTT): input-independent weights [G, E] of a group's own experts, 0 for those of others.

    Learnt for the groups named, uniform in +-sqrt(1/n) for n experts at first; 1 for the others.
    """

    own: Tensor
    place: Tensor

    def __init__(self, rows: Sequence[str], owners: Sequence[str], learnt: Collection[str]) -> None:
        super().__init__()
        free = [e for e, owner in enumerate(owners) if owner in learnt and owner in rows]
        weight = [torch.empty(1).uniform_(-1, 1) / math.sqrt(owners.count(owners[e])) for e in free]
        self.weight = nn.Parameter(torch.cat(weight)) if weight else None
        place = [free.index(e) + 1 if e in free else 0 for e in range(len(owners))]
        self.register_buffer("place", torch.tensor(place), persistent=False)
        own = torch.tensor([[owner == row for owner in owners] for row in rows], dtype=torch.float32)
        self.register_buffer("own", own, persistent=False)

    def forward(self) -> Tensor:
        """[G, E]."""
        if self.weight is None:
            return self.own
        with_one = torch.cat([self.weight.new_ones(1), self.weight])
        return self.own * with_one.index_select(0, self.place)


class Fusion(nn.Module):
    """One level: what its experts and gates read -> the fused representation of each group [G, N, H]."""

    def __init__(self, experts: Experts, gates: Gates, native: Native | None) -> None:
        super().__init__()
        self.experts, self.gates, self.native = experts, gates, native

    def forward(self, *inputs: Tensor) -> Tensor:
        """[G, N, H]: native weights are added to the gates', so that the mixture is one product."""
        weight_NGE = self.gates(*inputs)
        if self.native is not None:
            weight_NGE = weight_NGE + self.native()
        return mix(weight_NGE, self.experts(*inputs))


def create_levels(
    widths: Sequence[Sequence[int]],
    number: Mapping[str, int],
    tasks: Sequence[str],
    *,
    learnt: Collection[str] | None,
    config: ModelConfig,
    context: int,
    candidate: int,
) -> nn.ModuleList:
    """Levels of `number` experts per group; all groups fuse on every level but the last, where the tasks alone do.

    `tasks` are the first of the groups. `learnt` names those with learnt native weights; None switches the native
    term off. Raises SpecError when there is no expert.
    """
    owned = owners(number)
    if not owned:
        raise SpecError("model.task_experts: expected at least one expert, got 0 for every task")
    levels = nn.ModuleList()
    for index, layers in enumerate(widths):
        rows = list(tasks) if index == len(widths) - 1 else list(number)
        if index == 0:
            first: nn.Module = SharedInputLayer(context, candidate, count=len(owned), out=layers[0])
            linear: nn.Module = PairLinear(context, candidate, len(rows) * len(owned))
        else:
            width = widths[index - 1][-1]
            first = GroupLayer(list(number.values()), width, layers[0])
            linear = GroupLayer([int(name in rows) for name in number], width, len(owned))
        experts = create_experts(config, first, owned, layers)
        native = None if learnt is None else Native(rows, owned, learnt)
        levels.append(Fusion(experts, Gates(linear, rows, owned), native))
    return levels


def through(levels: nn.ModuleList, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
    """The raw input through all levels: [T, N, H]."""
    group_UNH = levels[0](context_BC, candidate_ND, owner_N)
    for level in levels[1:]:
        group_UNH = level(group_UNH)
    return group_UNH
