"""ESCM2-DR, against its equations, and the fault of imputed errors that cannot exceed 1."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.losses import propensity, task_losses
from tests.rec.objectives import by_hand
from tests.reference import objectives as slow

PAIR = {"click": None, "buy": "click"}
CLICKS = by_hand.labelled(click=[1, 1, 0, 0, 0, 1], buy=[1, 0, 0, 0, 0, -1])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_escm2_dr_is_its_equations(data):
    """Any tree, any pattern of labels, weights that reach the clip and weights that do not."""
    parents = data.draw(st.sampled_from(by_hand.TREES))
    clip = data.draw(st.sampled_from([1.0, 3.0, 15.0]))
    tasks = by_hand.tasks_of(parents, weight=2.0)
    labels, x = data.draw(by_hand.patterns(parents)), by_hand.hidden(tasks)
    model = by_hand.objective("escm2_dr", tasks, clip=clip, lambda_global=0.7, lambda_conditional=0.4)
    actual, logits, known = model.losses(x, labels), by_hand.plain(model(x)), by_hand.plain(labels)
    imputed = by_hand.plain(model.imputed(x))
    entire, robust = slow.esmm(logits, known, parents), slow.escm2_dr(logits, known, parents, imputed, clip=clip)
    for name, parent in parents.items():
        by_hand.close(actual[name], entire[name] * (1.0 if parent is None else 0.7))
        if parent is not None:
            by_hand.close(actual[f"{name} (dr)"], 2.0 * 0.4 * robust[name])
    assert len(actual) == len(parents) + len(robust)


def test_with_every_error_imputed_exactly_the_loss_is_the_mean_error_over_all():
    """Whatever the weights are."""
    error, weight = torch.tensor([0.5, 3.0, 0.1, 2.0]), torch.tensor([2.0, 0.0, 15.0, 0.0])
    rows = torch.tensor([True, True, True, True])
    torch.testing.assert_close(propensity.doubly_robust(error, error.clone(), weight, rows), error.mean())


def test_with_true_propensities_wrong_imputed_errors_do_no_harm():
    """The other half of doubly robust: the mean over all candidates is met although every imputed error is 0.7 off."""
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(200_000, generator=draw)
    log_p, error = torch.nn.functional.logsigmoid(x - 1), torch.sigmoid(2 * x)
    weight = propensity.weights(log_p, torch.rand(len(x), generator=draw) < log_p.exp(), 1e4)
    estimate = propensity.doubly_robust(error, error + 0.7, weight, torch.ones(len(x), dtype=torch.bool))
    assert abs(estimate - error.mean()) < 0.01


def test_an_imputed_error_can_exceed_one():
    """A purchase the model thought unlikely has a log loss of 4: the imputation tower can learn that."""
    tasks = by_hand.tasks_of(PAIR)
    model = by_hand.objective("escm2_dr", tasks)
    labels = by_hand.labelled(click=[1] * 6, buy=[1] * 6)
    x = by_hand.hidden(tasks).detach()
    with torch.no_grad():
        model.heads.prior.fill_(-4.0)
        for p in model.heads.towers.last.parameters():
            p.zero_()
    optimizer = torch.optim.Adam(model.imputation.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        model.losses(x, labels)["buy (dr)"].backward()
        optimizer.step()
    torch.testing.assert_close(model.imputed(x)["buy"], torch.full((6,), 4.018), atol=0.1, rtol=0.0)


def test_the_propensity_is_not_taught_by_the_loss_it_weighs():
    """The click tower hears nothing of it; the imputation tower hears of every candidate."""
    tasks = by_hand.tasks_of(PAIR)
    x = by_hand.hidden(tasks)
    pulled = by_hand.pull(by_hand.objective("escm2_dr", tasks).losses(x, CLICKS)["buy (dr)"], x)
    assert (pulled[0] == 0).all()
    assert (pulled[1, :5].abs().sum(-1) > 0).all()
    assert (pulled[1, 5] == 0).all()


@pytest.mark.parametrize("joint", [False, True])
def test_the_tower_itself_is_taught_what_inverse_propensities_teach_it(joint):
    """Imputed errors do not depend on its logits: they change the representation below, and with `joint` the tower."""
    tasks = by_hand.tasks_of(PAIR)
    x = by_hand.hidden(tasks)
    robust, inverse = by_hand.objective("escm2_dr", tasks, joint=joint), by_hand.objective("escm2_ips", tasks)
    mine = by_hand.pull(robust.losses(x, CLICKS)["buy (dr)"], robust.heads.towers.last.weight)
    theirs = by_hand.pull(inverse.losses(x, CLICKS)["buy (ips)"], inverse.heads.towers.last.weight)
    assert torch.allclose(mine, theirs) != joint
    assert theirs.abs().sum() > 0


def test_jointly_a_probability_that_is_right_is_pulled_towards_one_half():
    """One of five bought, 0.2 is predicted, and the mean error is imputed: nothing should move, and jointly it does.

    The squared distance of the errors from their mean is q (1 - q) z^2, which is least at z = 0.
    """
    rate, pulls = 0.2, {}
    for joint in (False, True):
        model = by_hand.objective("escm2_dr", by_hand.tasks_of(PAIR), rate=rate, joint=joint)
        entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
        with torch.no_grad():
            for p in [*model.heads.towers.parameters(), *model.imputation.parameters()]:
                p.zero_()
            model.imputation.towers.last.bias.fill_(math.log(math.expm1(entropy)))
        labels = by_hand.labelled(click=[1] * 5, buy=[1, 0, 0, 0, 0])
        loss = model.losses(by_hand.hidden(PAIR, 5), labels)["buy (dr)"]
        pulls[joint] = by_hand.pull(loss, model.heads.towers.last.bias)[1].item()
    assert abs(pulls[False]) < 1e-6
    assert pulls[True] < -0.01


def test_the_imputation_tower_is_not_computed_for_a_score():
    """Broken weights in it do not show."""
    tasks = by_hand.tasks_of(PAIR)
    model = by_hand.objective("escm2_dr", tasks)
    with torch.no_grad():
        for p in model.imputation.parameters():
            p.fill_(torch.nan)
    for value in model(by_hand.hidden(tasks)).values():
        assert value.isfinite().all()


def test_in_the_space_of_the_parent_the_entire_space_loss_is_gone():
    """The doubly robust loss takes its name, so that the task's weight is applied once."""
    whole, inner = by_hand.tasks_of(PAIR, weight=2.0), by_hand.tasks_of(PAIR, parent_space={"buy"}, weight=2.0)
    x = by_hand.hidden(whole)
    both = by_hand.objective("escm2_dr", whole).losses(x, CLICKS)
    single = by_hand.objective("escm2_dr", inner).losses(x, CLICKS)
    torch.testing.assert_close(task_losses.total(single, inner), 2.0 * both["click"] + both["buy (dr)"])
