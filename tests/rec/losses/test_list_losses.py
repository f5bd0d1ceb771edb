"""Losses over requests: against loops, masks included; what they pull at and what they leave alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec import objectives, ranker
from rec.data.loader import tensors
from rec.losses.list_losses import list_losses, listwise, pairwise
from rec.spec import parse
from tests import strategies
from tests.rec.objectives import by_hand
from tests.reference import list_losses as slow

CHAIN = by_hand.CHAIN
SPEC = """
name = "x"
[candidates]
item = { kind = "id" }
[tasks.click]
label = "c"
[tasks.buy]
label = "b"
given = "click"
"""
SIZES = st.lists(st.integers(0, 4), min_size=1, max_size=4)


@settings(deadline=None)
@given(st.data(), SIZES, st.sampled_from([1.0, 0.1]))
def test_they_are_their_equations(data, sizes, share):
    """A chain of three tasks, one of them in the space of its parent, any labels, negatives left out or not."""
    owner = [request for request, size in enumerate(sizes) for _ in range(size)]
    labels = data.draw(by_hand.patterns(CHAIN, len(owner)))
    tasks = by_hand.tasks_of(CHAIN, parent_space={"buy"}, weight=2.0)
    tasks = {name: task.model_copy(update={"negatives": share}) for name, task in tasks.items()}
    generator = torch.Generator().manual_seed(len(owner))
    logits = {name: 3 * torch.randn(len(owner), generator=generator) for name in tasks}
    owner_N = torch.tensor(owner, dtype=torch.int64)
    actual = list_losses(logits, labels, tasks, owner_N=owner_N, weights=(0.3, 0.7))
    expected = slow.list_losses(
        by_hand.plain(logits), by_hand.plain(labels), CHAIN, owner, parent_space={"buy"}, share=share
    )
    for name in tasks:
        by_hand.close(actual[f"{name} (listwise)"], 2.0 * 0.3 * expected[name][0])
        by_hand.close(actual[f"{name} (pairwise)"], 2.0 * 0.7 * expected[name][1])


def test_true_probabilities_are_left_alone():
    """Over all outcomes of a request its gradient is 0 where P is true; so is that of pairs, not that of softmax z."""
    p = torch.tensor([0.5, 0.2, 0.05], dtype=torch.float64)
    z = torch.logit(p).requires_grad_()
    rows, owner = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.int64)
    total = {"listwise": 0.0, "pairwise": 0.0, "softmax of z": 0.0}
    for outcome in range(1, 8):
        happened = torch.tensor([bool(outcome >> i & 1) for i in range(3)])
        chance = torch.where(happened, p, 1 - p).prod()
        count = int(happened.sum())
        log_p = torch.nn.functional.logsigmoid(z)
        total["listwise"] = total["listwise"] + chance * count * listwise(log_p, happened, rows, owner)
        total["pairwise"] = total["pairwise"] + chance * count * pairwise(z, happened, rows, owner)
        total["softmax of z"] = total["softmax of z"] + chance * count * listwise(z, happened, rows, owner)
    pulls = {name: torch.autograd.grad(loss, z)[0].abs().max().item() for name, loss in total.items()}
    assert pulls["listwise"] < 1e-9
    assert pulls["pairwise"] < 1e-9
    assert pulls["softmax of z"] > 1e-2


def test_nothing_to_compare_costs_nothing():
    """No positive, no negative, an empty batch, a request whose labels are all unobserved."""
    z = torch.tensor([1.0, -2.0]).requires_grad_()
    owner, none, every = torch.tensor([0, 0]), torch.tensor([False, False]), torch.tensor([True, True])
    for positive, rows in ((none, every), (none, none)):
        assert listwise(z, positive, rows, owner) == pairwise(z, positive, rows, owner) == 0
    assert pairwise(z, every, every, owner) == 0
    assert listwise(z[:0], none[:0], none[:0], owner[:0]) == pairwise(z[:0], none[:0], none[:0], owner[:0]) == 0
    (listwise(z, every, every, owner) + pairwise(z, none, none, owner)).backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(objectives.names()))
def test_every_objective_has_them_beside_its_own_losses(name):
    """Its own stay what they are; a spec without them has no more losses than before."""
    candidates = [{"item": item, "click": item % 2, "buy": 0} for item in (1, 2, 3)]
    rows = [{"request_id": "r", "time": 0, "context": {}, "candidates": candidates}]
    actual = {}
    for weights in ("", "listwise = 0.2\npairwise = 0.1\n"):
        spec = parse(SPEC + f'[objective]\nname = "{name}"\n{weights}')
        model = ranker.create(spec, strategies.preprocessor(spec), seed=1, device=torch.device("cpu"))
        actual[weights] = model.losses(tensors(strategies.batch(spec, rows), torch.device("cpu")))
    plain, both = actual.values()
    assert set(both) - set(plain) == {
        f"{task} ({kind})" for task in ("click", "buy") for kind in ("listwise", "pairwise")
    }
    for term, loss in plain.items():
        assert torch.equal(loss, both[term])
    assert both["click (listwise)"] > 0
    assert all(loss.isfinite() for loss in both.values())
