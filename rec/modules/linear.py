"""The bricks of the expert models.

B requests, N candidates, C context width, D candidate width, E experts, U units (tasks, and what they share), G gates,
H hidden, T tasks. Experts that run at the same time are one batched product, whatever their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Batched products with fewer columns than this run, with their gradients, at a fraction of the speed of single ones.
NARROW = 16


class PairLinear(nn.Module):
    """`W_c context + W_d candidate + b`: a linear layer on [context[owner]; candidate], `W_c` run once per request.

    context [B, C], candidate [N, D], owner [N] -> [N, out]. Either width may be 0.
    """

    def __init__(self, context: int, candidate: int, out: int, *, bias: bool = True) -> None:
        super().__init__()
        assert bias or context or candidate, "nothing to compute with"
        bound = 1 / math.sqrt(max(1, context + candidate))
        self.context = nn.Parameter(torch.empty(out, context).uniform_(-bound, bound)) if context else None
        self.candidate = nn.Parameter(torch.empty(out, candidate).uniform_(-bound, bound)) if candidate else None
        self.bias = nn.Parameter(torch.empty(out).uniform_(-bound, bound)) if bias else None

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """[N, out]; the bias is added on whichever side runs on fewer rows."""
        if self.context is None and self.candidate is not None:
            return F.linear(candidate_ND, self.candidate, self.bias)
        if self.context is None:
            return self._constant(owner_N)
        spread_N = F.linear(context_BC, self.context, self.bias).index_select(0, owner_N)
        # in place: at N x out floats, every further pass over memory shows in the step time
        return spread_N if self.candidate is None else spread_N.addmm_(candidate_ND, self.candidate.t())

    def _constant(self, owner_N: Tensor) -> Tensor:
        assert self.bias is not None
        return self.bias.repeat(len(owner_N), 1)  # rows of their own: what follows may work in place


class Stacked(nn.Module):
    """E linear layers of one shape as one batched product: [E, N, in] -> [E, N, out]."""

    def __init__(self, count: int, width: int, out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(count, width, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, out).uniform_(-bound, bound))
        self.narrow = out < NARROW

    def forward(self, x_ENH: Tensor) -> Tensor:
        """[E, N, out]."""
        if self.narrow and self.training:
            each = zip(x_ENH, self.weight.transpose(1, 2).contiguous(), self.bias.squeeze(1), strict=True)
            return torch.stack([F.linear(x_NH, weight, bias) for x_NH, weight, bias in each])
        return torch.baddbmm(self.bias, x_ENH, self.weight)


class FromInput(nn.Module):
    """The first layer of E experts that all read the raw input: (context, candidate, owner) -> [E, N, out]."""

    def __init__(self, context: int, candidate: int, *, count: int, out: int) -> None:
        super().__init__()
        self.count = count
        self.linear = PairLinear(context, candidate, count * out)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """[E, N, out], before its activation."""
        linear, split = self.linear, (self.count, -1)
        if not self.training or linear.context is None or linear.candidate is None:
            return linear(context_BC, candidate_ND, owner_N).unflatten(1, split).transpose(0, 1)
        # one expert after the other in memory, as the gradient of what follows comes: nothing has to be turned around
        context_EBO = F.linear(context_BC, linear.context, linear.bias).unflatten(1, split).transpose(0, 1)
        weight_EDO = linear.candidate.unflatten(0, split).transpose(1, 2)
        return context_EBO.index_select(1, owner_N).baddbmm_(candidate_ND.expand(self.count, -1, -1), weight_EDO)


class FromUnits(nn.Module):
    """The first layer of experts that read their own unit: [U, N, in] -> [E, N, out], `counts[u]` experts on unit u.

    Whatever the counts, one product: a unit is repeated for each of its experts, which are ordered by unit.
    """

    home: Tensor

    def __init__(self, counts: Sequence[int], width: int, out: int) -> None:
        super().__init__()
        home = [unit for unit, count in enumerate(counts) for _ in range(count)]
        self.layer = Stacked(len(home), width, out)
        self.rest = len(counts) - len(home) if home == list(range(len(home))) else None
        self.register_buffer("home", torch.tensor(home, dtype=torch.int64), persistent=False)

    def forward(self, x_UNH: Tensor) -> Tensor:
        """[E, N, out], before its activation."""
        return self.layer(self.read(x_UNH))

    def read(self, x_UNH: Tensor) -> Tensor:
        """What each expert reads [E, N, in]; no copy where the first units have one expert each, and others none."""
        if self.rest is None:
            return x_UNH.index_select(0, self.home)
        return x_UNH.split([len(self.home), self.rest])[0] if self.rest else x_UNH


class FromInputs(nn.Module):
    """The first layer of experts whose units each have a raw input of their own, `W_c` run once per request.

    context [U, B, C], candidate [U, N, D], owner [N] -> [E, N, out], `counts[u]` experts on unit u.
    """

    def __init__(self, context: int, candidate: int, *, counts: Sequence[int], out: int) -> None:
        super().__init__()
        self.context = FromUnits(counts, context, out) if context else None
        self.candidate = FromUnits(counts, candidate, out) if candidate else None
        if self.context is None and self.candidate is None:
            bound = 1 / math.sqrt(out)
            self.bias = nn.Parameter(torch.empty(sum(counts), 1, out).uniform_(-bound, bound))

    def forward(self, context_UBC: Tensor, candidate_UND: Tensor, owner_N: Tensor) -> Tensor:
        """[E, N, out], before its activation."""
        if self.context is None and self.candidate is None:
            return self.bias.repeat(1, len(owner_N), 1)
        if self.context is None:
            assert self.candidate is not None
            return self.candidate(candidate_UND)
        context_EBO = self.context(context_UBC)
        if self.candidate is None:
            return context_EBO.index_select(1, owner_N)
        layer = self.candidate.layer
        if layer.narrow:
            return context_EBO.index_select(1, owner_N).add_(self.candidate(candidate_UND))
        candidate_END = self.candidate.read(candidate_UND)
        return (context_EBO + layer.bias).index_select(1, owner_N).baddbmm_(candidate_END, layer.weight)
