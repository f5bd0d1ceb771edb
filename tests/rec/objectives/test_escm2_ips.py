"""ESCM2-IPS, against its equations and the losses it becomes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec import objectives
from rec.losses import propensity, task_losses
from rec.losses.reduction import mean
from tests.rec.objectives import by_hand
from tests.reference import objectives as slow

PAIR = {"click": None, "buy": "click"}
CLICKS = by_hand.labelled(click=[1, 1, 0, 0, 0, 1], buy=[1, 0, 0, 0, 0, -1])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_escm2_ips_is_its_equations(data):
    """Any tree, any pattern of labels, weights that reach the clip and weights that do not."""
    parents = data.draw(st.sampled_from(by_hand.TREES))
    clip = data.draw(st.sampled_from([1.0, 3.0, 15.0]))
    tasks = by_hand.tasks_of(parents, weight=2.0)
    labels, x = data.draw(by_hand.patterns(parents)), by_hand.hidden(tasks)
    model = by_hand.objective("escm2_ips", tasks, clip=clip, lambda_global=0.7, lambda_conditional=0.4)
    actual, logits, known = model.losses(x, labels), by_hand.plain(model(x)), by_hand.plain(labels)
    entire, weighted = (
        slow.esmm(logits, known, parents),
        slow.escm2_ips(logits, known, parents, clip=clip),
    )
    for name, parent in parents.items():
        by_hand.close(actual[name], entire[name] * (1.0 if parent is None else 0.7))
        if parent is not None:
            by_hand.close(actual[f"{name} (ips)"], 2.0 * 0.4 * weighted[name])
    assert len(actual) == len(parents) + len(weighted)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_with_a_constant_propensity_it_is_the_click_space_loss(rate):
    """Equal weights are no weights, whatever their size."""
    tasks = by_hand.tasks_of(PAIR, parent_space={"buy"})
    x = by_hand.hidden(tasks)
    model = by_hand.objective("escm2_ips", tasks, rate=rate, lambda_conditional=1.0)
    with torch.no_grad():
        for p in model.heads.towers.last.parameters():
            p[0] = 0.0
    clicked = slow.esmm(by_hand.plain(model(x)), by_hand.plain(CLICKS), PAIR, {"buy"})
    by_hand.close(model.losses(x, CLICKS)["buy"], clicked["buy"])


def test_without_the_conditional_loss_it_is_esmm():
    """And only then."""
    tasks = by_hand.tasks_of(by_hand.CHAIN)
    labels = by_hand.labelled(click=[1, 1, 0, 1, 0, 1], cart=[1, 0, 0, 1, 0, 1], buy=[1, 0, 0, 0, 0, 1])
    x = by_hand.hidden(tasks)
    plain = task_losses.total(by_hand.objective("esmm", tasks).losses(x, labels), tasks)
    without = by_hand.objective("escm2_ips", tasks, lambda_conditional=0.0).losses(x, labels)
    torch.testing.assert_close(task_losses.total(without, tasks), plain)
    assert task_losses.total(by_hand.objective("escm2_ips", tasks).losses(x, labels), tasks) > plain + 0.01


def test_the_propensity_is_not_taught_by_the_loss_it_weighs():
    """The click tower hears nothing of the weighted loss, and unclicked candidates have no part in it."""
    tasks = by_hand.tasks_of(PAIR)
    x = by_hand.hidden(tasks)
    pulled = by_hand.pull(by_hand.objective("escm2_ips", tasks).losses(x, CLICKS)["buy (ips)"], x)
    assert (pulled[0] == 0).all()
    assert (pulled[1, 2:] == 0).all()
    assert (pulled[1, :2].abs().sum(-1) > 0).all()


def test_in_the_space_of_the_parent_the_entire_space_loss_is_gone():
    """The weighted loss takes its name, so that the task's weight is applied once."""
    whole, inner = by_hand.tasks_of(PAIR, weight=2.0), by_hand.tasks_of(PAIR, parent_space={"buy"}, weight=2.0)
    x = by_hand.hidden(whole)
    both = by_hand.objective("escm2_ips", whole).losses(x, CLICKS)
    single = by_hand.objective("escm2_ips", inner).losses(x, CLICKS)
    assert list(single) == ["click", "buy"]
    torch.testing.assert_close(task_losses.total(single, inner), 2.0 * both["click"] + both["buy (ips)"])


def test_a_weight_is_never_larger_than_the_clip():
    """15 mean weights, 1 / mean p; nor infinite where no parent is likely, nor other than 0 where it did not happen."""
    log_p = torch.tensor([0.0, -1.0, -100.0, -1e4, -1.0])
    rows = torch.tensor([True, True, True, True, False])
    largest = 15.0 / (log_p.exp().sum() / 5)
    actual = propensity.weights(log_p, rows, 15.0)
    torch.testing.assert_close(actual, torch.tensor([1.0, 2.7182817, largest, largest, 0.0]))
    assert propensity.weights(log_p - 1e4, rows, 15.0).square().sum().isfinite()


@pytest.mark.parametrize("rate", [0.3, 0.1, 0.05, 0.03, 0.01])
def test_selection_bias_is_removed_at_any_click_rate(rate):
    """By the default clip: what is left of the bias of clicked candidates' mean, as usual click rates go down."""
    draw = torch.Generator().manual_seed(4)
    x = torch.randn(2_000_000, generator=draw)
    shift = torch.tensor(0.0)
    for _ in range(60):  # until so many are clicked
        shift += 2 * (rate - torch.sigmoid(x + shift).mean())
        shift += torch.log(rate / torch.sigmoid(x + shift).mean())
    log_p, value = torch.nn.functional.logsigmoid(x + shift), torch.sigmoid(x - 2)
    clicked = torch.rand(len(x), generator=draw) < log_p.exp()
    weight_N = propensity.weights(log_p, clicked, objectives.config_of("escm2_ips")().clip)
    bias = value[clicked].mean() - value.mean()
    left = mean(weight_N, value) - value.mean()
    assert bias > 0.05
    assert left.abs() < 0.1 * bias
    weight_sum, squares = propensity.effective_size(weight_N)
    assert 0.3 * clicked.sum() < weight_sum**2 / squares < clicked.sum()


def test_the_weighted_mean_of_clicked_candidates_is_the_mean_of_all():
    """With the true propensities, where the plain mean over clicked candidates is far off."""
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(200_000, generator=draw)
    log_p, value = torch.nn.functional.logsigmoid(x - 1), torch.sigmoid(2 * x)
    clicked = torch.rand(len(x), generator=draw) < log_p.exp()
    weighted = mean(propensity.weights(log_p, clicked, 1e4), value)
    assert abs(weighted - value.mean()) < 0.01
    assert value[clicked].mean() > value.mean() + 0.1
