"""STEM, against its equations, and who may teach whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec import models, ranker
from rec.data.loader import tensors
from rec.errors import SpecError
from rec.modules.expert_groups import SHARED
from rec.spec import parse
from tests import strategies
from tests.rec.models import by_hand, unpacked
from tests.reference import adatt as slow

CPU = torch.device("cpu")


def inputs(copies=4, **shape):
    """Both sides of by_hand.inputs, each copy of the embeddings with noise of its own."""
    context, candidate, owner = by_hand.inputs(**shape)
    draw = torch.Generator().manual_seed(copies)
    return *(x + torch.randn(copies, *x.shape, generator=draw) for x in (context, candidate)), owner


def twin(model, contexts, candidates, owner):
    """The model by its equations."""
    owners, tasks = model.experts.owners, model.gates.rows
    groups = [*tasks, SHARED]
    rows = {u: by_hand.flat(contexts[i], candidates[i], owner) for i, u in enumerate(groups)}
    experts = [unpacked.plain(e) for e in unpacked.layers(model.experts, groups=len(groups))]
    gates = dict(zip(tasks, unpacked.firsts(model.gates.linear, len(tasks)), strict=True))
    return slow.stem(rows, list(zip(owners, experts, strict=True)), gates, shared=SHARED)


@pytest.mark.parametrize("task_experts", [1, 2, {"click": 3, "buy": 0}])
def test_stem_is_its_equations(task_experts):
    """Against a loop over tasks, candidates and experts; with gradients wanted and without."""
    model, given_ = by_hand.body("stem", expert_widths=[5, 4], task_experts=task_experts, shared_experts=2), inputs()
    expected = twin(model, *given_)
    by_hand.close(model, expected, *given_)
    np.testing.assert_allclose(model(*given_).detach(), expected, rtol=1e-4, atol=1e-6)


GOLDEN = [
    [[0.097354, 0.070469], [0.437411, 0.065018], [0.569724, 0.285612]],
    [[0.144356, 0.15202], [0.62329, 0.080676], [0.407274, 0.174038]],
]


def test_the_golden_values():
    """Weights and inputs by a formula: the network and its twin give the numbers written down here."""
    sizes = {"expert_widths": [3, 2], "task_experts": {"a": 1, "b": 2}, "shared_experts": 2}
    model = unpacked.by_formula(by_hand.body("stem", tasks={"a": None, "b": "a"}, **sizes))
    given_ = unpacked.inputs_by_formula(copies=3)
    np.testing.assert_allclose(twin(model, *given_), GOLDEN, rtol=1e-5, atol=2e-6)
    by_hand.close(model, GOLDEN, *given_)


def taught(model, given_, task):
    """How strongly a task's loss pulls at the copies of each side [T + 1], and at the output of each expert [E]."""
    contexts, candidates, owner = given_
    sides = contexts.clone().requires_grad_(), candidates.clone().requires_grad_()
    captured = []

    def keep(_module, _inputs, out):
        out.retain_grad()
        captured.append(out)

    hook = model.experts.register_forward_hook(keep)
    model(*sides, owner)[task].square().sum().backward()
    hook.remove()
    return *(side.grad.abs().sum((1, 2)) for side in sides), captured[0].grad.abs().sum((1, 2))


def check_who_teaches_whom(model, given_):
    """A task teaches its own copy and experts and the shared ones, and changes nobody else's by one bit."""
    owners, tasks = model.experts.owners, model.gates.rows
    for index, task in enumerate(tasks):
        *sides, experts = taught(model, given_, index)
        for side in sides:
            for group, pull in zip([*tasks, SHARED], side.tolist(), strict=True):
                assert (pull > 0) == (group in (task, SHARED)), f"{task} on the copy of {group}: {pull}"
        for owner, pull in zip(owners, experts.tolist(), strict=True):
            assert (pull > 0) == (owner in (task, SHARED)), f"{task} on an expert of {owner}: {pull}"


SMALL = {"expert_widths": [15, 14], "task_experts": 2, "shared_experts": 2, "activation": "swish"}


@pytest.mark.parametrize("training", [False, True])
def test_a_task_teaches_itself_and_what_is_shared(training):
    """The gradient of a's loss is exactly 0 on b's embeddings and experts, and is not on the shared ones."""
    check_who_teaches_whom(by_hand.body("stem", **SMALL).train(training), inputs())


