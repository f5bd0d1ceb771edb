"""What is inside the bricks, as numpy arrays by name: what the slow twins take."""

from __future__ import annotations

import numpy as np
import torch

from rec.modules.linear import BatchedLinear, GroupInputLayer, GroupLayer, SharedInputLayer
from tests.rec.models import by_hand


def array(tensor):
    """A tensor as numpy."""
    return tensor.detach().numpy()


def group_layer(first, groups):
    """A GroupLayer over so many groups as [(group, weight [in, out], bias [out])], group by group."""
    home = first.home.tolist()
    assert sorted(home) == home
    assert set(home) <= set(range(groups))
    return list(zip(home, *by_hand.stacked(first.layer), strict=True))


def firsts(first, groups):
    """The first layer of every expert as (weight [in, out], bias [out])."""
    if isinstance(first, SharedInputLayer):
        weight, bias = by_hand.pair(first.linear)
        pairs = zip(np.split(weight, first.count), np.split(bias, first.count), strict=True)
        return [(w.T, b) for w, b in pairs]
    if isinstance(first, GroupLayer):
        return [(w, b) for _, w, b in group_layer(first, groups)]
    if isinstance(first, BatchedLinear):
        return list(zip(*by_hand.stacked(first), strict=True))
    assert isinstance(first, GroupInputLayer)
    sides = [group_layer(side, groups) for side in (first.context, first.candidate) if side is not None]
    return [(np.concatenate([w for _, w, _ in e]), sum(b for _, _, b in e)) for e in zip(*sides, strict=True)]


def layers(experts, *, groups, first=None):
    """An Experts as one list per expert of (weight [in, out], bias [out], norm or None)."""
    out = [[first_layer] for first_layer in firsts(first or experts.first, groups)]
    for layer in experts.rest:
        for expert, w, b in zip(out, *by_hand.stacked(layer), strict=True):
            expert.append((w, b))
    norms = [active.norm for active in experts.active]
    return [
        [(w, b, norm and _norm(norm, e)) for (w, b), norm in zip(expert, norms, strict=True)]
        for e, expert in enumerate(out)
    ]


def _norm(norm, e):
    return tuple(array(part[e, 0]) for part in (norm.mean, norm.variance, norm.scale, norm.shift))


def plain(expert):
    """An expert without normalisation as (weight, bias) per layer."""
    return [(w, b) for w, b, _ in expert]


def by_formula(model):
    """Every weight and running statistic set by a formula, so that a golden value needs no random generator."""
    with torch.no_grad():
        for index, p in enumerate(model.parameters()):
            steps = torch.arange(p.numel(), dtype=torch.float64)
            p.copy_((0.7 * torch.sin(1.3 * steps + index)).to(p.dtype).view_as(p))
        for name, buffer in model.named_buffers():
            steps = torch.arange(buffer.numel(), dtype=torch.float64).view_as(buffer)
            if name.endswith("norm.mean"):
                buffer.copy_(0.2 * torch.cos(steps))
            if name.endswith("norm.variance"):
                buffer.copy_(1 + 0.5 * torch.sin(steps) ** 2)
    return model.eval()


def inputs_by_formula(*, context=3, candidate=2, owner=(0, 1, 1), copies=None):
    """(context [B, C], candidate [N, D], owner [N]) by a formula; a leading axis where there are copies."""
    lead = () if copies is None else (copies,)
    sides = []
    for rows, width in ((max(owner) + 1, context), (len(owner), candidate)):
        count = int(np.prod([*lead, rows, width]))
        sides.append(torch.cos(0.9 * torch.arange(count, dtype=torch.float64) + width).float().view(*lead, rows, width))
    return *sides, torch.tensor(owner)
