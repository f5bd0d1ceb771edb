"""Experts one at a time: what the batched products of rec/modules/linear.py are measured against.

The same weights and the same results. Every expert runs through all of its layers before the next one begins, as a list
of perceptrons would; outputs are stacked once, where gates mix them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec.modules.experts import ActivationBlock, Experts
from rec.modules.linear import BatchedLinear, GroupInputLayer, GroupLayer, SharedInputLayer

Model = TypeVar("Model", bound=nn.Module)


def looped(model: Model) -> Model:
    """The model itself, every Experts in it replaced by one that loops over the same weights."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Experts):
                setattr(parent, name, Looped(child))
    return model


class Looped(nn.Module):
    """As Experts: whatever the first layer reads -> [E, N, H]."""

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        self.owners = experts.owners
        self.first = _alone(experts.first)
        self.rest, self.active = experts.rest, experts.active

    def forward(self, *inputs: Tensor) -> Tensor:
        """[E, N, H]."""
        rest = [_each(layer) for layer in self.rest]
        out = []
        for expert, before_NH in enumerate(self.first(*inputs)):
            hidden_NH = _active(self.active[0], expert, before_NH)
            for layer, active in zip(rest, self.active[1:], strict=True):
                weight, bias = layer[expert]
                hidden_NH = _active(active, expert, torch.addmm(bias, hidden_NH, weight))
            out.append(hidden_NH)
        return torch.stack(out)


class First(nn.Module):
    """A first layer that gives the experts' outputs as a list."""

    def __init__(self, layer: SharedInputLayer | GroupLayer | GroupInputLayer | BatchedLinear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Tensor) -> Sequence[Tensor]:
        """E tensors [N, out]."""
        if isinstance(self.layer, SharedInputLayer):
            return _from_input(self.layer, *inputs)
        if isinstance(self.layer, GroupLayer):
            return _from_units(self.layer, *inputs)
        if isinstance(self.layer, GroupInputLayer):
            return _from_inputs(self.layer, *inputs)
        (x_ENH,) = inputs
        return [torch.addmm(b, x_NH, w) for (w, b), x_NH in zip(_each(self.layer), x_ENH, strict=True)]


def _alone(first: nn.Module) -> nn.Module:
    """A first layer, or the one inside whatever a model puts around it, as First."""
    if isinstance(first, SharedInputLayer | GroupLayer | GroupInputLayer | BatchedLinear):
        return First(first)
    for name, child in list(first.named_children()):
        setattr(first, name, _alone(child))
    return first


def _each(layer: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The weight [in, out] and bias [1, out] of every layer of a Stacked; unbound, their gradients are stacked once."""
    assert isinstance(layer, BatchedLinear)
    return list(zip(layer.weight.unbind(0), layer.bias.unbind(0), strict=True))


def _from_input(layer: SharedInputLayer, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> list[Tensor]:
    linear = layer.linear
    assert linear.bias is not None
    biases = linear.bias.chunk(layer.count)
    nothing = [None] * layer.count
    of_context = nothing if linear.context is None else linear.context.chunk(layer.count)
    of_candidate = nothing if linear.candidate is None else linear.candidate.chunk(layer.count)
    out = []
    for w_context, w_candidate, bias in zip(of_context, of_candidate, biases, strict=True):
        if w_context is None:
            out.append(
                bias.repeat(len(owner_N), 1) if w_candidate is None else F.linear(candidate_ND, w_candidate, bias)
            )
            continue
        spread = F.linear(context_BC, w_context, bias).index_select(0, owner_N)
        out.append(spread if w_candidate is None else spread.addmm_(candidate_ND, w_candidate.t()))
    return out


def _from_units(layer: GroupLayer, x_UNH: Tensor) -> list[Tensor]:
    return [
        torch.addmm(bias, x_UNH[unit], weight)
        for unit, (weight, bias) in zip(layer.home.tolist(), _each(layer.layer), strict=True)
    ]


def _from_inputs(layer: GroupInputLayer, context_UBC: Tensor, candidate_UND: Tensor, owner_N: Tensor) -> list[Tensor]:
    if layer.context is None and layer.candidate is None:
        return [bias.repeat(len(owner_N), 1) for bias in layer.bias.unbind(0)]
    own = None if layer.candidate is None else _from_units(layer.candidate, candidate_UND)
    if layer.context is None:
        assert own is not None
        return own
    spread = [part.index_select(0, owner_N) for part in _from_units(layer.context, context_UBC)]
    return spread if own is None else [a.add_(b) for a, b in zip(spread, own, strict=True)]


def _active(active: nn.Module, expert: int, x_NH: Tensor) -> Tensor:
    """One expert's share of an ActivationBlock."""
    assert isinstance(active, ActivationBlock)
    norm = active.norm
    if norm is not None:
        own = (part[expert, 0] for part in (norm.mean, norm.variance, norm.scale, norm.shift))
        training = norm.training and len(x_NH) > 1
        x_NH = F.batch_norm(x_NH, *own, training=training, momentum=norm.momentum, eps=norm.epsilon)
    x_NH = F.silu(x_NH) if active.activation == "swish" else F.relu(x_NH, inplace=True)
    return x_NH if active.dropout is None else active.dropout(x_NH)
