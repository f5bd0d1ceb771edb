"""HoME, against its equations and the nets it becomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec import models
from rec.models.home import FeatureGates, SelfGates
from rec.modules.expert_groups import SHARED, group
from rec.modules.gates import Gates
from tests.rec.models import by_hand, home_parts, unpacked
from tests.rec.models.home_parts import GROUPS, TASKS, seen
from tests.reference import home as slow

CASES = [
    {},
    {"mask": False},
    {"feature_gates": 0},
    {"feature_gates": 3, "rank": 1},
    {"self_gates": False},
    {"normalise": False},
    {"meta_experts": 1, "shared_experts": 1, "group_experts": 1, "task_experts": 1},
    {"meta_experts": 3, "shared_experts": 0, "group_experts": 0, "task_experts": 2},
    {"shared_experts": 3, "task_experts": {"click": 3, "like": 0, "buy": 1}},
    {"shared_experts": 0, "group_experts": 3, "task_experts": dict.fromkeys(TASKS, 0)},
    {"groups": {"social": ["share", "like"], "rest": ["buy"], "seen": ["click"]}},
    {"groups": {"all": ["share", "like", "buy", "click"]}},
    {"groups": {name: [name] for name in TASKS}, "group_experts": 3},
]


@pytest.mark.parametrize("sizes", CASES)
def test_home_is_its_equations(sizes):
    """Against a loop over candidates, sets, experts and gates."""
    model, given_ = home_parts.body(**sizes), by_hand.inputs()
    groups = sizes.get("groups", GROUPS)
    by_hand.close(model, home_parts.expected(model, given_, groups, mask=sizes.get("mask", True)), *given_)


GOLDEN = [
    [[0.090011, -0.027553], [0.130447, -0.06265], [0.044762, -0.133429]],
    [[0.101594, 0.304903], [0.03196, 0.420993], [0.014548, 0.19107]],
    [[0.594808, -0.007686], [0.49002, 0.068126], [0.4692, 0.062973]],
]


def test_the_golden_values():
    """Weights, statistics and inputs by a formula: the network and its twin give the numbers written down here."""
    sizes = {"levels": [[3], [2]], "meta_experts": 1, "task_experts": {"a": 1}, "group_experts": 1, "rank": 2}
    tasks, groups = {"a": None, "b": "a", "c": None}, {"x": ["a", "c"], "y": ["b"]}
    model = unpacked.by_formula(home_parts.body(tasks=tasks, **sizes, groups=groups))
    given_ = unpacked.inputs_by_formula()
    np.testing.assert_allclose(home_parts.expected(model, given_, groups, tasks=tasks), GOLDEN, rtol=1e-5, atol=2e-6)
    by_hand.close(model, GOLDEN, *given_)


def fresh(**settings_):
    """A small HoME as training finds it."""
    torch.manual_seed(2)
    settings_ = {"name": "home", **home_parts.SIZES, **settings_}
    return models.create(settings_, context=3, candidate=2, tasks=TASKS)


@pytest.mark.parametrize("factors", [1, 2, 3, 7])
def test_a_feature_gate_begins_as_exactly_one(factors):
    """Whatever its other weights and its input are: to the last bit."""
    gates = FeatureGates(3, 5, factors=factors, rank=2)
    x = torch.randn(3, 11, 5)
    assert torch.equal(gates(torch.randn(3, 11, gates.low) * 9, x), x)


def test_feature_gates_lie_between_zero_and_two():
    """And reach both ends."""
    gates = FeatureGates(1, 4, factors=2, rank=32)
    with torch.no_grad():
        gates.up.normal_(std=100)
    scale = gates(torch.randn(1, 50, gates.low), torch.ones(1, 50, 4))
    assert -1e-6 < scale.min() < 0.01
    assert 1.99 < scale.max() < 2 + 1e-6


def test_the_first_step_moves_a_zero_factor_and_gives_the_other_a_gradient_of_zero():
    """A is zero at first, so B is not learnt before A is; but no weight is left without a gradient."""
    model = fresh().train()
    model(*by_hand.inputs()).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    first = model.levels[0].experts.first
    assert first.context.up.grad.abs().sum() > 0
    assert first.candidate.up.grad.abs().sum() > 0
    assert not first.low_context.weight.grad.any()
    assert not model.levels[1].experts.first.low.grad.any()


def test_a_gate_sees_its_own_set_and_those_above_it():
    """Groups: shared and own. All tasks together: everything. A task: shared, its group's, its own."""
    model = home_parts.body()
    social, shop = group("social"), group("shop")
    everything = {social, shop, SHARED}
    assert seen(model.levels[0]) == {social: {social, SHARED}, shop: {shop, SHARED}, SHARED: everything}
    home = {"click": shop, "like": social, "buy": shop, "share": social}
    assert seen(model.levels[1]) == {task: {SHARED, home[task], task} for task in TASKS}
    assert not any(level.gates.masked for level in home_parts.body(mask=False).levels)


