"""AdaTT in both forms, against its equations, each other, and what its official code gets wrong."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec import models
from rec.errors import SpecError
from rec.modules.expert_groups import SHARED
from tests.rec.models import by_hand, unpacked
from tests.reference import adatt as slow

UNEQUAL = {"click": 1, "buy": 3, "like": 2}


def native_of(native):
    """{group: weight of each of its own experts} of a Native."""
    weights = unpacked.array(native())
    own = unpacked.array(native.own) > 0
    return [weights[row, own[row]] for row in range(len(weights))]


def levels(model):
    """An AdaTT as the twin's levels."""
    out = []
    for index, level in enumerate(model.levels):
        gates, owners = level.gates, level.experts.owners
        groups = len(dict.fromkeys([*model.levels[0].gates.rows, *owners]))
        experts = [unpacked.plain(e) for e in unpacked.layers(level.experts, groups=groups)]
        linear = [(w, b) for _, w, b in unpacked.group_layer(gates.linear, groups)] if index else by_hand.gates(gates)
        native = None
        if level.native is not None:
            native = dict(zip(gates.rows, native_of(level.native), strict=True))
        gate = dict(zip(gates.rows, linear, strict=True))
        out.append((list(zip(owners, experts, strict=True)), gate, native))
    return out


CASES = [
    ("adatt_sp", {"levels": [[5, 4]], "task_experts": 1}),
    ("adatt_sp", {"levels": [[5], [4], [3]], "task_experts": 2}),
    ("adatt_sp", {"levels": [[5], [4]], "task_experts": UNEQUAL}),
    ("adatt_sp", {"levels": [[5], [4, 3]], "task_experts": {"click": 0, "buy": 3}}),
    ("adatt_sp", {"levels": [[5], [4]], "task_experts": 2, "native": False}),
    ("adatt", {"levels": [[5, 4]], "task_experts": 2, "shared_experts": 3}),
    ("adatt", {"levels": [[5], [4], [3]], "task_experts": 1, "shared_experts": 1}),
    ("adatt", {"levels": [[5], [4], [3]], "task_experts": UNEQUAL, "shared_experts": 2}),
    ("adatt", {"levels": [[5], [4]], "task_experts": dict.fromkeys(by_hand.TASKS, 0), "shared_experts": 2}),
    ("adatt", {"levels": [[5], [4]], "task_experts": UNEQUAL, "shared_experts": 0}),
    ("adatt", {"levels": [[5], [4]], "task_experts": 2, "shared_experts": 1, "native": False}),
]


@pytest.mark.parametrize(("name", "sizes"), CASES)
def test_adatt_is_its_equations(name, sizes):
    """Against a loop over candidates, groups and experts, as a residual sum and as gates with padded native weights."""
    model, given_ = by_hand.body(name, **sizes), by_hand.inputs()
    rows, tasks = by_hand.flat(*given_), list(by_hand.TASKS)
    by_hand.close(model, slow.adatt(rows, tasks, levels(model)), *given_)
    by_hand.close(model, slow.adatt_padded(rows, tasks, levels(model)), *given_)


