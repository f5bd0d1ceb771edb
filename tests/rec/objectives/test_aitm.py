"""AITM, against its equations; its calibrator, and what is served when a child is likelier than its parent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.errors import SpecError
from rec.losses import task_losses
from rec.losses.task_losses import probabilities
from tests.rec.models import by_hand as layers
from tests.rec.objectives import by_hand
from tests.reference import models as perceptrons
from tests.reference import objectives as slow

PAIR = {"click": None, "buy": "click"}


def twin(model, x, parents):
    """Unconditional logits, one candidate and one task at a time."""
    towers, names = model.heads.towers, list(parents)
    hidden = [layers.stacked(layer) for layer in towers.hidden]
    last_weight, last_bias = layers.stacked(towers.last)
    at = {
        child: (transfer, k)
        for transfer, pairs in zip(model.transfers, model.generations, strict=True)
        for k, (_, child) in enumerate(pairs)
    }
    out = {name: [] for name in names}
    for i in range(x.shape[1]):
        fused = {}
        for t, name in enumerate(names):
            own = perceptrons.perceptron(x[t, i].detach().numpy(), [(w[t], b[t]) for w, b in hidden])
            if parents[name] is not None:
                transfer, k = at[name]
                weight, bias = layers.stacked(transfer.info)
                project = transfer.project.detach().numpy()[k, 0]
                own = slow.transfer(fused[parents[name]], own, (weight[k], bias[k]), project)
            fused[name] = own
            out[name].append((own @ last_weight[t] + last_bias[t])[0] + model.prior[t].item())
    return {name: np.array(values, np.float64) for name, values in out.items()}


@pytest.mark.parametrize("parents", by_hand.TREES)
@pytest.mark.parametrize("tower", [(4, 3), ()])
def test_aitm_is_its_equations(parents, tower):
    """The parent's fused vector, attention over two, weights of its own for every child, in any tree."""
    x = by_hand.hidden(parents)
    model = by_hand.objective("aitm", by_hand.tasks_of(parents), tower=tower)
    actual = by_hand.plain(model.unconditional(x))
    for name, value in twin(model, x, parents).items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_losses_are_their_equations(data):
    """Any tree, any pattern of labels: every task over its own observed candidates, and the calibrator."""
    parents = data.draw(st.sampled_from(by_hand.TREES))
    tasks = by_hand.tasks_of(parents, weight=2.0)
    labels, x = data.draw(by_hand.patterns(parents)), by_hand.hidden(tasks)
    model = by_hand.objective("aitm", tasks, calibrator=0.4)
    actual = model.losses(x, labels)
    own, above = slow.aitm(by_hand.plain(model.unconditional(x)), by_hand.plain(labels), parents)
    for name, value in own.items():
        by_hand.close(actual[name], value)
    for name, value in above.items():
        by_hand.close(actual[f"{name} (calibrator)"], 2.0 * 0.4 * value)
    assert len(actual) == len(own) + len(above)


def shifted(*, click, buy):
    """An objective of a pair whose logits are constants, and what it was asked with."""
    model = by_hand.objective("aitm", by_hand.tasks_of(PAIR))
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.prior.copy_(torch.tensor([click, buy]))
    return model, by_hand.hidden(PAIR)


def test_the_calibrator_is_exactly_zero_below_the_parent_and_pulls_above_it():
    """It presses a child down and its parent up, and only where the child is the likelier."""
    labels = by_hand.labelled(click=[0] * 6, buy=[0] * 6)
    for buy in (-3.0, -1.0):
        model, x = shifted(click=-1.0, buy=buy)
        assert model.losses(x, labels)["buy (calibrator)"] == 0
    model, x = shifted(click=-1.0, buy=1.0)
    actual = model.losses(x, labels)["buy (calibrator)"]
    by_hand.close(actual, 0.6 * (perceptrons.sigmoid(1.0) - perceptrons.sigmoid(-1.0)))
    click, buy = by_hand.pull(actual, model.heads.towers.last.bias).flatten()
    assert click < 0 < buy


