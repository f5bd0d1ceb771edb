"""Faults planted on purpose: each is caught by the law that names it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.laws import laws
from rec import ranker
from rec.losses.task_losses import probabilities
from rec.spec import parse
from tests import strategies

CPU = torch.device("cpu")
SPEC = parse("""
name = "x"
[context]
user = { kind = "id" }
[candidates]
item = { kind = "id" }
[tasks.click]
label = "c"
[tasks.buy]
label = "b"
given = "click"
""")
ROWS = [
    {
        "request_id": "r",
        "time": 0,
        "context": {"user": user},
        "candidates": [{"item": item, "click": 1, "buy": item % 2} for item in range(1, 5)],
    }
    for user in (1, 2, 3)
]


def planted(wrap):
    """A sound ranker whose expert model is wrapped in a fault, and a batch."""
    model = ranker.create(SPEC, strategies.preprocessor(SPEC), seed=1, device=CPU)
    model.model = wrap(model.model)
    return model.eval(), strategies.batch(SPEC, ROWS)


class Leaky(nn.Module):
    """Subtracts the mean over the whole batch, as a forgotten batch statistic would."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, context, candidate, owner):
        hidden_TNH = self.inner(context, candidate, owner)
        return hidden_TNH - hidden_TNH.mean(1, keepdim=True)


class Positional(Leaky):
    """Adds a candidate's place in the batch."""

    def forward(self, context, candidate, owner):
        return self.inner(context, candidate, owner) + torch.arange(len(owner))[:, None]


class DeadHead(Leaky):
    """A tower that is built but never used."""

    def __init__(self, inner):
        super().__init__(inner)
        self.unused = nn.Linear(3, 1)

    def forward(self, context, candidate, owner):
        return self.inner(context, candidate, owner)


class Cut(Leaky):
    """A representation detached by mistake."""

    def forward(self, context, candidate, owner):
        return self.inner(context.detach(), candidate.detach(), owner)


def test_a_leak_across_requests_is_caught():
    """A score that depends on its neighbours in the batch."""
    with pytest.raises(AssertionError):
        laws.a_request_scores_the_same_alone(*planted(Leaky))


def test_a_dependence_on_candidate_order_is_caught():
    """A score that depends on its place."""
    with pytest.raises(AssertionError):
        laws.candidate_order_does_not_matter(*planted(Positional))


def test_a_dead_head_is_caught():
    """A weight that no gradient reaches."""
    model, batch = planted(DeadHead)
    with pytest.raises(AssertionError, match=r"got none for model\.unused\.weight"):
        laws.every_weight_learns(model, SPEC, batch)


def test_a_table_that_does_not_learn_is_caught():
    """A gradient cut between the tables and the model."""
    model, batch = planted(Cut)
    with pytest.raises((AssertionError, RuntimeError)):
        laws.every_weight_learns(model, SPEC, batch)


def test_a_forgotten_parent_is_caught():
    """Probabilities made as if the child had no parent."""
    model, batch = planted(lambda inner: inner)
    z = {name: torch.from_numpy(value) for name, value in laws.logits(model, batch).items()}
    z["buy"] = z["click"] + 1
    actual = {name: p.numpy() for name, p in probabilities(z, {"click": None, "buy": None}).items()}
    with pytest.raises(AssertionError, match=r"expected P\(buy\) <= P\(click\)"):
        laws.a_child_is_never_likelier_than_its_parent(actual, laws.parents_of(SPEC))


def test_a_missing_task_is_caught():
    """A model that forgets one of its tasks."""

    class Forgetful(Leaky):
        def forward(self, hidden):
            return {"click": self.inner(hidden)["click"]}

    model, batch = planted(lambda inner: inner)
    model.objective = Forgetful(model.objective)
    with pytest.raises(AssertionError):
        laws.one_finite_logit_per_candidate_and_task(model, SPEC, batch)


def test_a_sound_model_passes_every_law():
    """The laws do not cry wolf."""
    model, batch = planted(lambda inner: inner)
    laws.a_request_scores_the_same_alone(model, batch)
    laws.candidate_order_does_not_matter(model, batch)
    laws.every_weight_learns(model, SPEC, batch)
    assert np.isfinite(laws.logits(model, batch)["buy"]).all()
