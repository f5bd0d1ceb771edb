"""Inverse propensity weighting: losses over candidates whose parent happened, unbiased for all candidates.

    w = o / max(sg(P(parent)), 1 / clip)          o: the parent happened        sg: no gradient
    self-normalised mean of v = sum(w v) / sum(w)

P(parent) is the model's own prediction, unconditional along the chain. No gradient flows through the weights: the loss
could otherwise be lowered by shifting propensities. Self-normalisation, dividing by the sum of the weights and not by
the number of candidates, bounds the influence of any single weight; with equal weights it is the plain mean.
Schnabel et al., Recommendations as Treatments, ICML 2016, section 4; Swaminathan and Joachims, The Self-Normalized
Estimator for Counterfactual Learning, NeurIPS 2015.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from rec.losses.reduction import mean
from rec.spec import Task
from rec.spec.tasks import happened


def weights(log_p_N: Tensor, rows_N: Tensor, clip: float) -> Tensor:
    """`min(1 / p, clip)` where `rows_N`, 0 elsewhere [N], from log p and without its gradient.

    >>> weights(torch.tensor([0.5, 0.01, 0.5]).log(), torch.tensor([True, True, False]), 15.0)
    tensor([ 2.0000, 15.0000,  0.0000])
    """
    return torch.where(rows_N, (-log_p_N.detach()).clamp(max=math.log(clip)).exp(), 0.0)


def doubly_robust(error_N: Tensor, imputed_N: Tensor, weight_N: Tensor, rows_N: Tensor) -> Tensor:
    """Doubly robust estimate of the mean error over `rows_N`; errors are observed where the weight is not 0.

    mean(imputed) + sum(w (error - imputed)) / sum(w).
    """
    everywhere = mean(rows_N.to(imputed_N.dtype), imputed_N)
    return everywhere + mean(weight_N, error_N - imputed_N)


def log_loss(logit_N: Tensor, label_N: Tensor) -> Tensor:
    """The log loss of every candidate [N]; an unobserved label counts as 0."""
    return F.binary_cross_entropy_with_logits(logit_N, happened(label_N).to(logit_N.dtype), reduction="none")


def together(
    entire: Mapping[str, Tensor],
    conditional: Mapping[str, Tensor],
    tasks: Mapping[str, Task],
    *,
    kind: str,
    shares: tuple[float, float],
) -> dict[str, Tensor]:
    """`share_entire * entire + share_conditional * conditional` for every child, as terms of `losses.total`.

    A child has its entire-space loss under its own name and the conditional one as `name (kind)`, with the task's
    weight. A child with `space = "parent"` has no entire-space loss, and the conditional one takes its name.
    """
    out: dict[str, Tensor] = {}
    for name, task in tasks.items():
        if name not in conditional:
            out[name] = entire[name]
        elif task.space == "parent":
            out[name] = shares[1] * conditional[name]
        else:
            out[name] = shares[0] * entire[name]
            out[f"{name} ({kind})"] = task.weight * shares[1] * conditional[name]
    return out
