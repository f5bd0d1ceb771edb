"""ESMM and a conditional loss where the parent happened, each candidate weighted by 1 / P(parent) (ESCM2-IPS).

    w = o min(1 / sg(P(parent)), clip / mean P)          o: the parent happened
    L = sum of root losses + sum over children of lambda_global L_entire + lambda_conditional sum(w l) / sum(w)

l is the log loss of P(child | parent). Inverse propensity weights correct the selection bias of clicked candidates, so
that the conditional probability is trained for all candidates.
Wang et al., ESCM2: Entire Space Counterfactual Multi-Task Model, SIGIR 2022, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from rec.losses import propensity
from rec.losses.list_losses import ObjectiveConfig
from rec.losses.task_losses import chain, logit_among_seen, task_losses
from rec.modules.heads import Heads
from rec.spec import Task
from rec.spec.tasks import given, happened, observed, sample_weights


class Config(ObjectiveConfig):
    """Weights of the losses of a child."""

    lambda_global: Annotated[float, Field(ge=0)] = Field(default=1.0, description="of a child's entire-space loss")
    lambda_conditional: Annotated[float, Field(ge=0)] = Field(
        default=0.5, description="of its weighted loss where the parent happened"
    )
    clip: Annotated[float, Field(ge=1)] = Field(
        default=15.0, description="the largest inverse-propensity weight, as a multiple of the mean weight"
    )


class Objective(nn.Module):
    """Representations [T, N, H] -> {task: logit [N]}."""

    sample_weights = True  # its losses read them

    def __init__(self, config: Config, *, heads: Heads, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.heads, self.tasks, self.config = heads, dict(tasks), config
        self.weights: dict[str, Tensor] = {}  # of the last batch, by child: propensity.effective_size

    def forward(self, hidden_TNH: Tensor) -> dict[str, Tensor]:
        """Logits by task, of the conditional probability where a task has a parent."""
        return self.heads(hidden_TNH)

    def losses(self, hidden_TNH: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of every task, and `child (ips)` for every child."""
        logits, parents = self.heads(hidden_TNH), given(self.tasks)
        log_p = chain(logits, parents)
        conditional = {}
        for name, parent in parents.items():
            if parent is not None:
                seen_N = happened(labels[parent]) & observed(labels[name])
                sample_N = sample_weights(name, labels)
                weight_N = propensity.weights(log_p[parent][0], seen_N, self.config.clip, sample_N=sample_N)
                self.weights[name] = propensity.effective_size(weight_N)
                seen_logit_N = logit_among_seen(logits[name], self.tasks[name].negatives)
                error_N = propensity.log_loss(seen_logit_N, labels[name])
                conditional[name] = propensity.mean_by(weight_N, error_N, sample_N)
        entire = task_losses(logits, labels, self.tasks)
        shares = (self.config.lambda_global, self.config.lambda_conditional)
        return propensity.together(entire, conditional, self.tasks, kind="ips", shares=shares)