@pytest.mark.parametrize("mask", [True, False])
def test_masked_gates_are_exactly_zero_outside_and_sum_to_one(mask):
    """On both levels; and without the mask no weight is zero."""
    model, captured = home_parts.body(mask=mask), []
    hooks = [
        part.register_forward_hook(lambda part, _, out: captured.append((part, out)))
        for part in model.modules()
        if isinstance(part, Gates)
    ]
    model(*by_hand.inputs())
    assert len(hooks) == len(captured) == 2
    for part, gate_NGE in captured:
        torch.testing.assert_close(gate_NGE.sum(2), torch.ones(gate_NGE.shape[:2]))
        hidden = part.hidden.expand_as(gate_NGE)
        assert (gate_NGE[hidden] == 0).all()
        assert (gate_NGE[~hidden] > 0).all()
        assert bool(hidden.any()) == mask


def test_self_gates_are_a_sigmoid_for_one_expert_and_a_softmax_for_more():
    """And exactly zero for the experts of others, and for a row that has none."""
    owners = ["a", "b", "b", SHARED]
    gates = SelfGates(torch.nn.Identity(), ["a", "b", "c"], owners)
    logit_NK = torch.randn(6, 3)
    share_NGE = gates(logit_NK)
    expected = torch.zeros(6, 3, 4)
    expected[:, 0, 0] = logit_NK[:, 0].sigmoid()
    expected[:, 1, 1:3] = logit_NK[:, 1:].softmax(1)
    torch.testing.assert_close(share_NGE, expected)
    assert torch.equal(share_NGE == 0, expected == 0)


def test_a_sets_own_experts_learn_where_its_gate_ignores_them():
    """What self gates are for: gates that give everything to shared experts leave the others untaught without them."""
    pulls = {}
    for self_gates in (True, False):
        model = home_parts.body(self_gates=self_gates)
        owners = model.levels[1].experts.owners
        with torch.no_grad():
            model.levels[1].gates.hidden |= torch.tensor([owner != SHARED for owner in owners])
        captured = []
        model.levels[1].experts.register_forward_hook(lambda _m, _i, out, captured=captured: captured.append(out))
        hidden_TNH = model(*by_hand.inputs())
        pull = torch.autograd.grad(hidden_TNH.sum(), captured)[0].abs().sum((1, 2))
        pulls[self_gates] = [p > 0 for p in pull.tolist()]
    assert pulls[True] == [owner in TASKS or owner == SHARED for owner in owners]
    assert pulls[False] == [owner == SHARED for owner in owners]


def test_groups_have_no_order():
    """The other order of groups, with the weights moved along, gives the same representations."""
    plain = {"normalise": False, "feature_gates": 1}
    model, back = home_parts.body(**plain), home_parts.body(**plain, groups=dict(reversed(GROUPS.items())))
    units, meta, sets = [1, 0, 2], [2, 3, 0, 1, 4, 5], [0, 1, 2, 3, 5, 4, 6]
    ranking = [*range(8), 10, 11, 8, 9, 12, 13]  # eight task experts stay where they are
    state = model.state_dict()
    for name, weight in state.items():
        level, brick, *_ = name.removeprefix("levels.").split(".")
        if name.endswith(".up"):
            state[name] = weight[:, sets if level == "1" else units]
        elif level == "0" and brick == "experts":
            state[name] = _in_order(weight, meta if ".rest." in name else units)
        elif level == "1" and brick == "experts":
            state[name] = weight if ".rest." in name else _in_order(weight, sets)
        elif level == "0":
            rows = units if brick == "gates" else [0]
            state[name] = weight.unflatten(0, (len(rows), 6))[rows][:, meta].flatten(0, 1)
        elif ".group." in name:  # two tasks in either group; a gate's logits for 14 experts each
            state[name] = _in_order(weight, [1, 0])
            if brick == "gates":
                state[name] = state[name][..., ranking]
        elif brick == "gates":
            state[name] = weight.unflatten(0, (4, 14))[:, ranking].flatten(0, 1)
    back.load_state_dict(state)
    given_ = by_hand.inputs()
    torch.testing.assert_close(back(*given_), model(*given_))


def _in_order(weight, order):
    """A weight cut into as many parts as there are places, in another order."""
    parts = weight.chunk(len(order))
    return torch.cat([parts[i] for i in order])


