"""PLE, against its equations, CGC, and what others' code gets wrong."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.errors import SpecError
from rec.modules.expert_groups import SHARED
from tests.rec.models import by_hand, family

TASKS = list(by_hand.TASKS)
UNEQUAL = {"click": 1, "buy": 3, "like": 0}
TWO = {"levels": [[15], [14]], "activation": "swish"}  # no unit is dead, so a gradient of 0 means no way


@pytest.mark.parametrize("levels", [[[5, 4]], [[5], [4]], [[5, 4], [3], [6, 2]]])
@pytest.mark.parametrize("shared", [0, 1, 3])
def test_ple_is_its_equations(levels, shared):
    """Against a loop over candidates, levels, groups and the experts a gate sees."""
    family.agrees("ple", task_experts=2, shared_experts=shared, levels=levels)


@pytest.mark.parametrize("shared", [1, 2])
def test_ple_with_unequal_counts_is_its_equations(shared):
    """One expert, three and none, beside shared ones."""
    model = family.agrees("ple", task_experts=UNEQUAL, shared_experts=shared, levels=[[5], [4, 3]])
    assert all(level_experts.owners == ["click"] + ["buy"] * 3 + [SHARED] * shared for level_experts in model.experts)


def test_ple_gives_the_numbers_it_always_gave():
    """Golden values, with shared experts and without."""
    sizes = {"task_experts": {"click": 2, "buy": 1}}
    click = [[0.408748, 0.509909], [0.433009, 0.304008], [0.650656, 0.744065]]
    buy = [[0.533803, 0.544432], [0.558466, 0.335301], [0.90454, 0.932206]]
    family.golden("ple", [click, buy], **sizes, shared_experts=2, levels=[[4], [2]])
    click = [[0.343808, 0.281636, 0], [0.218515, 0.009562, 0.213385], [0.161411, 0.009474, 0.103686]]
    buy = [[0.234542, 0.945398, 0.271244], [0, 0, 0.257414], [0, 0.386127, 0.989575]]
    family.golden("ple", [click, buy], **sizes, shared_experts=0, levels=[[6], [3]])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), count=st.integers(1, 7), levels=st.sampled_from([[[5]], [[5, 4], [3]], [[5], [4], [3]]]))
def test_any_counts_of_experts_and_tasks(data, count, levels):
    """One task to seven, none to three experts each: the twin agrees and every weight is reached, or it is refused."""
    tasks = {f"t{i}": None for i in range(count)}
    number = {task: data.draw(st.integers(0, 3)) for task in tasks}
    shared = data.draw(st.integers(0, 2))
    context, candidate = data.draw(st.sampled_from([(3, 2), (0, 2), (3, 0)]))
    owner = data.draw(st.sampled_from([(0,), (0, 1, 1, 1)]))
    given_ = by_hand.inputs(context=context, candidate=candidate, owner=owner)
    sizes = {"task_experts": number, "shared_experts": shared, "levels": levels}
    empty = [task for task, n in number.items() if n + shared == 0]
    if empty:
        with pytest.raises(SpecError, match=rf"model\.task_experts\.{empty[0]}: expected at least 1"):
            by_hand.body("ple", tasks=tasks, **sizes)
        return
    model = family.agrees("ple", tasks=tasks, given=given_, **sizes)
    model(*given_).sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("own", [2, UNEQUAL])
@pytest.mark.parametrize("shared", [1, 2])
def test_ple_of_one_level_is_cgc(own, shared):
    """With the same weights, exactly."""
    sizes = {"task_experts": own, "shared_experts": shared}
    single = by_hand.body("ple", levels=[[5, 4]], **sizes)
    plain = by_hand.body("cgc", expert_widths=[5, 4], **sizes)
    plain.load_state_dict({name.replace("s.0.", "s.", 1): weight for name, weight in single.state_dict().items()})
    given_ = by_hand.inputs()
    assert torch.equal(single(*given_), plain(*given_))


def reached(model, level, task):
    """Owners of the experts of a level that one task's output pulls at."""
    experts, captured = model.experts[level], []
    hook = experts.register_forward_hook(lambda _module, _inputs, out: captured.append(out))
    out = model(*by_hand.inputs())[task].square().sum()
    hook.remove()
    (grad_ENH,) = torch.autograd.grad(out, captured)
    return {owner for owner, grad in zip(experts.owners, grad_ENH, strict=True) if grad.abs().sum() > 0}


