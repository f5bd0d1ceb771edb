"""Cross network (DCN-v2): explicit feature crosses, one polynomial degree more per layer.

    full       x_l+1 = x_0 * (W x_l + b) + x_l
    low rank   x_l+1 = x_0 * (U (V^T x_l) + b) + x_l
    mixture    x_l+1 = sum_k g_k(x_l) x_0 * (U_k tanh(C_k tanh(V_k^T x_l)) + b) + x_l    g = softmax(W_g x_l + b_g)

x_0 [N, M] is [context; candidate], M = C + D. The first layer's product with the context runs once per request.
W and U are initialised to 0, so that an untrained network is the identity: products of raw numbers with long tails
would dominate otherwise.
Wang et al., DCN V2, WWW 2021, sections 3.2 and 3.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from rec.modules.linear import PairLinear
from rec.spec import Few, Positive, Strict

_OF_KIND = {"full": set(), "low_rank": {"rank"}, "mixture": {"rank", "experts"}}


class CrossConfig(Strict):
    """Feature crosses of both sides (DCN-v2), before the experts."""

    kind: Literal["full", "low_rank", "mixture"] = Field(
        description="what a layer multiplies by: one matrix, two thin ones, or several such pairs and a gate"
    )
    layers: Few = Field(default=2, description="each raises the degree of the products by one")
    rank: Positive = Field(default=32, description="low_rank, mixture: columns of a thin matrix")
    experts: Few = Field(default=4, description="mixture: pairs of thin matrices a layer chooses from")

    @model_validator(mode="after")
    def _of_its_kind(self) -> CrossConfig:
        for name in sorted(self.model_fields_set - _OF_KIND[self.kind] - {"kind", "layers"}):
            raise ValueError(f"expected no {name!r} with kind {self.kind!r}")
        return self


class CrossNetwork(nn.Module):
    """A stack of cross layers: context [B, C], candidate [N, D], owner [N] -> [N, C + D]."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """[N, C + D]."""
        start_NM = torch.cat([context_BC.index_select(0, owner_N), candidate_ND], 1)
        x_NM, side_N = start_NM, candidate_ND
        for layer in self.layers:
            x_NM = torch.addcmul(x_NM, start_NM, layer(context_BC, side_N, owner_N))
            side_N = x_NM
        return x_NM


class FullCross(nn.Module):
    """`W x + b`."""

    def __init__(self, context: int, candidate: int) -> None:
        super().__init__()
        self.linear = PairLinear(context, candidate, context + candidate)
        for weight in self.linear.parameters():
            nn.init.zeros_(weight)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """[N, M]."""
        return self.linear(context_BC, candidate_ND, owner_N)


class LowRankCross(nn.Module):
    """`U (V^T x) + b`."""

    def __init__(self, context: int, candidate: int, rank: int) -> None:
        super().__init__()
        self.down = _down(context, candidate, rank)
        self.up = _up(rank, context + candidate)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """[N, M]."""
        return self.up(self.down(context_BC, candidate_ND, owner_N))


class MixtureCross(nn.Module):
    """`sum_k g_k U_k tanh(C_k tanh(V_k^T x)) + b`: the experts share b, and gates sum to 1."""

    def __init__(self, context: int, candidate: int, *, rank: int, experts: int) -> None:
        super().__init__()
        self.experts = experts
        self.gate = PairLinear(context, candidate, experts)
        self.down = _down(context, candidate, experts * rank)
        self.core = nn.Parameter(torch.empty(experts, rank, rank))
        nn.init.normal_(self.core, std=rank**-0.5)
        self.up = _up(experts * rank, context + candidate)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """[N, M]."""
        gate_NK = self.gate(context_BC, candidate_ND, owner_N).softmax(-1)
        down_NKR = self.down(context_BC, candidate_ND, owner_N).tanh().unflatten(1, (self.experts, -1))
        core_KNR = torch.bmm(down_NKR.transpose(0, 1), self.core).tanh()
        # weighed before U, on rank columns: every expert's U is then one product
        return self.up((core_KNR.transpose(0, 1) * gate_NK.unsqueeze(-1)).flatten(1))


def create(config: CrossConfig, *, context: int, candidate: int) -> CrossNetwork:
    """The crosses of `[model.cross]` over C context and D candidate columns."""
    width = context + candidate
    sides = [(context, candidate)] + [(0, width)] * (config.layers - 1)
    # without columns there is nothing to multiply
    return CrossNetwork([_layer(config, *side) for side in sides if width])


def _layer(config: CrossConfig, context: int, candidate: int) -> nn.Module:
    if config.kind == "full":
        return FullCross(context, candidate)
    if config.kind == "low_rank":
        return LowRankCross(context, candidate, config.rank)
    return MixtureCross(context, candidate, rank=config.rank, experts=config.experts)


def _down(context: int, candidate: int, out: int) -> PairLinear:
    """V^T, Glorot initialisation over both sides (Glorot and Bengio, AISTATS 2010)."""
    linear = PairLinear(context, candidate, out, bias=False)
    for weight in linear.parameters():
        nn.init.normal_(weight, std=(2 / (context + candidate + out)) ** 0.5)
    return linear


def _up(rank: int, width: int) -> nn.Linear:
    """U and b, initialised to 0."""
    linear = nn.Linear(rank, width)
    for weight in linear.parameters():
        nn.init.zeros_(weight)
    return linear
