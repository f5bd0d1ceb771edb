"""A model on its own, without tables: its inputs, and its weights as numpy arrays for the slow twins."""

from __future__ import annotations

import numpy as np
import torch

from rec import models

TASKS = {"click": None, "buy": "click", "like": None}


def body(name, *, tasks=TASKS, context=3, candidate=2, **settings):
    """A fresh model, its weights drawn from a fixed seed and none of them zero, not training."""
    torch.manual_seed(5)
    created = models.create({"name": name, **settings}, context=context, candidate=candidate, tasks=tasks)
    with torch.no_grad():
        for p in created.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return created.eval()


def inputs(*, context=3, candidate=2, owner=(0, 1, 1, 1)):
    """(context [B, C], candidate [N, D], owner [N]) drawn from a fixed seed."""
    draw = torch.Generator().manual_seed(7)
    requests = max(owner) + 1
    sides = torch.randn(requests, context, generator=draw), torch.randn(len(owner), candidate, generator=draw)
    return *sides, torch.tensor(owner)


def flat(context, candidate, owner):
    """The same inputs as one row per candidate [N, C + D], numpy."""
    return torch.cat([context[owner], candidate], 1).numpy()


def pair(layer):
    """A PairLinear as (weight [out, C + D], bias [out]), numpy."""
    sides = [p for p in (layer.context, layer.candidate) if p is not None]
    return torch.cat(list(sides), 1).detach().numpy(), layer.bias.detach().numpy()


def stacked(layer):
    """A BatchedLinear layer as (weight [E, in, out], bias [E, out]), numpy."""
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()[:, 0]


def perceptrons(experts):
    """An Experts over the raw input as a list of perceptrons, each a list of (weight [in, out], bias [out]), numpy."""
    weight, bias = pair(experts.first.linear)
    count = experts.first.count
    firsts = zip(np.split(weight, count), np.split(bias, count), strict=True)
    out = [[(w.T, b)] for w, b in firsts]
    for layer in experts.rest:
        for expert, w, b in zip(out, *stacked(layer), strict=True):
            expert.append((w, b))
    return out


def gates(gate):
    """Gates over the raw input as a list of (weight [in, E], bias [E]) per row, numpy."""
    weight, bias = pair(gate.linear)
    rows = len(gate.rows)
    return [(w.T, b) for w, b in zip(np.split(weight, rows), np.split(bias, rows), strict=True)]


def close(model, twin, *given):
    """The model's representations [T, N, H] are the twin's."""
    with torch.no_grad():
        np.testing.assert_allclose(model(*given), twin, rtol=1e-4, atol=1e-6)
