"""ESMM: entire-space losses by the task graph, and the faults of its relatives elsewhere."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.laws import laws
from rec import ranker
from rec.losses import task_losses
from rec.losses.task_losses import probabilities
from rec.spec import parse
from rec.spec.tasks import in_order, outputs
from tests import strategies
from tests.rec.objectives import by_hand
from tests.reference import objectives as slow

CLICKS = by_hand.labelled(click=[1, 1, 0, 0, 0, 1], buy=[1, 0, 0, 0, 0, -1])
PAIR = {"click": None, "buy": "click"}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_esmm_is_its_equations(data):
    """Any tree, any space, any pattern of labels, against a loop over candidates."""
    parents = data.draw(st.sampled_from(by_hand.TREES))
    children = [name for name, parent in parents.items() if parent]
    inner = data.draw(st.sets(st.sampled_from(children))) if children else set()
    tasks = by_hand.tasks_of(parents, parent_space=inner)
    labels, x = data.draw(by_hand.patterns(parents)), by_hand.hidden(tasks)
    model = by_hand.objective("esmm", tasks)
    actual = model.losses(x, labels)
    expected = slow.esmm(by_hand.plain(model(x)), by_hand.plain(labels), parents, inner)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        by_hand.close(actual[name], value)


def test_the_conversion_tower_learns_from_unclicked_candidates():
    """The point of the entire space: the product with P(click) is judged on them too."""
    tasks = by_hand.tasks_of(PAIR)
    x = by_hand.hidden(tasks)
    pulled = by_hand.pull(by_hand.objective("esmm", tasks).losses(x, CLICKS)["buy"], x)
    assert (pulled[1, 2:5].abs().sum(-1) > 0).all()


def test_in_the_space_of_the_parent_only_clicked_candidates_teach_it():
    """Neither the unclicked ones nor the click tower hear of a purchase; a purchase not yet known counts for nobody."""
    tasks = by_hand.tasks_of(PAIR, parent_space={"buy"})
    x = by_hand.hidden(tasks)
    pulled = by_hand.pull(by_hand.objective("esmm", tasks).losses(x, CLICKS)["buy"], x)
    assert (pulled[1, :2].abs().sum(-1) > 0).all()
    assert (pulled[1, 2:] == 0).all()
    assert (pulled[0] == 0).all()


def test_a_rare_child_of_a_rare_parent_keeps_its_gradient():
    """Both probabilities are below what float32 can hold the product of."""
    logits = {"click": torch.tensor([-60.0], requires_grad=True), "buy": torch.tensor([-60.0], requires_grad=True)}
    labels = by_hand.labelled(click=[1], buy=[1])
    loss = task_losses.total(task_losses.task_losses(logits, labels, by_hand.tasks_of(PAIR)), by_hand.tasks_of(PAIR))
    loss.backward()
    torch.testing.assert_close(logits["buy"].grad, torch.tensor([-1.0]))
    torch.testing.assert_close(logits["click"].grad, torch.tensor([-2.0]))


def test_every_task_counts_and_counts_by_its_weight():
    """The first task is not left out of the sum, and a weight is not ignored."""
    once, thrice = by_hand.tasks_of(PAIR), by_hand.tasks_of(PAIR, weight=3.0)
    x = by_hand.hidden(once)
    actual = by_hand.objective("esmm", once).losses(x, CLICKS)
    torch.testing.assert_close(task_losses.total(actual, once), actual["click"] + actual["buy"])
    torch.testing.assert_close(task_losses.total(actual, thrice), 3 * (actual["click"] + actual["buy"]))


def test_outputs_are_known_by_name_whatever_the_order_of_declaration():
    """A child declared before its parent does not change places with it, and P(buy | click) is among the outputs."""
    declared = {"buy": by_hand.tasks_of(PAIR)["buy"], "click": by_hand.tasks_of(PAIR)["click"]}
    tasks = {name: declared[name] for name in in_order(declared)}
    x = by_hand.hidden(tasks)
    model = by_hand.objective("esmm", tasks)
    served = probabilities(model(x), {"click": None, "buy": "click"})
    assert outputs(declared) == ["click", "buy", "buy|click"] == list(served)
    pulled = by_hand.pull(model.losses(x, CLICKS)["click"], x)
    assert (pulled[0].abs().sum(-1) > 0).all()
    assert (pulled[1] == 0).all()
    torch.testing.assert_close(served["buy"] / served["click"], served["buy|click"])


def test_tables_of_different_widths_go_together():
    """No width is taken from the first feature."""
    spec = parse(
        'name = "x"\n[context]\nuser = { kind = "id", dim = 12 }\nage = { kind = "number" }\n'
        '[candidates]\nitem = { kind = "id", dim = 4 }\nbrand = { kind = "id", dim = 8 }\n'
        '[tasks.click]\nlabel = "c"\n[tasks.buy]\nlabel = "b"\ngiven = "click"\n'
        '[model]\nname = "mmoe"\nexperts = 2\nexpert_widths = [9]\n'
    )
    candidates = [{"item": 1, "brand": 2, "click": 1, "buy": 1}, {"item": 2, "brand": 3, "click": 0, "buy": 0}]
    rows = [{"request_id": "r", "time": 0, "context": {"user": 1, "age": 2.0}, "candidates": candidates}]
    model = ranker.create(spec, strategies.preprocessor(spec), seed=1, device=torch.device("cpu"))
    laws.every_weight_learns(model, spec, strategies.batch(spec, rows))
