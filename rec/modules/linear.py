"""Linear layers of the expert models, batched over experts.

B requests, N candidates, C context width, D candidate width, E experts, U expert groups, G gates,
H hidden, T tasks. Experts of one level are one batched matrix product, whatever their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec.modules import cpu
from rec.modules.precision import to_candidates


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
        """[N, out]; the bias is added on the side with fewer rows."""
        if self.context is None and self.candidate is not None:
            return F.linear(candidate_ND, self.candidate, self.bias)
        if self.context is None:
            return self._constant(owner_N)
        spread_N = to_candidates(F.linear(context_BC, self.context, self.bias), owner_N)
        # in place: at N x out floats, every further pass over memory shows in the step time
        return spread_N if self.candidate is None else spread_N.addmm_(candidate_ND, self.candidate.t())

    def _constant(self, owner_N: Tensor) -> Tensor:
        assert self.bias is not None
        return self.bias.repeat(len(owner_N), 1)  # rows of their own: what follows may work in place


class BatchedLinear(nn.Module):
    """E linear layers of one shape as one batched product: [E, N, in] -> [E, N, out]."""

    def __init__(self, count: int, width: int, out: int, *, beside: int = 0) -> None:
        """`beside` are the columns of another input that is added to the output: weights start the smaller for it."""
        super().__init__()
        bound = 1 / math.sqrt(width + beside)
        self.weight = nn.Parameter(torch.empty(count, width, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, out).uniform_(-bound, bound))
        self.narrow = out < cpu.NARROW

    def forward(self, x_ENH: Tensor) -> Tensor:
        """[E, N, out]."""
        if self.training and self.by_expert(x_ENH):
            return cpu.product_by_expert(x_ENH, self.weight, self.bias)
        if x_ENH.dtype is torch.bfloat16:
            # a product that is added to its bias is slower in bf16 than the product and the sum
            return torch.bmm(x_ENH, self.weight).add_(self.bias)
        return torch.baddbmm(self.bias, x_ENH, self.weight)

    def by_expert(self, x_ENH: Tensor) -> bool:
        """Whether a loop over experts is faster than one batched product: few columns, on a CPU."""
        return self.narrow and cpu.pays(x_ENH)


class SharedInputLayer(nn.Module):
    """The first layer of E experts that all read the raw input: (context, candidate, owner) -> [E, N, out]."""

    def __init__(self, context: int, candidate: int, *, count: int, out: int) -> None:
        super().__init__()
        self.count = count
        self.linear = PairLinear(context, candidate, count * out)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """[E, N, out], before its activation."""
        inputs, linear = (context_BC, candidate_ND, owner_N), self.linear
        if not self.training or linear.context is None or linear.candidate is None or not cpu.pays(candidate_ND):
            return linear(*inputs).unflatten(1, (self.count, -1)).transpose(0, 1)
        return cpu.product_expert_major(inputs, linear.context, linear.candidate, linear.bias, count=self.count)


class GroupLayer(nn.Module):
    """The first layer of experts that read their group's input: [U, N, in] -> [E, N, out].

    Group u has `counts[u]` experts, in the order of groups. One batched product: a group's input is repeated for each
    of its experts.
    """

    home: Tensor

    def __init__(self, counts: Sequence[int], width: int, out: int, *, beside: int = 0) -> None:
        super().__init__()
        home = [group for group, count in enumerate(counts) for _ in range(count)]
        self.layer = BatchedLinear(len(home), width, out, beside=beside)
        self.rest = len(counts) - len(home) if home == list(range(len(home))) else None
        self.register_buffer("home", torch.tensor(home, dtype=torch.int64), persistent=False)

    def forward(self, x_UNH: Tensor) -> Tensor:
        """[E, N, out], before its activation."""
        return self.layer(self.read(x_UNH))

    def read(self, x_UNH: Tensor) -> Tensor:
        """The input of each expert [E, N, in]; no copy if the first groups have one expert each and others none."""
        if self.rest is None:
            return x_UNH.index_select(0, self.home)
        return x_UNH.split([len(self.home), self.rest])[0] if self.rest else x_UNH


class GroupInputLayer(nn.Module):
    """The first layer of experts whose groups each have a raw input of their own, `W_c` run once per request.

    context [U, B, C], candidate [U, N, D], owner [N] -> [E, N, out], `counts[u]` experts in group u.
    """

    def __init__(self, context: int, candidate: int, *, counts: Sequence[int], out: int) -> None:
        super().__init__()
        self.context = GroupLayer(counts, context, out, beside=candidate) if context else None
        self.candidate = GroupLayer(counts, candidate, out, beside=context) if candidate else None
        if self.context is not None and self.candidate is not None:
            nn.init.zeros_(self.candidate.layer.bias)  # one bias is enough to start with: the context's
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
            return to_candidates(context_EBO, owner_N)
        layer = self.candidate.layer
        if layer.by_expert(candidate_UND):
            return to_candidates(context_EBO, owner_N).add_(self.candidate(candidate_UND))
        candidate_END = self.candidate.read(candidate_UND)
        return to_candidates(context_EBO + layer.bias, owner_N).baddbmm_(candidate_END, layer.weight)
