"""An objective on its own, without a model: representations drawn from a seed, labels of any pattern."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from rec import objectives
from rec.modules.heads import Heads
from rec.spec import Task
from rec.spec.tasks import in_order

CHAIN = {"click": None, "cart": "click", "buy": "cart"}
TREES = [
    {"click": None},
    {"click": None, "buy": "click"},
    CHAIN,
    {"click": None, "buy": "click", "like": "click", "gift": "buy"},
    {"click": None, "view": None, "share": "view", "buy": "click", "like": "click"},
]
WIDTH = 5


def tasks_of(parents, *, parent_space=(), weight=1.0):
    """The tasks of a tree, parents first, as a ranker hands them to an objective."""
    tasks = {
        name: Task(label=name, given=parent, weight=weight, space="parent" if name in parent_space else "all")
        for name, parent in parents.items()
    }
    return {name: tasks[name] for name in in_order(tasks)}


def objective(name, tasks, *, tower=(16, 9), rate=0.3, **settings):
    """A fresh objective, its weights drawn from a fixed seed, not training."""
    torch.manual_seed(11)
    heads = Heads(dict.fromkeys(tasks, rate), width=WIDTH, tower_widths=list(tower))
    return objectives.create({"name": name, **settings}, heads, tasks).eval()


def hidden(tasks, count=6, *, scale=2.0, seed=3):
    """Representations [T, N, H] that can be pulled at."""
    drawn = torch.randn(len(tasks), count, WIDTH, generator=torch.Generator().manual_seed(seed)) * scale
    return drawn.requires_grad_()


def labelled(**rows):
    """{task: labels [N]} as a batch holds them."""
    return {name: torch.tensor(values, dtype=torch.int8) for name, values in rows.items()}


@st.composite
def patterns(draw, parents, count=6):
    """Labels that a log could hold: anything, nothing happened, everything did, nothing known."""
    kind = draw(st.sampled_from(["any", "none", "all", "unknown"]))
    fixed = {"none": 0, "all": 1, "unknown": -1}
    out = {name: [] for name in parents}
    for _ in range(count):
        for name, parent in parents.items():
            possible = parent is None or out[parent][-1] == 1
            drawn = draw(st.sampled_from([0, 1, -1] if possible else [0, -1]))
            out[name].append(fixed.get(kind, drawn))
    return labelled(**out)


def plain(values):
    """{task: [N]} as numpy, in float64."""
    return {name: value.detach().numpy().astype(np.float64) for name, value in values.items()}


def close(actual, expected):
    """A loss is its twin."""
    np.testing.assert_allclose(actual.item(), expected, rtol=2e-4, atol=1e-6)


def pull(loss, on):
    """The gradient of a loss [T, N, H] at the representations."""
    (grad,) = torch.autograd.grad(loss, on, retain_graph=True)
    return grad
