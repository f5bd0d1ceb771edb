"""Candidates without the event that training does not see: what is served is right all the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec import objectives
from rec.losses import propensity, task_losses
from rec.losses.reduction import mean
from rec.losses.task_losses import among_seen, logit_among_seen, probabilities
from rec.modules.heads import Heads
from rec.spec import Task
from rec.spec.tasks import given as parents_of
from rec.spec.tasks import observed

SHARE = {"click": 0.1, "buy": 0.25}


def tasks_of(share, **settings):
    """A click and a purchase, of whose negatives such shares are seen."""
    click = Task(label="click", negatives=share["click"])
    return {"click": click, "buy": Task(label="buy", given="click", negatives=share["buy"], **settings)}


@settings(deadline=None)
@given(st.floats(-20, 20), st.sampled_from([1.0, 0.5, 0.01]))
def test_the_probability_among_those_seen_is_bayes_rule(logit, share):
    """From log-probabilities and from logits, against the definition."""
    z = torch.tensor([logit], dtype=torch.float64)
    p = z.sigmoid()
    yes, no = among_seen(p.log(), torch.sigmoid(-z).log(), share)
    expected = p / (p + share * (1 - p))
    torch.testing.assert_close(yes.exp(), expected)
    torch.testing.assert_close(no.exp(), 1 - expected, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(logit_among_seen(z, share).sigmoid(), expected)


def test_where_all_are_seen_nothing_is_changed():
    """Not even the graph."""
    z = torch.tensor([0.3], requires_grad=True)
    assert among_seen(z, z, 1.0) == (z, z)
    assert logit_among_seen(z, 1.0) is z


def drawn(share, count=60_000):
    """What is known of candidates [N, 2], labels as training sees them, and the true P(click) and P(buy | click)."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(count, 2)).astype(np.float32)
    true = {"click": 1 / (1 + np.exp(2.0 - 1.5 * x[:, 0])), "buy": 1 / (1 + np.exp(1.5 - x[:, 1]))}
    labels, possible = {}, np.ones(count, bool)
    for name, p in true.items():
        happened = possible & (rng.random(count) < p)
        seen = happened | (rng.random(count) < share[name])
        labels[name] = torch.tensor(np.where(seen, happened, -1).astype(np.int8))
        possible = happened
    return torch.from_numpy(x), labels, true


def fit(tasks, labels, x, objective):
    """The probabilities of a logistic regression per task, learnt under an objective from what is seen."""
    torch.manual_seed(1)
    heads = Heads(dict.fromkeys(tasks, 0.5), width=2, tower_widths=[])
    model = objectives.create({"name": objective}, heads, tasks)
    hidden = x.expand(2, -1, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        task_losses.total(model.losses(hidden, labels), tasks).backward()
        optimizer.step()
    with torch.no_grad():
        actual = probabilities(model(hidden), parents_of(tasks))
    return {name: value.numpy() for name, value in actual.items()}


def bias(actual, true):
    """How far the mean probability is from the truth, relatively, over all and over the likelier half."""
    likely = true > np.median(true)
    return max(abs(actual[rows].mean() / true[rows].mean() - 1) for rows in (slice(None), likely))


@pytest.mark.parametrize(("objective", "space"), [("esmm", "all"), ("esmm", "parent"), ("escm2_ips", "all")])
def test_what_is_learnt_from_some_negatives_is_calibrated_over_all(objective, space):
    """A tenth of those without a click, a quarter of those without a purchase; without the correction it is not.

    Inverse propensities, of which some are large, have a variance of their own.
    """
    x, labels, true = drawn(SHARE)
    actual = fit(tasks_of(SHARE, space=space), labels, x, objective)
    assert bias(actual["click"], true["click"]) < 0.03
    assert bias(actual["buy|click"], true["buy"]) < (0.1 if objective == "escm2_ips" else 0.06)
    wrong = fit(tasks_of({"click": 1.0, "buy": 1.0}, space=space), labels, x, objective)
    assert bias(wrong["click"], true["click"]) > 1.0
    assert bias(wrong["buy|click"], true["buy"]) > 0.1


@pytest.mark.parametrize("objective", sorted(objectives.names()))
def test_every_objective_corrects_its_losses(objective):
    """The pull on a purchase's tower is that of the logit among those seen, wherever a label meets a probability."""
    tenth = {"click": 0.1, "buy": 0.1}
    x, labels, true = drawn(tenth)
    actual = fit(tasks_of(tenth), labels, x, objective)
    plain = fit(tasks_of({"click": 1.0, "buy": 1.0}), labels, x, objective)
    for name, truth in (("click", true["click"]), ("buy|click", true["buy"])):
        assert bias(actual[name], truth) < bias(plain[name], truth) / 2
    assert bias(actual["click"], true["click"]) < 0.06


@pytest.mark.parametrize("share", [{"click": 0.1, "buy": 1.0}, {"click": 1.0, "buy": 0.25}, SHARE])
def test_the_doubly_robust_mean_of_imputed_errors_is_that_of_all_candidates(share):
    """Those whose negatives were left out are stood for by the others; the plain mean over what is seen is far off.

    The truth: candidates of which a share of non-buyers is seen, whether they were clicked or not.
    """
    tasks = tasks_of(share)
    x, labels, true = drawn(share, count=400_000)
    imputed = torch.sigmoid(x[:, 0])  # large where a click is likely
    would_be_seen = torch.tensor(true["buy"] + share["buy"] * (1 - true["buy"]), dtype=torch.float32)
    expected = (would_be_seen * imputed).sum() / would_be_seen.sum()
    rows = observed(labels["click"]) & observed(labels["buy"])
    log_p = torch.tensor(np.log(true["buy"]), dtype=torch.float32)
    stands = propensity.stand_for(tasks["click"], tasks["buy"], labels["click"], log_p)
    assert (stands >= 1).all()
    assert mean(rows * stands, imputed).item() == pytest.approx(expected.item(), abs=0.004)
    assert abs(mean(rows, imputed) - expected) > 0.02
