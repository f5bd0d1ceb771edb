"""The mean over a batch, also where several processes hold a part of it each.

    mean of v with weights w = sum over ranks of sum(w v) / sum over ranks of sum(w)

A process gives world size times its own part of the numerator over the whole denominator: gradients are averaged over
ranks, so together they are the gradient of the mean over the whole batch, however unevenly it is divided.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rec import world


def wholes(weights: Sequence[Tensor]) -> list[Tensor]:
    """The sum of each of several weights [N] over the batch of all ranks, in one message."""
    sums = [weight_N.sum() for weight_N in weights]
    return sums if world.size() == 1 or not sums else list(world.total(torch.stack(sums)).unbind())


def mean(weight_N: Tensor, value_N: Tensor, *, sample_N: Tensor | None = None, whole: Tensor | None = None) -> Tensor:
    """`sum(w v) / sum(w)` over the batch of all ranks, and 0 where nothing has a weight.

    Weights are 0, or at least 1, or True and False, and have no gradient. A value whose weight is 0 may be infinite.
    With sample weights (0 or more) w is `weight * sample`: a candidate of weight 2 counts as two of weight 1.
    `whole` is sum(w) over all ranks, where it is known.
    """
    if sample_N is not None:
        return _sampled(weight_N * sample_N, value_N, whole)
    denominator = (world.total(weight_N.sum()) if whole is None else whole).clamp(min=1)
    weighted_N = weight_N * value_N if weight_N.is_floating_point() else value_N.where(weight_N, 0.0)
    numerator = weighted_N.sum()
    return numerator / denominator if world.size() == 1 else numerator * world.size() / denominator


def _sampled(weight_N: Tensor, value_N: Tensor, whole: Tensor | None) -> Tensor:
    total = world.total(weight_N.sum()) if whole is None else whole
    numerator = (weight_N * value_N.where(weight_N > 0, 0.0)).sum()
    return numerator * world.size() / torch.where(total > 0, total, 1.0)
