"""The bricks of the expert models.

B requests, N candidates, C context width, D candidate width, E experts, U units (tasks, and what they share), G gates,
H hidden, T tasks. Experts that run at the same time are one batched product, whatever their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec.dropout import Dropout

if TYPE_CHECKING:  # settings name what lies below the experts, which is made of these bricks
    from rec.sizes import Sizes

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


class Norm(nn.Module):
    """Batch normalisation of E experts' units over candidates: [E, N, H] -> [E, N, H].

    While training, over the batch; afterwards, by the running mean and variance, so a score has no neighbours.
    Ioffe and Szegedy, Batch Normalization, ICML 2015.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, count: int, width: int, *, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.scale = nn.Parameter(torch.ones(count, 1, width))
        self.shift = nn.Parameter(torch.zeros(count, 1, width))
        self.register_buffer("mean", torch.zeros(count, 1, width))
        self.register_buffer("variance", torch.ones(count, 1, width))

    def forward(self, x_ENH: Tensor) -> Tensor:
        """[E, N, H]; a batch of one candidate is normalised as if it were not training."""
        if self.training and x_ENH.shape[1] > 1:
            return self._by_batch(x_ENH)
        scale = self.scale * (self.variance + self.epsilon).rsqrt()
        return torch.addcmul(self.shift - self.mean * scale, x_ENH, scale)

    def _by_batch(self, x_ENH: Tensor) -> Tensor:
        # one row per candidate: the layout the fused kernel is quick on
        joined = self._kernel(x_ENH.transpose(0, 1).flatten(1), *(part.view(-1) for part in self._parts()))
        return joined.unflatten(1, (len(x_ENH), -1)).transpose(0, 1)

    def each(self, x_ENH: Tensor) -> list[Tensor]:
        """Expert by expert, E times [N, H], by the batch: two candidates or more."""
        experts = zip(x_ENH.unbind(0), *(part.squeeze(1).unbind(0) for part in self._parts()), strict=True)
        return [self._kernel(*expert) for expert in experts]

    def _parts(self) -> tuple[Tensor, ...]:
        return self.mean, self.variance, self.scale, self.shift

    def _kernel(self, x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, scale, shift, training=True, momentum=self.momentum, eps=self.epsilon)


class Active(nn.Module):
    """What follows every linear layer of an expert: normalisation if asked for, activation, dropout."""

    def __init__(self, count: int, width: int, sizes: Sizes) -> None:
        super().__init__()
        self.norm = Norm(count, width) if sizes.normalise else None
        self.swish = sizes.activation == "swish"
        self.dropout = Dropout(sizes.dropout) if sizes.dropout else None

    def forward(self, x_ENH: Tensor) -> Tensor:
        """[E, N, H]."""
        if self.norm is not None and self.norm.training and _apart(x_ENH):
            x_ENH = torch.stack([self._bent(one) for one in self.norm.each(x_ENH)])
        else:
            x_ENH = self._bent(x_ENH if self.norm is None else self.norm(x_ENH))
        return x_ENH if self.dropout is None else self.dropout(x_ENH)

    def _bent(self, x: Tensor) -> Tensor:
        return F.silu(x) if self.swish else F.relu(x, inplace=True)


def _apart(x_ENH: Tensor) -> bool:
    """Whether a processor had better normalise expert by expert: each lies in one piece, and stays in the cache."""
    return x_ENH.is_contiguous() and x_ENH.device.type == "cpu" and x_ENH.shape[1] > 1


class Experts(nn.Module):
    """Perceptrons of one shape: a first layer (FromInput, FromUnits, FromInputs), then layers batched over experts.

    Whatever the first layer reads -> [E, N, widths[-1]]. `owners` names the unit each expert belongs to.
    """

    def __init__(self, first: nn.Module, owners: Sequence[str], widths: Sequence[int], sizes: Sizes) -> None:
        super().__init__()
        self.owners = list(owners)
        self.first = first
        self.rest = nn.ModuleList(Stacked(len(owners), a, b) for a, b in pairwise(widths))
        self.active = nn.ModuleList(Active(len(owners), width, sizes) for width in widths)

    def forward(self, *inputs: Tensor) -> Tensor:
        """[E, N, H]."""
        hidden_ENH = self.active[0](self.first(*inputs))
        for layer, active in zip(self.rest, self.active[1:], strict=True):
            hidden_ENH = active(layer(hidden_ENH))
        return hidden_ENH


class Gates(nn.Module):
    """Softmax gates, one linear layer each: weights [N, G, E] over the experts a gate can see, exactly 0 elsewhere.

    `rows` names the gates, `owners` the unit of each expert; `sees(row, owner)` says who sees whom (everybody, by
    default). `linear` gives logits [N, G * E] or [G, N, E].
    """

    hidden: Tensor

    def __init__(
        self,
        linear: nn.Module,
        rows: Sequence[str],
        owners: Sequence[str],
        sees: Callable[[str, str], bool] = lambda _row, _owner: True,
    ) -> None:
        super().__init__()
        self.rows, self.owners = list(rows), list(owners)
        self.linear = linear
        hidden = [[not sees(row, owner) for owner in owners] for row in rows]
        self.masked = any(map(any, hidden))
        self.register_buffer("hidden", torch.tensor(hidden), persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        """[N, G, E], each row summing to 1."""
        logits = self.linear(*inputs)
        logits_NGE = logits.unflatten(1, (len(self.rows), -1)) if logits.dim() == 2 else logits.transpose(0, 1)
        if self.masked:
            logits_NGE = logits_NGE.masked_fill(self.hidden, -torch.inf)
        return weights(logits_NGE) if self.training else logits_NGE.softmax(2)


class Towers(nn.Module):
    """One perceptron per task, ReLU between layers: [T, N, H] -> [T, N, 1], without the last activation."""

    def __init__(self, tasks: int, width: int, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [width, *widths]
        self.hidden = nn.ModuleList(Stacked(tasks, a, b) for a, b in pairwise(sizes))
        self.last = Stacked(tasks, sizes[-1], 1)
        self.dropout = Dropout(dropout)

    def forward(self, x_TNH: Tensor) -> Tensor:
        """[T, N, 1]."""
        return self.last(self.before_last(x_TNH))

    def before_last(self, x_TNH: Tensor) -> Tensor:
        """What the last layer reads [T, N, widths[-1]]."""
        for layer in self.hidden:
            x_TNH = self.dropout(F.relu(layer(x_TNH)))
        return x_TNH


def weights(logit_NGE: Tensor) -> Tensor:
    """Softmax over experts [N, G, E]: along candidates, because torch takes one short row after the other otherwise."""
    return logit_NGE.permute(1, 2, 0).softmax(1).permute(2, 0, 1).contiguous()


def mix(gate_NGE: Tensor, expert_ENH: Tensor) -> Tensor:
    """Each gate's weighted sum of expert outputs [G, N, H]."""
    return torch.bmm(gate_NGE, expert_ENH.transpose(0, 1)).transpose(0, 1)
