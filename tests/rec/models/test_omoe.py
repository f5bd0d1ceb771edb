"""OMoE, against its equations and the models it becomes."""

from __future__ import annotations

import torch

from tests.rec.models import by_hand, family


def test_omoe_is_its_equations():
    """Against a loop over candidates and experts."""
    model = family.agrees("omoe", experts=3, expert_widths=[5, 4])
    assert model(*by_hand.inputs()).shape == (3, 4, 4)


def test_omoe_gives_the_numbers_it_always_gave():
    """Golden values: both tasks alike, and the first task of the MMoE below, whose weights come in the same order."""
    single = [[0.370549, 1.024567], [0.031257, 0.036134], [0.012418, 0]]
    family.golden("omoe", [single, single], experts=3, expert_widths=[4, 2])


def test_mmoe_gives_the_numbers_it_always_gave():
    """Golden values."""
    click = [[0.370549, 1.024567], [0.031257, 0.036134], [0.012418, 0]]
    buy = [[0.576426, 0.889392], [0.091031, 0.105233], [0.002595, 0]]
    family.golden("mmoe", [click, buy], experts=3, expert_widths=[4, 2])


def test_shared_bottom_gives_the_numbers_it_always_gave():
    """Golden values."""
    single = [[0.156894, 1.077333, 0.419477], [0, 0, 0], [0, 0, 0]]
    family.golden("shared_bottom", [single, single], bottom_widths=[6, 3])


def test_omoe_is_mmoe_whose_gates_are_alike():
    """The one gate's weights, for every task."""
    single = by_hand.body("omoe", experts=3, expert_widths=[5, 4])
    tied = by_hand.body("mmoe", experts=3, expert_widths=[5, 4])
    tied.load_state_dict(
        {
            name: weight.repeat(3, *[1] * (weight.dim() - 1)) if name.startswith("gates.") else weight
            for name, weight in single.state_dict().items()
        }
    )
    given = by_hand.inputs()
    torch.testing.assert_close(single(*given), tied(*given))


def test_omoe_with_one_expert_is_shared_bottom():
    """The softmax over one expert is 1."""
    single = by_hand.body("omoe", experts=1, expert_widths=[6, 5])
    plain = by_hand.body("shared_bottom", bottom_widths=[6, 5])
    weights = single.state_dict().items()
    plain.load_state_dict({k.replace("experts.", "bottom."): v for k, v in weights if not k.startswith("gates.")})
    given = by_hand.inputs()
    torch.testing.assert_close(single(*given), plain(*given))


def test_experts_permuted_with_their_gate_leave_omoe_unchanged():
    """Experts have no order."""
    model = by_hand.body("omoe", experts=3, expert_widths=[5, 4])
    given = by_hand.inputs()
    before = model(*given).clone()
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        for p in model.experts.first.linear.parameters():
            p.copy_(p.unflatten(0, (3, -1))[order].flatten(0, 1))
        for p in [*model.experts.rest.parameters(), *model.gates.linear.parameters()]:
            p.copy_(p[order])
    torch.testing.assert_close(model(*given), before)
