"""HoME: experts in a hierarchy of all tasks, groups of tasks and tasks, with feature gates, self gates, and masks.

    level 1, v = x     X_s = Swish(BN(MLP_s(v * fea_s(v))))     s: all tasks, every group
        z_g  = gate_g(v)  . [X_sh; X_g]               + self_g(v)  . X_g
        z_sh = gate_sh(v) . [X_sh; X_1; ...; X_G]     + self_sh(v) . X_sh
    level 2, t in g    Y_s = Swish(BN(MLP_s(z * fea_s(z))))     z: z_sh for all tasks, z_g for the group and for t
        h_t = gate_t([z_g; z_sh]) . [Y_sh; Y_g; Y_t]  + self_t([z_g; z_sh]) . Y_t

A group of one task has no experts of its own on level 2: they would be the task's. gate: softmax over what it sees.
self: softmax, or the sigmoid where a set has one expert.
Wang et al., HoME: Hierarchy of Multi-Gate Experts for Multi-Task Learning at Kuaishou, KDD 2025.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from rec.errors import SpecError
from rec.modules.config import ModelConfig, create_experts
from rec.modules.expert_groups import SHARED, Counts, NonNegative, counts, group, grouped, own_or_shared, owners
from rec.modules.experts import Experts
from rec.modules.gates import Gates, mix, softmax_over_experts
from rec.modules.linear import BatchedLinear, GroupInputLayer, GroupLayer, PairLinear, SharedInputLayer
from rec.spec import Few, Positive

Members = Annotated[list[str], Field(min_length=1)]


class Config(ModelConfig):
    """Settings of a HoME."""

    activation: Literal["relu", "swish"] = Field(default="swish", description="of an expert's layers")
    normalise: bool = Field(default=True, description="batch normalisation before every activation of an expert")
    groups: dict[str, Members] = Field(
        default={}, description="tasks that belong together; none: one group per tree of the task graph"
    )
    levels: list[Annotated[list[Positive], Field(min_length=1)]] = Field(
        default=[[128], [128]], min_length=2, max_length=2, description="per level, widths of an expert's layers"
    )
    meta_experts: Few = Field(default=2, description="of a group, on level 1")
    shared_experts: NonNegative = Field(default=2, description="of all tasks, on each level")
    group_experts: NonNegative = Field(default=2, description="of a group of several tasks, on level 2")
    task_experts: Counts = Field(default=2, description="of a task, on level 2: for all, or by task")
    feature_gates: NonNegative = Field(
        default=2, description="low-rank factors of every feature gate; 0: no such gates"
    )
    rank: Positive = Field(default=32, description="of a factor at most; gated width / factors where that is less")
    self_gates: bool = Field(default=True, description="add a set's own experts once more, by a gate of their own")
    mask: bool = Field(default=True, description="false: every gate sees all experts of its level")


class Model(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> [T, N, H]."""

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        groups = grouped(config.groups, tasks, "model.groups")
        number = counts(config.task_experts, list(tasks), "model.task_experts")
        self.levels = nn.ModuleList([_meta(config, context, candidate, list(groups)), _ranking(config, groups, number)])
        self.width = config.levels[1][-1]

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """One representation per task [T, N, H]."""
        return self.levels[1](self.levels[0](context_BC, candidate_ND, owner_N))


class Level(nn.Module):
    """What gates and experts read -> the mixtures of the gates [G, N, H]."""

    def __init__(self, experts: Experts, gates: Gates, own: SelfGates | None) -> None:
        super().__init__()
        self.experts, self.gates, self.own = experts, gates, own

    def forward(self, *inputs: Tensor) -> Tensor:
        """[G, N, H]."""
        weight_NGE = self.gates(*inputs)
        if self.own is not None:
            weight_NGE = weight_NGE + self.own(*inputs)
        return mix(weight_NGE, self.experts(*inputs))


def _meta(config: Config, context: int, candidate: int, groups: Sequence[str]) -> Level:
    """Level 1: (context, candidate, owner) -> [G + 1, N, H], the groups and then all tasks together."""
    number = {group(name): config.meta_experts for name in groups} | {SHARED: config.shared_experts}
    owned, rows = owners(number), list(number)
    sets = [n for n in number.values() if n]
    if config.feature_gates and context + candidate:
        first: nn.Module = GatedInputLayer(
            context, candidate, counts=sets, out=config.levels[0][0], factors=config.feature_gates, rank=config.rank
        )
    else:
        first = SharedInputLayer(context, candidate, count=len(owned), out=config.levels[0][0])
    gates = Gates(
        PairLinear(context, candidate, len(rows) * len(owned)),
        rows,
        owned,
        lambda row, owner: not config.mask or own_or_shared(row, owner),
    )
    own = SelfGates(PairLinear(context, candidate, len(owned)), rows, owned) if config.self_gates else None
    return Level(create_experts(config, first, owned, config.levels[0]), gates, own)


