"""Adaptive information transfer: a child's tower attends to its own and its parent's representation (AITM).

    h_t = tower_t, before its last layer       p = relu(info_t(h*_parent))      U = [p, h_t]
    V, K, Q = W1 U, W2 U, W3 U                 a = softmax over the two of sum(K Q) / sqrt(H)
    h*_t = a_p V_p + a_h V_h                   h*_root = h_root
    P(t) = sigmoid(last_t(h*_t))               unconditional, of every task
    L = sum of log losses of P(t) + calibrator mean max(0, P(child) - P(parent))

The paper has a chain; here information flows from parent to child in any tree, and siblings are independent.
Xi et al., Modeling the Sequential Dependence among Audience Multi-step Conversions, KDD 2021, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from rec.errors import SpecError
from rec.losses import propensity
from rec.losses.list_losses import ObjectiveConfig
from rec.losses.reduction import mean
from rec.losses.task_losses import logit_among_seen
from rec.modules.dropout import Dropout
from rec.modules.heads import Heads
from rec.modules.linear import BatchedLinear
from rec.spec import Task
from rec.spec.tasks import given, observed, sample_weights

# the largest P(child | parent) that is served, so that its logit is finite where the child is likelier than its parent
CAP = math.log1p(-1e-4)


class Config(ObjectiveConfig):
    """Weight of the behavioural expectation calibrator, which keeps a child below its parent."""

    calibrator: Annotated[float, Field(ge=0)] = Field(
        default=0.6, description="weight of the penalty on P(child) above P(parent)"
    )


class Transfer(nn.Module):
    """K children and their parents: two vectors each [K, N, H] -> one [K, N, H]."""

    def __init__(self, count: int, width: int, dropout: float) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.info = BatchedLinear(count, width, width)
        self.project = nn.Parameter(torch.empty(count, 1, width, 3 * width).uniform_(-bound, bound))
        self.dropout = Dropout(dropout)

    def forward(self, parent_KNH: Tensor, child_KNH: Tensor) -> Tensor:
        """[K, N, H]."""
        info_KNH = self.dropout(F.relu(self.info(parent_KNH)))
        both_K2NH = torch.stack([info_KNH, child_KNH], 1)
        value_K2NH, key_K2NH, query_K2NH = torch.matmul(both_K2NH, self.project).chunk(3, -1)
        share_K2N = ((key_K2NH * query_K2NH).sum(-1) / math.sqrt(child_KNH.shape[-1])).softmax(1)
        return (share_K2N.unsqueeze(-1) * value_K2NH).sum(1)


class Objective(nn.Module):
    """Representations [T, N, H] -> {task: logit [N]}."""

    sample_weights = True  # its losses read them
    prior: Tensor

    def __init__(self, config: Config, *, heads: Heads, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        for name, task in tasks.items():
            if task.space == "parent":
                raise SpecError(
                    f"tasks.{name}.space: 'parent' does not go with objective 'aitm', which learns P({name}) itself, "
                    "over all candidates; leave it out, or take objective 'esmm'"
                )
        self.heads, self.tasks, self.config = heads, dict(tasks), config
        self.parents = given(tasks)
        self.generations = _generations(self.parents)
        width = heads.towers.last.weight.shape[1]
        dropout = heads.dropout
        self.transfers = nn.ModuleList(Transfer(len(pairs), width, dropout) for pairs in self.generations)
        rates = _unconditional(heads.rates, self.parents)
        self.register_buffer("prior", torch.tensor([math.log(p) - math.log1p(-p) for p in rates.values()]))

    def forward(self, hidden_TNH: Tensor) -> dict[str, Tensor]:
        """Logits by task, of the conditional probability where a task has a parent.

        sigmoid(z) = min(P(child) / P(parent), 1 - 1e-4): a child likelier than its parent is served as its parent.
        """
        logits: dict[str, Tensor] = {}
        log_p: dict[str, Tensor] = {}
        for name, logit_N in self.unconditional(hidden_TNH).items():
            parent = self.parents[name]
            logits[name], log_p[name] = logit_N, F.logsigmoid(logit_N)
            if parent is not None:
                # against what is served for the parent, so that a cap on it is not multiplied down the chain
                ratio_N = (log_p[name] - log_p[parent]).clamp(max=CAP)
                logits[name] = ratio_N - torch.log(-torch.expm1(ratio_N))
                log_p[name] = log_p[parent] + ratio_N
        return logits

    def unconditional(self, hidden_TNH: Tensor) -> dict[str, Tensor]:
        """Logits by task, of the unconditional probability, parents first."""
        towers = self.heads.towers
        own_TNH = towers.before_last(hidden_TNH)
        fused = dict(zip(self.heads.rates, own_TNH.unbind(0), strict=True))
        for transfer, pairs in zip(self.transfers, self.generations, strict=True):
            parents = torch.stack([fused[parent] for parent, _ in pairs])
            own = torch.stack([fused[child] for _, child in pairs])
            fused |= dict(zip([child for _, child in pairs], transfer(parents, own).unbind(0), strict=True))
        fused_TNH = torch.stack(list(fused.values())) if self.generations else own_TNH
        logit_TN = towers.last(fused_TNH).squeeze(-1) + self.prior.unsqueeze(1)
        return dict(zip(fused, logit_TN.unbind(0), strict=True))

    def losses(self, hidden_TNH: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of every task over its observed candidates, and `child (calibrator)` for every child."""
        logits = self.unconditional(hidden_TNH)
        out: dict[str, Tensor] = {}
        for name, parent in self.parents.items():
            rows_N = observed(labels[name]).to(logits[name].dtype)
            seen_logit_N = logit_among_seen(logits[name], self.tasks[name].negatives)
            sample_N = sample_weights(name, labels)
            out[name] = mean(rows_N, propensity.log_loss(seen_logit_N, labels[name]), sample_N=sample_N)
            if parent is not None:
                above_N = F.relu(logits[name].sigmoid() - logits[parent].sigmoid())
                above = mean(torch.ones_like(above_N), above_N, sample_N=sample_N)
                out[f"{name} (calibrator)"] = self.tasks[name].weight * self.config.calibrator * above
        return out


def _generations(parents: Mapping[str, str | None]) -> list[list[tuple[str, str]]]:
    """(parent, child) pairs by depth in the task tree: one depth is one batched product."""
    depth: dict[str, int] = {}
    out: list[list[tuple[str, str]]] = []
    for name, parent in parents.items():
        depth[name] = 0 if parent is None else depth[parent] + 1
        if parent is not None:
            if depth[name] > len(out):
                out.append([])
            out[depth[name] - 1].append((parent, name))
    return out


def _unconditional(rates: Mapping[str, float], parents: Mapping[str, str | None]) -> dict[str, float]:
    """The unconditional base rate of every task."""
    out: dict[str, float] = {}
    for name, parent in parents.items():
        out[name] = rates[name] * (1.0 if parent is None else out[parent])
    return out
