"""The bricks of the expert models.

B requests, N candidates, C context width, D candidate width, E experts, H hidden, T tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PairLinear(nn.Module):
    """`W_c context + W_d candidate + b`: a linear layer on [context[owner]; candidate], `W_c` run once per request.

    context [B, C], candidate [N, D], owner [N] -> [N, out]. Either width may be 0.
    """

    def __init__(self, context: int, candidate: int, out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(1, context + candidate))
        self.context = nn.Parameter(torch.empty(out, context).uniform_(-bound, bound)) if context else None
        self.candidate = nn.Parameter(torch.empty(out, candidate).uniform_(-bound, bound)) if candidate else None
        self.bias = nn.Parameter(torch.empty(out).uniform_(-bound, bound))

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """[N, out]; the bias is added on whichever side runs on fewer rows."""
        if self.context is None:
            return (
                F.linear(candidate_ND, self.candidate, self.bias)
                if self.candidate is not None
                else self._constant(owner_N)
            )
        spread_N = F.linear(context_BC, self.context, self.bias).index_select(0, owner_N)
        # in place: at N x out floats, every further pass over memory shows in the step time
        return spread_N if self.candidate is None else spread_N.addmm_(candidate_ND, self.candidate.t())

    def _constant(self, owner_N: Tensor) -> Tensor:
        return self.bias.expand(len(owner_N), -1)


class Stacked(nn.Module):
    """E linear layers of one shape as one batched product: [E, N, in] -> [E, N, out]."""

    def __init__(self, count: int, width: int, out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(count, width, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, out).uniform_(-bound, bound))

    def forward(self, x_ENH: Tensor) -> Tensor:
        """[E, N, out]."""
        return torch.baddbmm(self.bias, x_ENH, self.weight)


class Experts(nn.Module):
    """E multilayer perceptrons of one shape over the raw input, ReLU after every layer, none run alone.

    context [B, C], candidate [N, D], owner [N] -> [E, N, widths[-1]].
    """

    def __init__(
        self, context: int, candidate: int, *, count: int, widths: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.count = count
        self.first = PairLinear(context, candidate, count * widths[0])
        self.rest = nn.ModuleList(Stacked(count, a, b) for a, b in pairwise(widths))
        self.dropout = nn.Dropout(dropout)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """[E, N, H]."""
        hidden = self.dropout(F.relu(self.first(context_BC, candidate_ND, owner_N), inplace=True))
        hidden = hidden.unflatten(1, (self.count, -1)).transpose(0, 1)
        for layer in self.rest:
            hidden = self.dropout(F.relu(layer(hidden), inplace=True))
        return hidden


class Gates(nn.Module):
    """One linear softmax gate per task over E experts, reading the raw input.

    context [B, C], candidate [N, D], owner [N] -> [N, T, E], each row of E summing to 1.
    """

    def __init__(self, context: int, candidate: int, *, tasks: int, experts: int) -> None:
        super().__init__()
        self.shape = (tasks, experts)
        self.linear = PairLinear(context, candidate, tasks * experts)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """[N, T, E]."""
        return self.linear(context_BC, candidate_ND, owner_N).unflatten(1, self.shape).softmax(-1)


class Towers(nn.Module):
    """One perceptron per task, ReLU between layers, ending in one logit: [T, N, H] -> [T, N]."""

    def __init__(self, tasks: int, width: int, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [width, *widths]
        self.hidden = nn.ModuleList(Stacked(tasks, a, b) for a, b in pairwise(sizes))
        self.logit = Stacked(tasks, sizes[-1], 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_TNH: Tensor) -> Tensor:
        """Logits [T, N]."""
        for layer in self.hidden:
            x_TNH = self.dropout(F.relu(layer(x_TNH)))
        return self.logit(x_TNH).squeeze(-1)


def mix(gate_NTE: Tensor, expert_ENH: Tensor) -> Tensor:
    """Each task's gate-weighted sum of expert outputs [T, N, H]."""
    return torch.bmm(gate_NTE, expert_ENH.transpose(0, 1)).transpose(0, 1)
