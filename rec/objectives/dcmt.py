"""Factual and counterfactual towers: conversion of clicked, and non-conversion of unclicked candidates (DCMT).

    w = o min(1 / sg(P), clip / mean P)             w' = (1 - o) min(1 / sg(1 - P), clip / mean (1 - P))
    P = P(parent), o: it happened
    L_fact  = sum(w l(r, label)) / sum(w)           L_counter = sum(w' l(rc, 1 - label)) / sum(w')
    L = sum of root losses + sum over children of
        lambda_global L_entire + lambda_conditional (L_fact + L_counter + lambda_constraint mean |1 - (r + rc)|)

r is P(child | parent), which is served; rc, from a second tower, is the counterfactual probability that the child would
not happen, trained where the parent did not. The constraint r + rc = 1 trains r on unclicked candidates.
Zhu et al., DCMT: A Direct Entire-Space Causal Multi-Task Framework, ICDE 2023, section III.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from rec.losses import propensity
from rec.losses.list_losses import ObjectiveConfig
from rec.losses.reduction import mean
from rec.losses.task_losses import chain, logit_among_seen, task_losses
from rec.modules.heads import ChildTowers, Heads
from rec.spec import Task
from rec.spec.tasks import given, happened, observed, sample_weights


class Config(ObjectiveConfig):
    """Weights of the losses of a child."""

    lambda_global: Annotated[float, Field(ge=0)] = Field(default=1.0, description="of a child's entire-space loss")
    lambda_conditional: Annotated[float, Field(ge=0)] = Field(
        default=0.5, description="of its factual and counterfactual losses"
    )
    lambda_constraint: Annotated[float, Field(ge=0)] = Field(
        default=0.1, description="of |1 - (factual + counterfactual)| beside those"
    )
    clip: Annotated[float, Field(ge=1)] = Field(
        default=15.0, description="the largest inverse-propensity weight, as a multiple of the mean weight"
    )


class Objective(nn.Module):
    """Representations [T, N, H] -> {task: logit [N]}; a tower more per child, for its counterfactual."""

    sample_weights = True  # its losses read them

    def __init__(self, config: Config, *, heads: Heads, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.heads, self.tasks, self.config = heads, dict(tasks), config
        self.twins = ChildTowers(heads, tasks)
        self.weights: dict[str, Tensor] = {}  # of the last batch, by child: propensity.effective_size

    def forward(self, hidden_TNH: Tensor) -> dict[str, Tensor]:
        """Logits by task, of the conditional probability where a task has a parent."""
        return self.heads(hidden_TNH)

    def counterfactual(self, hidden_TNH: Tensor) -> dict[str, Tensor]:
        """The logit of every child's counterfactual probability [N]; it starts where the two sum to 1."""
        prior_K1 = self.heads.prior[self.twins.places].unsqueeze(1)
        return dict(zip(self.twins.names, self.twins(hidden_TNH) - prior_K1, strict=True))

    def losses(self, hidden_TNH: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of every task, and `child (dcmt)` for every child."""
        logits, parents = self.heads(hidden_TNH), given(self.tasks)
        log_p = chain(logits, parents)
        conditional = {}
        for name, counter_N in self.counterfactual(hidden_TNH).items():
            parent = parents[name]
            assert parent is not None
            towers, share = (logits[name], counter_N), self.tasks[name].negatives
            rows_N = observed(labels[parent]) & observed(labels[name])
            sample_N, o_N, clip = sample_weights(name, labels), happened(labels[parent]), self.config.clip
            clicked_N = propensity.weights(log_p[parent][0], rows_N & o_N, clip, sample_N=sample_N)
            unclicked_N = propensity.weights(log_p[parent][1], rows_N & ~o_N, clip, sample_N=sample_N)
            self.weights[name] = propensity.effective_size(clicked_N)
            weights = clicked_N, unclicked_N
            conditional[name] = self._conditional(weights, towers, labels[name], share=share, sample_N=sample_N)
        entire = task_losses(logits, labels, self.tasks)
        shares = (self.config.lambda_global, self.config.lambda_conditional)
        return propensity.together(entire, conditional, self.tasks, kind="dcmt", shares=shares)

    def _conditional(
        self,
        weights: tuple[Tensor, Tensor],
        logits: tuple[Tensor, Tensor],
        label_N: Tensor,
        *,
        share: float,
        sample_N: Tensor | None,
    ) -> Tensor:
        """A child's losses besides the entire-space one; (clicked, unclicked) weights, (factual, counter) logits.

        Where the parent did not happen the child never does, so that leaving such candidates out changes nothing.
        """
        (clicked, unclicked), (factual_N, counter_N) = weights, logits
        # sigmoid(z) - sigmoid(-zc) is r + rc - 1 without the rounding that would swallow a rare r
        gap_N = (factual_N.sigmoid() - (-counter_N).sigmoid()).abs()
        return (
            propensity.mean_by(clicked, propensity.log_loss(logit_among_seen(factual_N, share), label_N), sample_N)
            + propensity.mean_by(unclicked, propensity.log_loss(counter_N, 1 - label_N), sample_N)
            + self.config.lambda_constraint * mean(torch.ones_like(gap_N), gap_N, sample_N=sample_N)
        )