def test_the_shared_gate_sees_all_experts():
    """Not only the shared ones: by level 2 a task has seen every expert of level 1, through what is shared."""
    model = by_hand.body("ple", task_experts=2, shared_experts=1, **TWO)
    for task, name in enumerate(TASKS):
        assert reached(model, 0, task) == {*TASKS, SHARED}
        assert reached(model, 1, task) == {name, SHARED}


def test_there_are_as_many_shared_experts_as_asked_for():
    """More than a task's own or fewer, on every level, all of them in use."""
    for own, shared in ((1, 3), (3, 1)):
        model = by_hand.body("ple", task_experts=own, shared_experts=shared, **TWO)
        assert [level_experts.owners.count(SHARED) for level_experts in model.experts] == [shared, shared]
        assert [level_experts.owners.count("buy") for level_experts in model.experts] == [own, own]


def test_without_shared_experts_nothing_is_shared():
    """No shared group, no gate, and no way from one task to another's experts on any level."""
    model = by_hand.body("ple", task_experts=2, shared_experts=0, **TWO)
    assert [gates.rows for gates in model.gates] == [TASKS, TASKS]
    for task, name in enumerate(TASKS):
        assert reached(model, 0, task) == reached(model, 1, task) == {name}


def test_without_shared_experts_tasks_are_models_of_their_own():
    """Each is a PLE of one task with the same weights."""
    three = by_hand.body("ple", task_experts=1, shared_experts=0, levels=[[5], [4]])
    given_ = by_hand.inputs()
    for task, name in enumerate(TASKS):
        single = by_hand.body("ple", tasks={name: None}, task_experts=1, shared_experts=0, levels=[[5], [4]])
        with torch.no_grad():
            for mine, theirs in zip(single.experts.parameters(), three.experts.parameters(), strict=True):
                mine.copy_(theirs.unflatten(0, (3, -1))[task].view_as(mine))
        torch.testing.assert_close(single(*given_)[0], three(*given_)[task])


def test_the_last_level_has_no_shared_gate():
    """Nothing would read what it makes; every weight there is gets a gradient that is not 0."""
    model = by_hand.body("ple", task_experts=2, shared_experts=2, levels=[[15], [14], [13]], activation="swish")
    assert [gates.rows for gates in model.gates] == [[*TASKS, SHARED], [*TASKS, SHARED], TASKS]
    out = model(*by_hand.inputs())
    assert out.shape == (3, 4, 13)
    out.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_shared_experts_read_the_shared_path():
    """What task 0 makes of level 1 goes to its own experts of level 2, and to nobody else's."""
    model = by_hand.body("ple", task_experts=2, shared_experts=2, **TWO)
    given_ = by_hand.inputs()
    before = model(*given_).detach()
    with torch.no_grad():
        model.gates[0].linear.bias.unflatten(0, (4, -1))[0].copy_(torch.randn(8))
    after = model(*given_).detach()
    assert (after[0] - before[0]).abs().max() > 1e-3
    assert torch.equal(after[1:], before[1:])


def test_the_shared_gate_reads_the_shared_path():
    """On level 2 of 3: turned off by its own stream alone, not by a task's."""
    model = by_hand.body("ple", task_experts=1, shared_experts=1, levels=[[15], [14], [13]], activation="swish")
    given_ = by_hand.inputs()
    groups = []
    hook = model.gates[1].register_forward_hook(lambda _module, inputs, out: groups.append((inputs[0], out)))
    model(*given_)
    hook.remove()
    ((unit_UNH, gate_NGE),) = groups
    for group in range(4):
        (grad,) = torch.autograd.grad(gate_NGE[:, group].square().sum(), unit_UNH, retain_graph=True)
        assert (grad.abs().sum((1, 2)) > 0).tolist() == [u == group for u in range(4)]


@pytest.mark.parametrize("name", ["cgc", "ple", "ml_mmoe", "cross_stitch", "omoe", "single_task"])
def test_a_batch_of_one_keeps_its_axes(name):
    """One request with one candidate: [T, 1, H], and the same numbers as in company."""
    model = by_hand.body(name)
    context, candidate, owner = by_hand.inputs()
    alone = model(context[:1], candidate[:1], owner[:1])
    assert alone.shape == (3, 1, model.width)
    torch.testing.assert_close(alone, model(context, candidate, owner)[:, :1])