GOLDEN = {
    "adatt_sp": [
        [[1.545913, 0.0], [1.455062, 1.395756], [1.730816, 3.901706]],
        [[0.612078, 0.0], [0.608249, 0.636321], [0.579898, 2.317982]],
    ],
    "adatt": [
        [[-0.548555, -0.474627], [-0.057026, 0.084749], [0.262561, -0.185173]],
        [[0.040662, 0.04531], [0.606254, 0.293957], [0.509686, 0.045451]],
    ],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_values(name):
    """Weights and inputs by a formula: the network and its twin give the numbers written down here."""
    sizes = {"levels": [[3], [2]], "task_experts": {"a": 1, "b": 2}}
    model = unpacked.by_formula(by_hand.body(name, tasks={"a": None, "b": "a"}, **sizes))
    given_ = unpacked.inputs_by_formula()
    twin = slow.adatt(by_hand.flat(*given_), ["a", "b"], levels(model))
    np.testing.assert_allclose(twin, GOLDEN[name], rtol=1e-5, atol=2e-6)
    by_hand.close(model, GOLDEN[name], *given_)


def test_a_general_adatt_without_shared_experts_is_adatt_sp():
    """The weights of one are weights of the other; where sp adds an only expert as it is, its native weight is 1."""
    special = by_hand.body("adatt_sp", levels=[[5], [4]], task_experts=UNEQUAL)
    general = by_hand.body("adatt", levels=[[5], [4]], task_experts=UNEQUAL, shared_experts=0)
    state = special.state_dict()
    for index in range(2):  # click has one expert, the first
        state[f"levels.{index}.native.weight"] = torch.cat([torch.ones(1), state[f"levels.{index}.native.weight"]])
    general.load_state_dict(state)
    given_ = by_hand.inputs()
    assert torch.equal(special(*given_), general(*given_))


@pytest.mark.parametrize("experts", [1, 2])
def test_with_equal_counts_the_two_need_no_translation(experts):
    """One expert each: both add it as it is. Several: both learn every weight."""
    special = by_hand.body("adatt_sp", levels=[[5], [4]], task_experts=experts)
    general = by_hand.body("adatt", levels=[[5], [4]], task_experts=experts, shared_experts=0)
    general.load_state_dict(special.state_dict())
    given_ = by_hand.inputs()
    assert torch.equal(special(*given_), general(*given_))


def test_even_gates_give_the_mean_of_all_experts_and_the_own_one():
    """One native expert per task, gate logits zero."""
    model = by_hand.body("adatt_sp", levels=[[5, 4]], task_experts=1)
    with torch.no_grad():
        for p in model.levels[0].gates.parameters():
            p.zero_()
    given_ = by_hand.inputs()
    captured = model.levels[0].experts(*given_)
    torch.testing.assert_close(model(*given_), captured.mean(0, keepdim=True) + captured)


def learnt(model):
    """How many native weights each level learns."""
    return [0 if level.native.weight is None else level.native.weight.numel() for level in model.levels]


def test_native_weights_are_learnt_where_they_should_be():
    """Sp: by tasks with several experts. General: by all groups unless all have one; at the last level, by tasks."""
    two = {"levels": [[5], [4]]}
    assert learnt(by_hand.body("adatt_sp", task_experts=1, **two)) == [0, 0]
    assert learnt(by_hand.body("adatt_sp", task_experts=UNEQUAL, **two)) == [5, 5]
    assert learnt(by_hand.body("adatt", task_experts=1, shared_experts=1, **two)) == [0, 0]
    assert learnt(by_hand.body("adatt", task_experts=1, shared_experts=2, **two)) == [5, 3]
    assert learnt(by_hand.body("adatt", task_experts=UNEQUAL, shared_experts=2, **two)) == [8, 6]


def test_native_weights_start_within_their_bound():
    """Uniform in +-sqrt(1/n), n the experts of the group; and not all alike."""
    torch.manual_seed(3)
    sizes = {"levels": [[2]], "task_experts": {"a": 400, "b": 4}}
    model = models.create({"name": "adatt_sp", **sizes}, context=1, candidate=1, tasks={"a": None, "b": None})
    a, b = model.levels[0].native.weight.split([400, 4])
    assert 0.045 < a.abs().max() <= 0.05
    assert b.abs().max() <= 0.5
    assert len(set(b.tolist())) == 4


def test_the_shared_unit_fuses_on_every_level_but_the_last():
    """There it only supplies experts, and no weight of it is made."""
    model = by_hand.body("adatt", levels=[[5], [4], [3]], shared_experts=2)
    tasks = list(by_hand.TASKS)
    assert [level.gates.rows for level in model.levels] == [[*tasks, SHARED], [*tasks, SHARED], tasks]
    assert all(level.experts.owners.count(SHARED) == 2 for level in model.levels)


@pytest.mark.parametrize("name", ["adatt_sp", "adatt"])
def test_every_task_teaches_every_expert(name):
    """The gradient of one task's loss reaches all experts of all levels."""
    model = by_hand.body(name, levels=[[15], [14]], task_experts=2, activation="swish")
    for task in range(3):
        captured = []

        def keep(_module, _inputs, out, captured=captured):
            out.retain_grad()
            captured.append(out)

        hooks = [level.experts.register_forward_hook(keep) for level in model.levels]
        model(*by_hand.inputs())[task].square().sum().backward()
        for hook in hooks:
            hook.remove()
        assert len(captured) == 2
        assert all(expert_NH.abs().sum() > 0 for out in captured for expert_NH in out.grad)


def test_a_callers_settings_stay_as_they_were():
    """The official code appends to the list it is given."""
    settings_ = {"name": "adatt", "levels": [[5], [4]], "task_experts": {"click": 2}, "shared_experts": 2}
    before = copy.deepcopy(settings_)
    shape = {"context": 3, "candidate": 2, "tasks": dict(by_hand.TASKS)}
    models.create(settings_, **shape)
    models.create(settings_, **shape)
    assert settings_ == before


@pytest.mark.parametrize("experts", [1, 2])
def test_nothing_is_made_on_a_device_of_its_own(experts):
    """The official code adds ones that are always on the CPU where every group has one expert."""
    sizes = {"levels": [[5], [4]], "task_experts": experts, "shared_experts": experts}
    model = by_hand.body("adatt", **sizes).to("meta")
    out = model(*(x.to("meta") for x in by_hand.inputs()))
    assert out.device.type == "meta"


@settings(max_examples=25, deadline=None)
@given(data=st.data(), name=st.sampled_from(["adatt_sp", "adatt"]))
def test_any_counts_of_experts_and_tasks(data, name):
    """One task to seven, tasks without experts, no shared ones: finite, every weight is reached, the twin agrees."""
    tasks = {f"t{i}": None for i in range(data.draw(st.integers(1, 7)))}
    number = {task: data.draw(st.integers(0, 3)) for task in tasks}
    shared = data.draw(st.integers(0, 2)) if name == "adatt" else 0
    if not sum(number.values()) + shared:
        number["t0"] = 1
    sizes = {"levels": data.draw(st.sampled_from([[[5]], [[5, 4], [3]], [[5], [4], [3]]])), "task_experts": number}
    model = by_hand.body(name, tasks=tasks, **sizes, **({"shared_experts": shared} if name == "adatt" else {}))
    given_ = by_hand.inputs()
    model(*given_).sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    by_hand.close(model, slow.adatt(by_hand.flat(*given_), list(tasks), levels(model)), *given_)


def test_what_cannot_be_built_is_said():
    """A task that does not exist, and a network without experts."""
    with pytest.raises(SpecError, match=r"model\.task_experts\.clik: no task 'clik'; did you mean 'click'"):
        by_hand.body("adatt", task_experts={"clik": 2})
    none = dict.fromkeys(by_hand.TASKS, 0)
    with pytest.raises(SpecError, match=r"model\.task_experts: expected at least one expert, got 0 for every task"):
        by_hand.body("adatt_sp", task_experts=none)
