"""Experts: perceptrons of one shape, batched, with normalisation, activation and dropout between layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec.modules.dropout import Dropout
from rec.modules.linear import Stacked

if TYPE_CHECKING:  # settings name what lies below the experts, which is made of these bricks
    from rec.modules.config import Sizes


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
