"""ESMM and a doubly robust conditional loss: errors imputed for all candidates, corrected where the parent happened.

    e = log loss of P(child | parent)              e_hat = softplus(imputation tower)
    w = o min(1 / sg(P), clip / mean P)            P = P(parent), o: it happened
    L_err = mean(e_hat) + sum(w (e - e_hat)) / sum(w)        L_imp = sum(w (sg(e) - e_hat)^2) / sum(w)
    L = sum of root losses + sum over children of lambda_global L_entire + lambda_conditional (L_err + L_imp)

Unbiased if either the propensities or the imputed errors are correct. With `joint`, the gradient of L_imp also flows
through e, as in published code; that pulls every conditional probability towards 1/2 (docs/models/escm2_dr.md).
Wang et al., ESCM2: Entire Space Counterfactual Multi-Task Model, SIGIR 2022, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from rec.losses import propensity
from rec.losses.list_losses import ObjectiveConfig
from rec.losses.task_losses import chain, logit_among_seen, task_losses
from rec.modules.heads import ChildTowers, Heads
from rec.spec import Task
from rec.spec.tasks import given, happened, observed, sample_weights


class Config(ObjectiveConfig):
    """Weights of the losses of a child."""

    lambda_global: Annotated[float, Field(ge=0)] = Field(default=1.0, description="of a child's entire-space loss")
    lambda_conditional: Annotated[float, Field(ge=0)] = Field(
        default=0.5, description="of its doubly robust loss and of that of its imputed errors"
    )
    clip: Annotated[float, Field(ge=1)] = Field(
        default=15.0, description="the largest inverse-propensity weight, as a multiple of the mean weight"
    )
    joint: bool = Field(
        default=False, description="the loss of imputed errors also teaches the tower whose errors they are"
    )


class Objective(nn.Module):
    """Representations [T, N, H] -> {task: logit [N]}; a tower more per child, for its imputed errors."""

    sample_weights = True  # its losses read them

    def __init__(self, config: Config, *, heads: Heads, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.heads, self.tasks, self.config = heads, dict(tasks), config
        self.imputation = ChildTowers(heads, tasks)
        self.weights: dict[str, Tensor] = {}  # of the last batch, by child: propensity.effective_size

    def forward(self, hidden_TNH: Tensor) -> dict[str, Tensor]:
        """Logits by task, of the conditional probability where a task has a parent."""
        return self.heads(hidden_TNH)

    def imputed(self, hidden_TNH: Tensor) -> dict[str, Tensor]:
        """The imputed log loss of every child's conditional probability [N], 0 or more."""
        return dict(zip(self.imputation.names, F.softplus(self.imputation(hidden_TNH)), strict=True))

    def losses(self, hidden_TNH: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of every task, and `child (dr)` for every child."""
        logits, parents = self.heads(hidden_TNH), given(self.tasks)
        log_p = chain(logits, parents)
        conditional = {}
        for name, imputed_N in self.imputed(hidden_TNH).items():
            parent = parents[name]
            assert parent is not None
            rows_N = observed(labels[parent]) & observed(labels[name])
            sample_N, clicked_N = sample_weights(name, labels), rows_N & happened(labels[parent])
            weight_N = propensity.weights(log_p[parent][0], clicked_N, self.config.clip, sample_N=sample_N)
            self.weights[name] = propensity.effective_size(weight_N)
            seen_logit_N = logit_among_seen(logits[name], self.tasks[name].negatives)
            error_N = propensity.log_loss(seen_logit_N, labels[name])
            known_N = error_N if self.config.joint else error_N.detach()
            wrong = propensity.mean_by(weight_N, (known_N - imputed_N).square(), sample_N)
            all_N = rows_N * propensity.stand_for(
                self.tasks[parent], self.tasks[name], labels[parent], F.logsigmoid(logits[name])
            )
            robust = propensity.doubly_robust(error_N, imputed_N, weight_N, all_N, sample_N=sample_N)
            conditional[name] = robust + wrong
        entire = task_losses(logits, labels, self.tasks)
        shares = (self.config.lambda_global, self.config.lambda_conditional)
        return propensity.together(entire, conditional, self.tasks, kind="dr", shares=shares)