@pytest.mark.parametrize("fault", ["shared stopped too", "nobody stopped"])
def test_a_wrong_stop_is_caught(fault):
    """Planted: a loop that stops the shared experts too, as one benchmark's does, and mixing without any stop."""
    model = by_hand.body("stem", **SMALL)
    owners = model.experts.owners
    with torch.no_grad():
        if fault == "nobody stopped":
            model.taught.fill_(1)
        else:
            model.taught[:, [owner == SHARED for owner in owners]] = 0
    with pytest.raises(AssertionError):
        check_who_teaches_whom(model, inputs())


def test_a_task_leaves_the_rows_of_the_others_alone():
    """Through the tables: after a step on a's loss, only a's and the shared columns of the rows used have moved."""
    spec = parse(
        'name = "x"\n[candidates]\nitem = { kind = "id", dim = 4 }\n[tasks.a]\nlabel = "a"\n[tasks.b]\nlabel = "b"'
    )
    spec = spec.model_copy(update={"model": {"name": "stem", **SMALL}})
    shown = [{"item": 1, "a": 1, "b": -1}, {"item": 2, "a": 0, "b": -1}]
    rows = [{"request_id": "r", "time": 0, "context": {}, "candidates": shown}]
    model = ranker.create(spec, strategies.preprocessor(spec), seed=1, device=CPU).train()
    before = model.tables()["item"].clone()
    batch = tensors(strategies.batch(spec, rows), CPU)
    model.losses(batch)["a"].backward()
    moved = (model.tables()["item"] != before).unflatten(1, (3, 4)).any(2)
    assert moved.tolist() == [[False] * 3, [True, False, True], [True, False, True], *[[False] * 3] * 3]


def test_without_embeddings_of_their_own_tasks_make_it_mmoe():
    """No task experts, and zeros for every copy but the shared one."""
    model = by_hand.body("stem", expert_widths=[5, 4], task_experts=dict.fromkeys(by_hand.TASKS, 0), shared_experts=3)
    context, candidate, owner = by_hand.inputs()
    sides = (torch.cat([torch.zeros(3, *x.shape), x.unsqueeze(0)]) for x in (context, candidate))
    mmoe = by_hand.body("mmoe", expert_widths=[5, 4], experts=3)
    with torch.no_grad():
        for mine, theirs, rows in ((model.experts.first, mmoe.experts.first, 4), (model.gates, mmoe.gates, 3)):
            captured = unpacked.firsts(getattr(mine, "linear", mine), rows)
            theirs.linear.context.copy_(torch.cat([torch.from_numpy(w.T[:, :3]) for w, _ in captured]))
            theirs.linear.candidate.copy_(torch.cat([torch.from_numpy(w.T[:, 3:]) for w, _ in captured]))
            theirs.linear.bias.copy_(torch.cat([torch.from_numpy(b) for _, b in captured]))
        mmoe.experts.rest.load_state_dict(model.experts.rest.state_dict())
    torch.testing.assert_close(model(*sides, owner), mmoe(context, candidate, owner))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_counts_of_experts_and_tasks(data):
    """One task to seven, tasks without experts, a side without columns: finite, every weight reached, as the twin."""
    tasks = {f"t{i}": None for i in range(data.draw(st.integers(1, 7)))}
    number = {task: data.draw(st.integers(0, 3)) for task in tasks}
    shape = data.draw(st.sampled_from([{}, {"context": 0}, {"candidate": 0}]))
    sizes = {"expert_widths": data.draw(st.sampled_from([[5], [5, 4]])), "shared_experts": data.draw(st.integers(1, 3))}
    model = by_hand.body("stem", tasks=tasks, task_experts=number, **sizes, **shape)
    given_ = inputs(len(tasks) + 1, **shape)
    model(*given_).sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    by_hand.close(model, twin(model, *given_), *given_)


def test_a_copy_per_task_and_a_shared_one():
    """What the tables are asked for."""
    config = models.configured({"name": "stem"})
    assert [config.copies({}), config.copies({"a": None}), config.copies(by_hand.TASKS)] == [1, 2, 4]


def test_what_cannot_be_built_is_said():
    """A task that does not exist, and nothing that is shared."""
    with pytest.raises(SpecError, match=r"model\.task_experts\.clik: no task 'clik'; did you mean 'click'"):
        by_hand.body("stem", task_experts={"clik": 2})
    with pytest.raises(SpecError, match=r"model\.shared_experts: expected greater than or equal to 1, got 0"):
        by_hand.body("stem", shared_experts=0)
