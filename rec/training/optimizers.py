"""One step of everything but the forward pass: gradients over ranks, their norm, rates over time, averages of weights.

Embedding tables step inside the backward pass, by the rate that is set before it; the dense weights by AdamW after it.
Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rec import world
from rec.spec import Train

# biases; scales and shifts of normalisations; values of missing numbers; cuts of ordinal regressions
_SPARED = ("bias", "scale", "shift", "missing", "first", "gaps")


def dense(weights: Mapping[str, nn.Parameter], train: Train) -> torch.optim.Optimizer:
    """AdamW over the weights outside the tables, by name; those that multiply nothing do not decay towards 0."""
    spared = {name for name in weights if name.rsplit(".", 1)[-1] in _SPARED}
    decaying = [weight for name, weight in weights.items() if name not in spared]
    if not train.weight_decay:
        return torch.optim.AdamW(weights.values(), lr=train.lr, weight_decay=0.0)
    groups = [
        {"params": decaying},
        {"params": [weights[name] for name in weights if name in spared], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.lr, weight_decay=train.weight_decay)


def rate(train: Train, step: int, steps: int) -> float:
    """What lr and table_lr are multiplied by in a step, counted from 0, of `steps` in all epochs.

    >>> [round(rate(Train(warmup=2, decay="linear"), step, 6), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < train.warmup:
        return (step + 1) / train.warmup
    done = min(1.0, (step - train.warmup) / max(1, steps - train.warmup))
    if train.decay == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0 - done if train.decay == "linear" else 1.0


def averaged(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over ranks, all of them in one message; nothing in one process."""
    if world.size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(joined)
    joined /= world.size()
    for gradient, mean in zip(gradients, joined.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def clipped(parameters: Iterable[nn.Parameter], train: Train) -> Tensor | None:
    """Scale gradients down to a norm of `train.clip`; their norm before it, where they are clipped."""
    return None if train.clip is None else nn.utils.clip_grad_norm_(parameters, train.clip)


@torch.no_grad()
def average(averages: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter], share: float) -> None:
    """Move exponential moving averages towards the weights: `share` of the old one stays."""
    for name, held in averages.items():
        held.lerp_(weights[name].detach(), 1 - share)
