"""Losses over the candidates of a request, beside the log loss of each: what is better ranks above what is worse.

    listwise   -log( P_i / sum_j P_j )                  mean over positives i; j: the request's candidates
    pairwise   mean over j of -log sigmoid(z_i - z_j)   mean over positives i; j: the request's negatives

P is the probability that the task's log loss is about, z its logit. Only candidates of that loss take part: unobserved
ones do not, and with `space = "parent"` those whose parent happened. The listwise loss is a softmax of log P, not of z:
it is least where P is proportional to the true probabilities, so it pulls no probability away from where the log loss
wants it. Nor does the pairwise one, which is least where differences of z are the true ones.
Bai et al., Regression Compatible Listwise Objectives for Calibrated Ranking with Binary Relevance, CIKM 2023 (RCR);
Burges et al., Learning to Rank using Gradient Descent, ICML 2005 (RankNet).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from rec.losses.reduction import mean
from rec.losses.task_losses import among_seen, chain
from rec.spec import Strict, Task
from rec.spec.tasks import given, happened, loss_rows, sample_weights

Weight = Annotated[float, Field(ge=0)]


class ObjectiveConfig(Strict):
    """What the built-in objectives have in common: losses over the candidates of a request."""

    listwise: Weight = Field(default=0.0, description="weight of a calibrated softmax over a request's candidates")
    pairwise: Weight = Field(default=0.0, description="weight of pairs of a positive and a negative of a request")


def list_losses(
    logits: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    tasks: Mapping[str, Task],
    *,
    owner_N: Tensor,
    weights: tuple[float, float],
) -> dict[str, Tensor]:
    """`{task (listwise): loss}` and `{task (pairwise): loss}` of classification tasks; `weights` are those of both.

    They have the tasks' weights already, as terms of `task_losses.total`. All ranks call together.
    """
    log_p, out = chain(logits, given(tasks)), {}
    for name, task in tasks.items():
        yes_N, no_N = log_p[name]
        if task.space == "parent":
            yes_N, no_N = F.logsigmoid(logits[name]), F.logsigmoid(-logits[name])
        yes_N, no_N = among_seen(yes_N, no_N, task.negatives)
        rows_N = loss_rows(name, task, labels)
        positive_N, sample_N = rows_N & happened(labels[name]), sample_weights(name, labels)
        if weights[0]:
            of_lists = listwise(yes_N, positive_N, rows_N, owner_N, sample_N=sample_N)
            out[f"{name} (listwise)"] = task.weight * weights[0] * of_lists
        if weights[1]:
            of_pairs = pairwise(yes_N - no_N, positive_N, rows_N, owner_N, sample_N=sample_N)
            out[f"{name} (pairwise)"] = task.weight * weights[1] * of_pairs
    return out


def listwise(
    log_p_N: Tensor, positive_N: Tensor, rows_N: Tensor, owner_N: Tensor, *, sample_N: Tensor | None = None
) -> Tensor:
    """Mean over positives of -log of their share of the request's probabilities; 0 without one.

    A candidate of sample weight 2 is two of them, as a positive and among those that share; the scale of all weights
    adds a constant.
    """
    size = int(owner_N[-1]) + 1 if len(owner_N) else 0
    known_N = log_p_N.masked_fill(~rows_N, -torch.inf)
    if sample_N is not None:
        known_N = known_N.masked_fill(sample_N == 0, -torch.inf) + sample_N.where(sample_N > 0, 1.0).log()
    top_B = known_N.new_full((size,), -torch.inf).scatter_reduce(0, owner_N, known_N.detach(), "amax")
    top_N = top_B.nan_to_num(neginf=0.0).index_select(0, owner_N)
    total_B = known_N.new_zeros(size).index_add(0, owner_N, (known_N - top_N).exp())
    log_total_N = total_B.clamp(min=torch.finfo(total_B.dtype).tiny).log().index_select(0, owner_N) + top_N
    return mean(positive_N, log_total_N - log_p_N, sample_N=sample_N)


def pairwise(
    z_N: Tensor, positive_N: Tensor, rows_N: Tensor, owner_N: Tensor, *, sample_N: Tensor | None = None
) -> Tensor:
    """Mean over positives, of requests with negatives, of the mean loss of their pairs; 0 without one.

    With sample weights both means are weighted.
    """
    negative_N = rows_N & ~positive_N
    if sample_N is not None:
        negative_N = negative_N & (sample_N > 0)
    size = int(owner_N[-1]) + 1 if len(owner_N) else 0
    count_B = torch.bincount(owner_N[negative_N], minlength=size)
    row_M = negative_N.nonzero().squeeze(1)  # in order of requests
    first_B = count_B.cumsum(0) - count_B
    positive_P = (positive_N & (count_B.index_select(0, owner_N) > 0)).nonzero().squeeze(1)
    request_P = owner_N[positive_P]
    many_P = count_B[request_P]
    pair_Q = torch.repeat_interleave(torch.arange(len(positive_P), device=z_N.device), many_P)
    place_Q = torch.arange(len(pair_Q), device=z_N.device) - (many_P.cumsum(0) - many_P)[pair_Q]
    other_Q = row_M[first_B[request_P][pair_Q] + place_Q]
    loss_Q = F.softplus(z_N[other_Q] - z_N[positive_P][pair_Q])
    everyone_P = torch.ones_like(positive_P, dtype=torch.bool)
    if sample_N is None:
        loss_P = z_N.new_zeros(len(positive_P)).index_add(0, pair_Q, loss_Q) / many_P.clamp(min=1)
        return mean(everyone_P, loss_P)
    weight_Q = sample_N[other_Q]
    total_P = z_N.new_zeros(len(positive_P)).index_add(0, pair_Q, weight_Q)
    loss_P = z_N.new_zeros(len(positive_P)).index_add(0, pair_Q, weight_Q * loss_Q) / total_P
    return mean(everyone_P, loss_P, sample_N=sample_N[positive_P])