def test_with_one_task_and_without_c_and_d_it_is_a_ple_of_two_levels():
    """A group of one task is that task: its stream and a shared one, whose gates see own and shared, or everything.

    What is left of HoME is that the last gate reads both streams; PLE's reads the task's own.
    """
    off = {"feature_gates": 0, "self_gates": False, "activation": "relu", "normalise": False}
    model = home_parts.body(tasks={"a": None}, groups={"g": ["a"]}, **off)
    with torch.no_grad():
        model.levels[1].gates.linear.shared.weight.zero_()
    levels = [home_parts.meta(model, {"g": ["a"]}), home_parts.ranking(model, {"g": ["a"]}, ["a"])]
    called = {"g": "a", slow.SHARED: SHARED}
    as_ple = [
        (
            [(called.get(owner, owner), unpacked.plain(expert)) for owner, expert in level["experts"]],
            {called.get(row, row): (weight[:width], bias) for row, (weight, bias) in level["gates"].items()},
        )
        for level, width in zip(levels, (5, 4), strict=True)
    ]
    given_ = by_hand.inputs()
    by_hand.close(model, slow.progressive(by_hand.flat(*given_), ["a"], as_ple, shared=SHARED), *given_)


def test_several_tasks_of_one_group_share_the_stream_they_read():
    """With (c) and (d) off and no group experts, level 2 is CGC in which all tasks read z_g, and gates z_sh too."""
    groups = {"g": list(TASKS)}
    model = home_parts.body(groups=groups, feature_gates=0, self_gates=False, group_experts=0)
    assert seen(model.levels[1]) == {task: {task, SHARED} for task in TASKS}
    assert model.levels[1].experts.first.reads.tolist() == [0, 0, 0, 0, 1]


def test_a_group_of_one_task_has_no_experts_of_its_own_on_level_two():
    """They would be the task's."""
    model = home_parts.body(groups={"one": ["like"], "rest": ["click", "buy", "share"]})
    assert group("one") in model.levels[0].experts.owners
    assert set(model.levels[1].experts.owners) == {*TASKS, group("rest"), SHARED}


def test_scores_do_not_depend_on_what_is_scored_beside():
    """Batch normalisation goes by its running statistics once training is over, and leaves them alone."""
    model = home_parts.body()
    context, candidate, owner = by_hand.inputs()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    together = model(context, candidate, owner)
    torch.testing.assert_close(model(context, candidate[1:2], owner[1:2]), together[:, 1:2])
    assert torch.equal(model(context, candidate, owner), together)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    assert not torch.allclose(model.train()(context, candidate, owner), together)


def test_the_context_is_gated_once_per_request():
    """Its feature gate sees as many rows as there are requests."""
    model, rows = home_parts.body(), {}
    first = model.levels[0].experts.first
    for name in ("context", "candidate"):
        part = getattr(first, name)
        part.register_forward_hook(lambda _m, _i, out, name=name: rows.update({name: out.shape[1]}))
    model(*by_hand.inputs(owner=(0, 1, 1, 1, 0, 1)))
    assert rows == {"context": 2, "candidate": 6}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_groups_and_counts(data):
    """One task to seven in groups at random, sets of any size, a side without columns: as the twin, all alive."""
    tasks = {f"t{i}": None for i in range(data.draw(st.integers(1, 7)))}
    home = {task: data.draw(st.integers(0, 2)) for task in data.draw(st.permutations(list(tasks)))}
    groups = {
        f"g{g}": [t for t in home if home[t] == g] for g in data.draw(st.permutations(sorted(set(home.values()))))
    }
    shared = data.draw(st.integers(0, 2))
    shape = data.draw(st.sampled_from([{}, {"context": 0}, {"candidate": 0}, {"context": 0, "candidate": 0}]))
    sizes = {
        "meta_experts": data.draw(st.integers(1, 3)),
        "shared_experts": shared,
        "group_experts": data.draw(st.integers(0, 2)),
        "task_experts": {task: data.draw(st.integers(0 if shared else 1, 3)) for task in tasks},
        "feature_gates": data.draw(st.sampled_from([0, 1, 2])) if shape != {"context": 0, "candidate": 0} else 0,
        "self_gates": data.draw(st.booleans()),
        "mask": data.draw(st.booleans()),
    }
    model = home_parts.body(tasks=tasks, groups=groups, **sizes, **shape)
    given_ = by_hand.inputs(**shape)
    hidden_TNH = model(*given_)
    hidden_TNH.sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    if shape != {"context": 0, "candidate": 0}:
        by_hand.close(model, home_parts.expected(model, given_, groups, tasks=tasks, mask=sizes["mask"]), *given_)
