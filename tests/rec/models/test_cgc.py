"""CGC, against its equations and the models it becomes; and what its counts of experts may be."""

from __future__ import annotations

import re

import pytest
import torch

from rec.errors import SpecError
from tests.rec.models import by_hand, family

UNEQUAL = {"click": 1, "buy": 3, "like": 2}


@pytest.mark.parametrize("shared", [0, 1, 3])
@pytest.mark.parametrize("own", [1, 2, UNEQUAL])
def test_cgc_is_its_equations(own, shared):
    """Against a loop over candidates, tasks and the experts a task sees."""
    family.agrees("cgc", task_experts=own, shared_experts=shared, expert_widths=[5, 4])


def test_cgc_gives_the_numbers_it_always_gave():
    """Golden values."""
    click = [[0.396743, 0.875084], [0.304143, 0.489944], [0.155154, 0.016562]]
    buy = [[0.850157, 0.197378], [0.173244, 0.304609], [0.156439, 0.032092]]
    sizes = {"task_experts": {"click": 2, "buy": 1}, "shared_experts": 2, "expert_widths": [4, 2]}
    family.golden("cgc", [click, buy], **sizes)


def test_cgc_with_only_shared_experts_is_mmoe():
    """Every task sees the same experts, through a gate of its own."""
    none = dict.fromkeys(by_hand.TASKS, 0)
    gated = by_hand.body("cgc", task_experts=none, shared_experts=3, expert_widths=[5, 4])
    plain = by_hand.body("mmoe", experts=3, expert_widths=[5, 4])
    plain.load_state_dict(gated.state_dict())
    given = by_hand.inputs()
    assert torch.equal(gated(*given), plain(*given))


def test_cgc_of_one_task_without_shared_experts_is_mmoe():
    """A mixture over the task's own experts."""
    alone = {"click": None}
    gated = by_hand.body("cgc", tasks=alone, task_experts=3, shared_experts=0, expert_widths=[5, 4])
    plain = by_hand.body("mmoe", tasks=alone, experts=3, expert_widths=[5, 4])
    plain.load_state_dict(gated.state_dict())
    given = by_hand.inputs()
    assert torch.equal(gated(*given), plain(*given))


def test_cgc_with_one_own_expert_and_none_shared_is_single_task():
    """The softmax over one expert is 1."""
    gated = by_hand.body("cgc", task_experts=1, shared_experts=0, expert_widths=[6, 5])
    plain = by_hand.body("single_task", bottom_widths=[6, 5])
    weights = gated.state_dict().items()
    plain.load_state_dict({k.replace("experts.", "bottoms."): v for k, v in weights if not k.startswith("gates.")})
    given = by_hand.inputs()
    torch.testing.assert_close(gated(*given), plain(*given))


def test_a_task_reaches_its_own_and_the_shared_experts_and_no_others():
    """Exactly: the gradient on what the others own is 0."""
    model = by_hand.body("cgc", task_experts=2, shared_experts=1, expert_widths=[15, 14], activation="swish")
    for task, name in enumerate(by_hand.TASKS):
        model.zero_grad()
        model(*by_hand.inputs())[task].square().sum().backward()
        reached = model.experts.rest[0].weight.grad.abs().sum((1, 2)) > 0
        assert reached.tolist() == [owner in (name, "(shared)") for owner in model.experts.owners]


def test_a_task_the_table_does_not_name_has_one_expert():
    """The others have what they were given."""
    model = by_hand.body("cgc", task_experts={"buy": 3, "like": 0}, shared_experts=2)
    assert model.experts.owners == ["click", "buy", "buy", "buy", "(shared)", "(shared)"]


def test_a_gate_without_experts_is_refused_by_the_name_of_its_task():
    """A task with none of its own, where none are shared."""
    with pytest.raises(
        SpecError, match=r"model\.task_experts\.buy: expected at least 1 where shared_experts is 0, got 0"
    ):
        by_hand.body("cgc", task_experts={"buy": 0}, shared_experts=0)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        ("many", r"model\.task_experts: expected a valid integer or a table, got 'many'"),
        (True, r"model\.task_experts: expected a valid integer or a table, got True"),
        (0, r"model\.task_experts: expected greater than or equal to 1, got 0"),
        ({"buy": -1}, r"model\.task_experts\.buy: expected greater than or equal to 0, got -1"),
        ({"buy": "x"}, r"model\.task_experts\.buy: expected a valid integer, got 'x'"),
        ({"by": 1}, r"model\.task_experts\.by: no task 'by'; did you mean 'buy'\?"),
    ],
)
@pytest.mark.parametrize("name", ["cgc", "ple"])
def test_a_count_that_is_none_is_refused(name, count, message):
    """A number for all or one by task: only what the author meant is spoken of, and no name of pydantic's."""
    with pytest.raises(SpecError) as refused:
        by_hand.body(name, task_experts=count)
    assert re.fullmatch(message, str(refused.value))


def test_shared_experts_are_one_number():
    """And not below 0."""
    with pytest.raises(SpecError, match=r"model\.shared_experts: expected greater than or equal to 0, got -1"):
        by_hand.body("cgc", shared_experts=-1)