def _ranking(config: Config, groups: Mapping[str, Sequence[str]], number: Mapping[str, int]) -> Level:
    """Level 2: [G + 1, N, H] -> [T, N, H].

    Raises SpecError when a task is left without an expert.
    """
    home = {task: index for index, tasks in enumerate(groups.values()) for task in tasks}
    group_of = {task: group(list(groups)[home[task]]) for task in number}
    sizes = {group(name): config.group_experts if len(tasks) > 1 else 0 for name, tasks in groups.items()}
    for task, n in number.items():
        if not n + sizes[group_of[task]] + config.shared_experts:
            raise SpecError(f"model.task_experts.{task}: expected at least one expert for task {task!r} to see, got 0")
    reads = home | {group(name): index for index, name in enumerate(groups)} | {SHARED: len(groups)}
    # tasks first, so that their self gates fill the first columns
    sets = {**number, **sizes, SHARED: config.shared_experts}
    owned, width = owners(sets), config.levels[0][-1]
    filled = {name: n for name, n in sets.items() if n}
    first = GatedGroupLayer(
        [reads[name] for name in filled],
        list(filled.values()),
        width,
        config.levels[1][0],
        factors=config.feature_gates,
        rank=config.rank,
    )
    gates = Gates(
        MetaLinear([home[task] for task in number], len(groups), width, len(owned)),
        list(number),
        owned,
        lambda row, owner: not config.mask or owner in (row, group_of[row], SHARED),
    )
    mine = [home[task] for task, n in number.items() for _ in range(n)]
    own = None
    if config.self_gates and mine:
        own = SelfGates(MetaLinear(mine, len(groups), width, 1), list(number), owned)
    return Level(create_experts(config, first, owned, config.levels[1]), gates, own)


