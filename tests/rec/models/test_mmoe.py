"""MMoE, against its equations and the models it becomes."""

from __future__ import annotations

import torch

from rec.losses.task_losses import probabilities
from tests.rec.models import by_hand
from tests.reference import models as slow


def test_mmoe_is_its_equations():
    """Against a loop over candidates, tasks and experts."""
    given = by_hand.inputs()
    model = by_hand.body("mmoe", experts=3, expert_widths=[5, 4])
    twin = slow.mmoe(by_hand.flat(*given), by_hand.perceptrons(model.experts), by_hand.gates(model.gates))
    by_hand.close(model, twin, *given)


def test_mmoe_with_one_expert_is_shared_bottom():
    """The softmax over one expert is 1."""
    single = by_hand.body("mmoe", experts=1, expert_widths=[6, 5])
    plain = by_hand.body("shared_bottom", bottom_widths=[6, 5])
    weights = single.state_dict().items()
    plain.load_state_dict({k.replace("experts.", "bottom."): v for k, v in weights if not k.startswith("gates.")})
    given = by_hand.inputs()
    torch.testing.assert_close(single(*given), plain(*given))


def test_experts_permuted_with_their_gates_leave_mmoe_unchanged():
    """Experts have no order."""
    model = by_hand.body("mmoe", experts=3, expert_widths=[5, 4])
    given = by_hand.inputs()
    before = model(*given).clone()
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        for p in model.experts.first.linear.parameters():
            p.copy_(p.unflatten(0, (3, -1))[order].flatten(0, 1))
        for p in model.experts.rest.parameters():
            p.copy_(p[order])
        for p in model.gates.linear.parameters():
            p.copy_(p.unflatten(0, (3, 3))[:, order].flatten(0, 1))
    torch.testing.assert_close(model(*given), before)


def test_shared_bottom_is_its_equations():
    """Against a loop over candidates and tasks."""
    given = by_hand.inputs()
    model = by_hand.body("shared_bottom", bottom_widths=[6, 5])
    twin = slow.shared_bottom(by_hand.flat(*given), by_hand.perceptrons(model.bottom)[0], tasks=3)
    by_hand.close(model, twin, *given)


def test_served_probabilities_multiply_up_exactly():
    """P(child) is P(parent) times P(child | parent), in floating point too."""
    actual = probabilities({"a": torch.randn(50), "b": torch.randn(50)}, {"a": None, "b": "a"})
    assert torch.equal(actual["b"], actual["a"] * actual["b|a"])
