"""Probabilities from logits along the task graph, and log losses of them.

Computed in log space, so that the gradient of a rare child of a rare parent does not vanish:

    log P(child)       = log P(parent) + log sigmoid(z)
    log (1 - P(child)) = log( (1 - P(parent)) + P(parent) (1 - sigmoid(z)) )

Negative downsampling: where training has only a share r of the candidates without the event (tasks.negatives), losses
compare labels with P', the probability among sampled candidates; logits, and what is served, are of all candidates:

    P' = P / (P + r (1 - P))          logit P' = logit P - log r

King and Zeng, Logistic Regression in Rare Events Data, Political Analysis 2001, section 4.1 (prior correction).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from rec import world
from rec.losses.reduction import mean, wholes
from rec.spec import Task
from rec.spec.tasks import conditional, given, happened, loss_rows, sample_weights


def chain(logits: Mapping[str, Tensor], parents: Mapping[str, str | None]) -> dict[str, tuple[Tensor, Tensor]]:
    """`{task: (log P [N], log(1 - P) [N])}`, unconditional; `parents` lists parents before children."""
    out: dict[str, tuple[Tensor, Tensor]] = {}
    for name, parent in parents.items():
        yes, no = F.logsigmoid(logits[name]), F.logsigmoid(-logits[name])
        if parent is not None:
            parent_yes, parent_no = out[parent]
            yes, no = parent_yes + yes, torch.logaddexp(parent_no, parent_yes + no)
        out[name] = (yes, no)
    return out


def among_seen(yes: Tensor, no: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """(log P', log(1 - P')) [N] from (log P, log(1 - P)), where negatives were sampled at a rate."""
    if share == 1.0:
        return yes, no
    no = no + math.log(share)
    both = torch.logaddexp(yes, no)
    return yes - both, no - both


def logit_among_seen(logit_N: Tensor, share: float) -> Tensor:
    """The same of logits: logit P' [N]."""
    return logit_N if share == 1.0 else logit_N - math.log(share)


def probabilities(logits: Mapping[str, Tensor], parents: Mapping[str, str | None]) -> dict[str, Tensor]:
    """The served outputs: P(task) for every task and P(task | parent) for every child, [N] each.

    `P(child) = P(parent) * P(child | parent)` holds exactly, in floating point too.
    """
    out: dict[str, Tensor] = {}
    for name, parent in parents.items():
        if parent is None:
            out[name] = logits[name].sigmoid()
        else:
            given_parent = logits[name].sigmoid()
            out[name] = out[parent] * given_parent
            out[conditional(name, parent)] = given_parent
    return out


def task_losses(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], tasks: Mapping[str, Task]
) -> dict[str, Tensor]:
    """Mean log loss of each task over its training candidates; 0 if there are none.

    Entire-space tasks are learnt on P(task) over all observed candidates (ESMM), parent-space tasks on P(task | parent)
    where the parent happened. A task with sample weights has the weighted mean.
    """
    parents = given(tasks)
    log_p = chain(logits, parents)
    rows = {name: loss_rows(name, tasks[name], labels) for name in parents}
    samples = {name: sample_weights(name, labels) for name in parents}
    counted = [rows[name].float() if samples[name] is None else rows[name] * samples[name] for name in parents]
    whole = dict(zip(parents, wholes(counted), strict=True))
    losses = {}
    for name in parents:
        yes, no = log_p[name]
        if tasks[name].space == "parent":
            yes, no = F.logsigmoid(logits[name]), F.logsigmoid(-logits[name])
        yes, no = among_seen(yes, no, tasks[name].negatives)
        loss_N = -torch.where(happened(labels[name]), yes, no)
        losses[name] = mean(rows[name], loss_N, sample_N=samples[name], whole=whole[name])
    return losses


def total(
    losses: Mapping[str, Tensor], tasks: Mapping[str, Task], shares: Mapping[str, Tensor] | None = None
) -> Tensor:
    """The weighted sum of the task losses, plus an objective's own terms, which are weighted already.

    With `shares` every loss of a task, `name` and `name (kind)`, is multiplied by the task's.
    """
    weight = {name: task.weight for name, task in tasks.items()}
    terms = [(name, weight.get(name, 1.0) * loss) for name, loss in losses.items()]
    if shares is not None:
        terms = [(name, shares.get(name.split(" (")[0], 1.0) * term) for name, term in terms]
    return torch.stack([term for _, term in terms]).sum()


def shares_by_count(tasks: Mapping[str, Task], labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The share of the batch's candidates that each task's loss is over: `train.task_weighting = "count"`.

        equal   sum over tasks of  weight * 1 / n * sum of losses       n: candidates of the task's loss
        count   sum over tasks of  weight * 1 / N * sum of losses       N: candidates of the batch

    Both over the batch of all ranks, which call together. A candidate whose sample weight is 0 is not counted.
    """
    counts = []
    for name, task in tasks.items():
        rows, weight = loss_rows(name, task, labels), sample_weights(name, labels)
        counts.append((rows if weight is None else rows & (weight > 0)).sum())
    size = torch.tensor(len(next(iter(labels.values()))), device=counts[0].device)
    *count, whole = world.total(torch.stack([*counts, size]).float()).unbind()
    return {name: n / whole.clamp(min=1) for name, n in zip(tasks, count, strict=True)}
