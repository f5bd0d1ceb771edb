"""The task graph: order, outputs, and who counts for what."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rec.losses import task_losses
from rec.spec import Task
from rec.spec.tasks import given as parents_of
from rec.spec.tasks import in_order, metric_rows, outputs
from tests.reference import models as slow

TASKS = {"buy": Task(label="b", given="click"), "click": Task(label="c"), "like": Task(label="l")}
PARENTS = {"click": None, "buy": "click", "keep": "buy", "like": None}


def test_parents_come_before_children_whatever_the_order_declared():
    """And every child has a conditional output."""
    assert in_order(TASKS) == ["click", "buy", "like"]
    assert outputs(TASKS) == ["click", "buy", "buy|click", "like"]


def test_a_line_of_tasks_may_be_long():
    """A thousand tasks, each given the next: no limit of the interpreter is met."""
    tasks = {f"t{i}": Task(label="x", given=f"t{i + 1}" if i < 999 else None) for i in range(1000)}
    assert in_order(tasks) == [f"t{i}" for i in range(999, -1, -1)]


def test_a_conditional_metric_is_judged_where_the_parent_happened_only():
    """CVR over clicked candidates, CTCVR over all that are observed."""
    labels = {"click": np.int8([1, 0, 1, -1]), "buy": np.int8([1, 0, -1, 0]), "like": np.int8([0, 0, 0, 0])}
    rows = {name: mask.tolist() for name, (_, mask) in metric_rows(TASKS, labels).items()}
    assert rows["buy"] == [True, True, False, True]
    assert rows["buy|click"] == [True, False, False, False]
    assert rows["click"] == [True, True, True, False]


logit = st.floats(-30, 30)


@given(st.fixed_dictionaries(dict.fromkeys(PARENTS, logit)))
def test_the_chain_is_the_product_of_sigmoids(logits):
    """In log space and out of it, against the definition; a child is never likelier than its parent."""
    tensors = {name: torch.tensor([z], dtype=torch.float64) for name, z in logits.items()}
    log_p, p = task_losses.chain(tensors, PARENTS), task_losses.probabilities(tensors, PARENTS)
    for name, expected in slow.chain(logits, PARENTS).items():
        np.testing.assert_allclose([p[name].item(), log_p[name][0].exp().item()], expected, rtol=1e-9)
        np.testing.assert_allclose(log_p[name][0].exp() + log_p[name][1].exp(), 1.0, rtol=1e-9)
        assert PARENTS[name] is None or p[name] <= p[PARENTS[name]]


def test_the_loss_of_a_very_rare_child_is_finite_and_pushes():
    """No clipping: at log P = -90 the gradient is still there."""
    logits = {"click": torch.tensor([-50.0], requires_grad=True), "buy": torch.tensor([-40.0], requires_grad=True)}
    tasks = {"click": Task(label="c"), "buy": Task(label="b", given="click")}
    labels = {"click": torch.tensor([1], dtype=torch.int8), "buy": torch.tensor([1], dtype=torch.int8)}
    task_losses.total(task_losses.task_losses(logits, labels, tasks), tasks).backward()
    assert logits["buy"].grad.item() < -0.99


def test_the_gradient_reaches_the_child_on_unclicked_candidates_in_the_entire_space_only():
    """ESMM's point; a click-space loss leaves them alone."""
    for space, reaches in (("all", True), ("parent", False)):
        tasks = {"click": Task(label="c"), "buy": Task(label="b", given="click", space=space)}
        logits = {name: torch.zeros(2, requires_grad=True) for name in tasks}
        labels = {"click": torch.tensor([1, 0]), "buy": torch.tensor([1, 0])}
        task_losses.total(task_losses.task_losses(logits, labels, tasks), tasks).backward()
        assert bool(logits["buy"].grad[1] != 0) is reaches


def test_unobserved_labels_leave_the_loss_alone():
    """Removing the candidate or not observing it is the same."""
    tasks = {"click": Task(label="c")}
    z = torch.tensor([0.3, -1.0, 2.0])
    masked = task_losses.task_losses({"click": z}, {"click": torch.tensor([1, 0, -1])}, tasks)["click"]
    shorter = task_losses.task_losses({"click": z[:2]}, {"click": torch.tensor([1, 0])}, tasks)["click"]
    torch.testing.assert_close(masked, shorter)
    nothing = task_losses.task_losses({"click": z}, {"click": torch.tensor([-1, -1, -1])}, tasks)["click"]
    assert nothing.item() == 0.0


def test_parents_are_listed_with_their_tasks():
    """The graph as models see it."""
    assert parents_of(TASKS) == {"click": None, "buy": "click", "like": None}