class SelfGates(nn.Module):
    """Weights [N, G, E] of every row's own experts, 0 elsewhere: their softmax, or a sigmoid where there is but one.

    `linear` gives a logit for every expert that belongs to a row, [N, K] or [K, N, 1]; they are the first of E.
    """

    own: Tensor
    hidden: Tensor
    alone: Tensor

    def __init__(self, linear: nn.Module, rows: Sequence[str], owners: Sequence[str]) -> None:
        super().__init__()
        self.linear = linear
        mine = [owner for owner in owners if owner in rows]
        own = torch.tensor([[owner == row for owner in mine] for row in rows])
        self.others = len(owners) - len(mine)
        self.register_buffer("own", own, persistent=False)
        # a row without experts sees all, because a softmax over nothing is not a number, and then uses none
        self.register_buffer("hidden", ~own & own.any(1, keepdim=True), persistent=False)
        self.register_buffer("alone", torch.tensor([mine.count(owner) == 1 for owner in mine]), persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        """[N, G, E]."""
        logits = self.linear(*inputs)
        logit_NK = logits if logits.dim() == 2 else logits.squeeze(2).t()
        share_NGK = softmax_over_experts(logit_NK.unsqueeze(1).masked_fill(self.hidden, -torch.inf))
        factor_NK = torch.where(self.alone, logit_NK.sigmoid(), 1.0)
        return F.pad(share_NGK * (factor_NK.unsqueeze(1) * self.own), (0, self.others))


class FeatureGates(nn.Module):
    """x * sum_i softmax(mixing)_i * 2 sigmoid(low_i A_i) for U inputs of width W; every A starts at 0, a gate at 1.

    low [U, N, L * (1 + r)], for each input its L mixing logits and then its L factors' low ranks r; x [U, N, W].
    """

    def __init__(self, inputs: int, width: int, *, factors: int, rank: int) -> None:
        super().__init__()
        rank = max(1, min(rank, width // factors))
        self.widths = [factors] + [rank] * factors
        self.low = sum(self.widths)
        self.up = nn.Parameter(torch.zeros(factors, inputs, rank, width))

    def forward(self, low_UNO: Tensor, x_UNW: Tensor) -> Tensor:
        """[U, N, W]."""
        mixing_UNL, *lows_UNr = low_UNO.split(self.widths, 2)
        factors_UNW = [torch.bmm(low, up).sigmoid_() for low, up in zip(lows_UNr, self.up.unbind(0), strict=True)]
        mixing_UN1 = mixing_UNL.split(1, 2)
        # factors are mixed in turn, each by its share of those so far: halves stay halves to the last bit, so that
        # a gate is 1 at first, and there is one pass over memory per factor
        gate_UNW, logit_UN1 = factors_UNW[0], mixing_UN1[0]
        for factor_UNW, next_UN1 in zip(factors_UNW[1:], mixing_UN1[1:], strict=True):
            gate_UNW = torch.lerp(gate_UNW, factor_UNW, (next_UN1 - logit_UN1).sigmoid())
            logit_UN1 = torch.logaddexp(logit_UN1, next_UN1)
        return torch.addcmul(x_UNW.new_zeros(()), x_UNW, gate_UNW, value=2)


class GatedInputLayer(nn.Module):
    """The first layer of level 1's experts, every set on the raw input through its own feature gate: [E, N, out].

    Context columns are gated by the context alone, on B rows; candidate columns by both sides.
    """

    def __init__(
        self, context: int, candidate: int, *, counts: Sequence[int], out: int, factors: int, rank: int
    ) -> None:
        super().__init__()
        sets = len(counts)
        self.sets = sets
        self.context = FeatureGates(sets, context, factors=factors, rank=rank) if context else None
        self.candidate = FeatureGates(sets, candidate, factors=factors, rank=rank) if candidate else None
        if self.context is not None:
            self.low_context = nn.Linear(context, sets * self.context.low, bias=False)
        if self.candidate is not None:
            self.low_candidate = PairLinear(context, candidate, sets * self.candidate.low, bias=False)
        self.first = GroupInputLayer(context, candidate, counts=counts, out=out)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """[E, N, out], before its activation."""
        context_SBC = context_BC.expand(self.sets, -1, -1)
        candidate_SND = candidate_ND.expand(self.sets, -1, -1)
        if self.context is not None:
            context_SBC = self.context(self._by_set(self.low_context(context_BC)), context_SBC)
        if self.candidate is not None:
            low = self.low_candidate(context_BC, candidate_ND, owner_N)
            candidate_SND = self.candidate(self._by_set(low), candidate_SND)
        return self.first(context_SBC, candidate_SND, owner_N)

    def _by_set(self, low: Tensor) -> Tensor:
        return low.unflatten(1, (self.sets, -1)).transpose(0, 1)


class GatedGroupLayer(nn.Module):
    """The first layer of level 2's experts, every group on its level-1 output through its own feature gate.

    [U, N, H] -> [E, N, out]; `reads` is the level-1 output of each group, `counts` its experts.
    """

    reads: Tensor

    def __init__(
        self, reads: Sequence[int], counts: Sequence[int], width: int, out: int, *, factors: int, rank: int
    ) -> None:
        super().__init__()
        self.register_buffer("reads", torch.tensor(reads), persistent=False)
        self.gates = FeatureGates(len(reads), width, factors=factors, rank=rank) if factors else None
        if self.gates is not None:
            bound = width**-0.5
            self.low = nn.Parameter(torch.empty(len(reads), width, self.gates.low).uniform_(-bound, bound))
        self.first = GroupLayer(counts, width, out)

    def forward(self, level_UNH: Tensor) -> Tensor:
        """[E, N, out], before its activation."""
        set_SNH = level_UNH.index_select(0, self.reads)
        if self.gates is not None:
            set_SNH = self.gates(torch.bmm(set_SNH, self.low), set_SNH)
        return self.first(set_SNH)


class MetaLinear(nn.Module):
    """K linear layers on [z_g; z_sh], g a group each: [G + 1, N, H] -> [K, N, out].

    A weight is stored as two halves, so that inputs are not concatenated; `group` has its layers group by group.
    """

    order: Tensor

    def __init__(self, home: Sequence[int], groups: int, width: int, out: int) -> None:
        super().__init__()
        self.counts = [home.count(g) for g in range(groups)]
        self.group = BatchedLinear(len(home), width, out)
        self.shared = nn.Linear(width, len(home) * out, bias=False)
        by_group = sorted(range(len(home)), key=home.__getitem__)
        self.moved = by_group != sorted(by_group)
        self.register_buffer("order", torch.tensor(by_group).argsort(), persistent=False)

    def forward(self, level_UNH: Tensor) -> Tensor:
        """[K, N, out]."""
        *group_NH, shared_NH = level_UNH.unbind(0)
        # narrow: one product per group, and logits side by side
        weights_KOH = self.group.weight.transpose(1, 2).split(self.counts)
        parts = [F.linear(x_NH, w.flatten(0, 1)) for x_NH, w in zip(group_NH, weights_KOH, strict=True) if len(w)]
        logit_NKO = torch.cat(parts, 1).unflatten(1, (len(self.order), -1))
        if self.moved:
            logit_NKO = logit_NKO.index_select(1, self.order)
        bias_KO = self.group.bias.squeeze(1).index_select(0, self.order)
        logit_NKO = logit_NKO + self.shared(shared_NH).unflatten(1, (len(self.order), -1)) + bias_KO
        return logit_NKO.transpose(0, 1)