def test_with_its_calibrator_a_child_comes_to_lie_below_its_parent():
    """Without it nothing in the loss says that a purchase is a click: labels not yet known leave room to forget it."""
    over = {}
    for weight in (0.0, 20.0):
        torch.manual_seed(0)
        model = by_hand.objective("aitm", by_hand.tasks_of(PAIR), calibrator=weight)
        x = by_hand.hidden(PAIR, 40).detach()
        labels = by_hand.labelled(click=[0, 1, 0, 0] * 10, buy=[-1, 1, -1, -1] * 10)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(200):
            optimizer.zero_grad()
            task_losses.total(model.losses(x, labels), model.tasks).backward()
            optimizer.step()
        u = model.unconditional(x)
        over[weight] = (u["buy"].sigmoid() - u["click"].sigmoid()).clamp(min=0).mean().item()
    assert over[0.0] > 0.3
    assert over[20.0] < 0.1


def test_what_is_served_is_the_child_itself_or_its_parent_when_that_is_less():
    """In a chain of three the cap on one child is not multiplied into the next."""
    model = by_hand.objective("aitm", by_hand.tasks_of(by_hand.CHAIN))
    x = by_hand.hidden(by_hand.CHAIN, 400, scale=40.0)
    u = {name: value.sigmoid() for name, value in model.unconditional(x).items()}
    served = probabilities(model(x), by_hand.CHAIN)
    assert (u["cart"] > u["click"]).any()
    assert (u["buy"] < u["cart"]).any()
    expected = u["click"]
    for name in ("cart", "buy"):
        expected = torch.minimum(u[name], expected * (1 - 1e-4))
        torch.testing.assert_close(served[name], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("click", "buy"), [(-90.0, 90.0), (90.0, -90.0), (-90.0, -190.0), (90.0, 90.0), (0.0, 0.0)])
def test_a_served_logit_is_finite_at_any_extreme(click, buy):
    """Also where the quotient of the two probabilities is 0, 1, or far above."""
    model, x = shifted(click=click, buy=buy)
    for value in model(x).values():
        assert value.isfinite().all()


def test_a_fresh_tower_starts_from_the_rate_of_its_task_among_all_candidates():
    """The product along the chain: 30% of 30% of 30% buy."""
    model = by_hand.objective("aitm", by_hand.tasks_of(by_hand.CHAIN), rate=0.3)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    u = model.unconditional(by_hand.hidden(by_hand.CHAIN))
    for name, rate in (("click", 0.3), ("cart", 0.09), ("buy", 0.027)):
        torch.testing.assert_close(u[name].sigmoid(), torch.full((6,), rate))
    for value in model(by_hand.hidden(by_hand.CHAIN)).values():
        torch.testing.assert_close(value.sigmoid(), torch.full((6,), 0.3))


def test_siblings_do_not_see_each_other_and_a_grandchild_sees_its_grandparent():
    """A tree where the paper has a chain."""
    parents = {"click": None, "buy": "click", "like": "click", "gift": "buy"}
    model, x = by_hand.objective("aitm", by_hand.tasks_of(parents)), by_hand.hidden(parents)
    u = model.unconditional(x)
    reads = {name: by_hand.pull(u[name].sum(), x).abs().sum((1, 2)) > 0 for name in parents}
    assert {name: [p for p, yes in zip(parents, actual, strict=True) if yes] for name, actual in reads.items()} == {
        "click": ["click"],
        "buy": ["click", "buy"],
        "like": ["click", "like"],
        "gift": ["click", "buy", "gift"],
    }


def test_the_space_of_the_parent_is_refused():
    """A loss where the parent happened would teach the conditional probability to a tower of the unconditional one."""
    with pytest.raises(SpecError) as refused:
        by_hand.objective("aitm", by_hand.tasks_of(PAIR, parent_space={"buy"}))
    assert str(refused.value) == (
        "tasks.buy.space: 'parent' does not go with objective 'aitm', which learns P(buy) itself, over all candidates; "
        "leave it out, or take objective 'esmm'"
    )
