"""Experts: perceptrons of one shape, batched, with normalisation, activation and dropout between layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec import world
from rec.modules import cpu
from rec.modules.dropout import Dropout
from rec.modules.linear import BatchedLinear

Activation = Literal["relu", "swish"]


class ExpertNorm(nn.Module):
    """Batch normalisation of E experts' hidden units over candidates: [E, N, H] -> [E, N, H].

    By batch statistics in training, by running ones otherwise, so that a score does not depend on the batch.
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
        """[E, N, H]; a batch of one candidate is normalised by running statistics even in training."""
        if self.training and world.size() > 1:
            return self._by_batch_of_ranks(x_ENH)
        if self.training and x_ENH.shape[1] > 1:
            return self._by_batch(x_ENH)
        return self._scaled(x_ENH, self.mean, self.variance)

    def _scaled(self, x_ENH: Tensor, mean_E1H: Tensor, variance_E1H: Tensor) -> Tensor:
        scale_E1H = self.scale * (variance_E1H + self.epsilon).rsqrt()
        return torch.addcmul(self.shift - mean_E1H * scale_E1H, x_ENH, scale_E1H).to(x_ENH.dtype)

    def _by_batch(self, x_ENH: Tensor) -> Tensor:
        # one row per candidate: the layout the fused kernel is quick on
        x_NK = x_ENH.transpose(0, 1).flatten(1)
        parts = [part.view(-1) for part in self.parts()]
        joined_NK = F.batch_norm(x_NK, *parts, training=True, momentum=self.momentum, eps=self.epsilon)
        return joined_NK.unflatten(1, (len(x_ENH), -1)).transpose(0, 1)

    def _by_batch_of_ranks(self, x_ENH: Tensor) -> Tensor:
        """Normalised by the batch of all ranks, however many candidates each has; ranks call together. In fp32."""
        dtype, x_ENH = x_ENH.dtype, x_ENH.float()
        count = int(world.total(torch.tensor(x_ENH.shape[1])))
        if count <= 1:
            return self._scaled(x_ENH, self.mean, self.variance).to(dtype)
        mean_E1H = world.total_with_gradient(x_ENH.sum(1, keepdim=True)) / count
        variance_E1H = world.total_with_gradient((x_ENH - mean_E1H).square().sum(1, keepdim=True)) / count
        with torch.no_grad():
            self.mean.lerp_(mean_E1H, self.momentum)
            self.variance.lerp_(variance_E1H * (count / (count - 1)), self.momentum)
        return self._scaled(x_ENH, mean_E1H, variance_E1H).to(dtype)

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, variance, scale and shift, [E, 1, H] each."""
        return self.mean, self.variance, self.scale, self.shift


class ActivationBlock(nn.Module):
    """What follows every linear layer of an expert: batch normalisation where `norm`, activation, dropout."""

    def __init__(self, count: int, width: int, *, norm: bool, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.norm = ExpertNorm(count, width) if norm else None
        self.activation: Activation = activation
        self.dropout = Dropout(dropout) if dropout else None

    def forward(self, x_ENH: Tensor) -> Tensor:
        """[E, N, H]."""
        if self.norm is not None and self.norm.training and _by_expert(x_ENH):
            momentum, epsilon = self.norm.momentum, self.norm.epsilon
            experts = cpu.batch_norm_by_expert(x_ENH, self.norm.parts(), momentum=momentum, epsilon=epsilon)
            x_ENH = torch.stack([self._activated(x_NH) for x_NH in experts])
        else:
            x_ENH = self._activated(x_ENH if self.norm is None else self.norm(x_ENH))
        return x_ENH if self.dropout is None else self.dropout(x_ENH)

    def _activated(self, x: Tensor) -> Tensor:
        return F.silu(x) if self.activation == "swish" else F.relu(x, inplace=True)


def _by_expert(x_ENH: Tensor) -> bool:
    return world.size() == 1 and cpu.pays(x_ENH) and x_ENH.is_contiguous() and x_ENH.shape[1] > 1


class Experts(nn.Module):
    """E perceptrons of one shape: a first layer, then layers batched over experts.

    Whatever the first layer (SharedInputLayer, GroupLayer, GroupInputLayer) reads -> [E, N, widths[-1]]. `owners` names
    the group of each expert: a task, a group of tasks, or SHARED.
    """

    def __init__(
        self,
        first: nn.Module,
        owners: Sequence[str],
        widths: Sequence[int],
        *,
        norm: bool = False,
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        count = len(owners)
        self.owners = list(owners)
        self.first = first
        self.rest = nn.ModuleList(BatchedLinear(count, a, b) for a, b in pairwise(widths))
        self.active = nn.ModuleList(
            ActivationBlock(count, width, norm=norm, activation=activation, dropout=dropout) for width in widths
        )
        if norm:
            _without_gradient([*first.named_parameters(), *self.rest.named_parameters()])

    def forward(self, *inputs: Tensor) -> Tensor:
        """[E, N, H]."""
        hidden_ENH = self.active[0](self.first(*inputs))
        for layer, active in zip(self.rest, self.active[1:], strict=True):
            hidden_ENH = active(layer(hidden_ENH))
        return hidden_ENH


def _without_gradient(parameters: Sequence[tuple[str, nn.Parameter]]) -> None:
    """Biases before batch normalisation stay as they are: it takes them out again.

    Their gradient is rounding alone, which AdamW would make whole steps of, and running means lag behind those.
    """
    for name, parameter in parameters:
        if name.endswith("bias"):
            parameter.requires_grad_(False)
