"""Inverse propensity weighting: losses over candidates whose parent happened, unbiased for all candidates.

    w = o min(1 / sg(P(parent)), clip / mean P)          o: the parent happened        sg: no gradient
    self-normalised mean of v = sum(w v) / sum(w)

1 / mean P, over the candidates of the batch, is what such a weight is on average where the parent happened: the clip
counts in mean weights, so that it means the same whether one candidate in three is clicked or one in a hundred.

P(parent) is the model's own prediction, unconditional along the chain. No gradient flows through the weights: the loss
could otherwise be lowered by shifting propensities. Self-normalisation, dividing by the sum of the weights and not by
the number of candidates, bounds the influence of any single weight; with equal weights it is the plain mean.
Schnabel et al., Recommendations as Treatments, ICML 2016, section 4; Swaminathan and Joachims, The Self-Normalized
Estimator for Counterfactual Learning, NeurIPS 2015.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from rec import world
from rec.losses.reduction import mean
from rec.spec import Task
from rec.spec.tasks import happened

_LARGEST = 40.0  # of -log p: e^40, and its square, are finite in fp32
_FEWEST = 1e-20  # of a sum of probabilities


def weights(log_p_N: Tensor, rows_N: Tensor, clip: float, *, sample_N: Tensor | None = None) -> Tensor:
    """`min(1 / p, clip / mean p)` where `rows_N`, 0 elsewhere [N], from log p and without its gradient.

    The mean is over all candidates, of all ranks, which call together. With sample weights that mean is weighted, and
    the result is multiplied by them.

    >>> weights(torch.tensor([0.5, 0.01, 0.24]).log(), torch.tensor([True, True, False]), 15.0)
    tensor([ 2., 60.,  0.])
    """
    log_p_N = log_p_N.detach()
    if sample_N is not None:
        p_sum, count = world.total(torch.stack([(sample_N * log_p_N.exp()).sum(), sample_N.sum()]))
        largest = clip / (p_sum / torch.where(count > 0, count, 1.0)).clamp(min=_FEWEST)
        weight_N = torch.minimum((-log_p_N).clamp(max=_LARGEST).exp(), largest)
        return torch.where(rows_N, weight_N * sample_N, 0.0)
    p_sum, count = world.total(torch.stack([log_p_N.exp().sum(), log_p_N.new_tensor(float(len(log_p_N)))]))
    largest = clip * count.clamp(min=1) / p_sum.clamp(min=_FEWEST)
    return torch.where(rows_N, torch.minimum((-log_p_N).clamp(max=_LARGEST).exp(), largest), 0.0)


def effective_size(weight_N: Tensor) -> Tensor:
    """(sum w, sum w^2) of weights [2]: the square of the one over the other is the effective sample size.

    So many candidates of equal weight would give a mean as good as the weighted one: Kish, Survey Sampling, 1965.
    """
    return torch.stack([weight_N.sum(), weight_N.square().sum()])


def mean_by(weight_N: Tensor, value_N: Tensor, sample_N: Tensor | None) -> Tensor:
    """The mean by `weights` of the same sample weights, which are in them already and may be below 1."""
    if sample_N is None:
        return mean(weight_N, value_N)
    return mean(torch.ones_like(weight_N), value_N, sample_N=weight_N)


def doubly_robust(
    error_N: Tensor, imputed_N: Tensor, weight_N: Tensor, rows_N: Tensor, *, sample_N: Tensor | None = None
) -> Tensor:
    """Doubly robust estimate of a mean error; errors are observed where the weight is not 0.

    mean(imputed) + sum(w (error - imputed)) / sum(w). `rows_N` are the candidates of the first mean, True and False or
    how many candidates each stands for. Sample weights are in `weight_N` already.
    """
    everywhere = mean(rows_N.to(imputed_N.dtype), imputed_N, sample_N=sample_N)
    return everywhere + mean_by(weight_N, error_N - imputed_N, sample_N)


def stand_for(parent: Task, child: Task, parent_N: Tensor, log_p_N: Tensor) -> Tensor:
    """How many candidates each one stands for [N], 1 or more, where negatives of parent or child were left out.

    An observed candidate whose parent did not happen is one of `1 / (r r')`, by the shares r and r' of negatives that
    are learnt from. Errors are those of the child among seen candidates, and of those candidates a share
    `p + r' (1 - p)` would have been seen had their parent happened; `log_p_N` is log P(child | parent).
    """
    if parent.negatives == child.negatives == 1.0:
        return torch.ones_like(log_p_N)
    p_N = log_p_N.detach().exp()
    seen_N = p_N + child.negatives * (1 - p_N)
    return torch.where(happened(parent_N), 1.0, seen_N / (parent.negatives * child.negatives))


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
