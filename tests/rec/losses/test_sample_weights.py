"""Sample weights in losses: a candidate of weight 2 is two candidates, one of weight 0 is none, in every objective."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.transforms import sample_weights
from rec import objectives, ranker
from rec.data import label_bins, sketch
from rec.errors import SpecError
from rec.losses.list_losses import list_losses
from rec.losses.reduction import mean
from rec.losses.regression import RegressionHeads
from rec.losses.task_losses import total
from rec.spec import Task, dump, parse
from rec.spec.tasks import weight_column
from tests import strategies
from tests.rec.objectives import by_hand

NAMES = list(objectives.names())
COUNT = 6
SPEC = """
name = "x"
[candidates]
item = { kind = "id" }
[tasks.click]
label = "c"
sample_weight = "w"
"""


def labelled(tasks, labels, weight_N):
    """Labels with the same weights for all tasks, as a batch holds them."""
    return labels | {weight_column(name): weight_N for name in tasks}


def repeated(values, times):
    """Every candidate as many times as its weight says."""
    return {name: value.repeat_interleave(times) for name, value in values.items()}


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25)
@given(data=st.data(), share=st.sampled_from([1.0, 0.1]), scale=st.sampled_from([1.0, 1e-6, 1e6]))
def test_a_weight_of_two_is_the_candidate_twice(name, data, share, scale):
    """Weights 0 to 3, on any scale: the losses and their gradients are those of candidates repeated so many times."""
    tasks = by_hand.tasks_of(by_hand.CHAIN, weight=2.0)
    tasks = {task: of.model_copy(update={"negatives": share}) for task, of in tasks.items()}
    labels = data.draw(by_hand.patterns(by_hand.CHAIN, COUNT))
    times = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=COUNT, max_size=COUNT)))
    model, hidden = by_hand.objective(name, tasks), by_hand.hidden(tasks, COUNT)
    weighted = model.losses(hidden, labelled(tasks, labels, times.float() * scale))
    many = model.losses(hidden.repeat_interleave(times, 1), repeated(labels, times))
    assert list(weighted) == list(many)
    for task, loss in many.items():
        torch.testing.assert_close(weighted[task], loss, rtol=2e-5, atol=1e-6)
    gradients = [torch.autograd.grad(total(losses, tasks), hidden)[0] for losses in (weighted, many)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_equal_weights_change_nothing(name):
    """Weights of 1, and of any other number, are as good as none; NaN in a candidate of weight 0 stays there."""
    tasks = by_hand.tasks_of(by_hand.CHAIN)
    labels = by_hand.labelled(click=[1, 0, 1, 0, 1, -1], cart=[1, 0, 0, 0, 1, -1], buy=[0, 0, 0, 0, 1, -1])
    model, hidden = by_hand.objective(name, tasks), by_hand.hidden(tasks, COUNT)
    without = model.losses(hidden, labels)
    for weight in (1.0, 0.01, 1e9):
        weighted = model.losses(hidden, labelled(tasks, labels, torch.full((COUNT,), weight)))
        for task, loss in without.items():
            torch.testing.assert_close(weighted[task], loss, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_of_a_task_are_its_own(name):
    """Weights of `buy` change no loss of `click`."""
    tasks = by_hand.tasks_of({"click": None, "buy": "click"})
    labels = by_hand.labelled(click=[1, 0, 1, 0, 1, 1], buy=[1, 0, 0, 0, 1, 0])
    model, hidden = by_hand.objective(name, tasks), by_hand.hidden(tasks, COUNT)
    weight_N = torch.tensor([3.0, 1.0, 0.5, 0.0, 1.0, 2.0])
    without, weighted = model.losses(hidden, labels), model.losses(hidden, labels | {"@weight.buy": weight_N})
    assert torch.equal(without["click"], weighted["click"])
    assert not torch.equal(without["buy"], weighted["buy"])


@settings(deadline=None, max_examples=30)
@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_losses_over_requests_see_a_candidate_as_often_as_it_weighs(data, sizes):
    """Listwise and pairwise: as a positive, and among the others of its request."""
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    tasks = by_hand.tasks_of(by_hand.CHAIN, parent_space={"buy"}, weight=2.0)
    labels = data.draw(by_hand.patterns(by_hand.CHAIN, len(owner)))
    times = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=len(owner), max_size=len(owner))))
    drawn = torch.Generator().manual_seed(len(owner))
    logits = {name: torch.randn(len(owner), generator=drawn) * 3 for name in tasks}
    pair = (0.5, 0.25)
    weighted = list_losses(logits, labelled(tasks, labels, times.float()), tasks, owner_N=owner, weights=pair)
    order = owner.repeat_interleave(times)
    many = list_losses(repeated(logits, times), repeated(labels, times), tasks, owner_N=order, weights=pair)
    for task, loss in many.items():
        torch.testing.assert_close(weighted[task], loss, rtol=1e-4, atol=1e-6)


def test_a_weighted_mean_without_a_weight_is_zero():
    """No candidate counts: 0, and no NaN; an infinite value of weight 0 is not looked at."""
    ones, value_N = torch.ones(2), torch.tensor([float("inf"), 2.0])
    assert mean(ones, value_N, sample_N=torch.zeros(2)) == 0
    assert mean(ones, value_N, sample_N=torch.tensor([0.0, 1e-30])) == 2


def test_an_objective_that_does_not_know_them_is_refused(monkeypatch):
    """An objective of another package that says nothing of weights would leave them out without a word."""
    from rec.objectives import esmm

    monkeypatch.setattr(esmm.Objective, "sample_weights", False)
    message = "tasks.click.sample_weight: objective 'esmm' has no place for sample weights"
    with pytest.raises(SpecError, match=message):
        ranker.validate(parse(SPEC))


@pytest.mark.parametrize("predict", ["log", "ordinal", "quantile"])
@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(0, 60), st.booleans(), st.integers(0, 3)), min_size=4, max_size=8))
def test_a_regression_of_weight_two_is_the_candidate_twice(predict, rows):
    """Where its parent happened and its label is observed."""
    tasks = {"click": Task(label="c"), "stay": Task(label="y", predict=predict, given="click")}
    amounts, clicks, weights = zip(*rows, strict=True)
    target = label_bins.fit(tasks["stay"], sketch.of(np.array([0.0, 1.0, 2.0, 8.0, 21.0, 60.0])))
    heads = RegressionHeads(tasks, {"stay": target}, width=2, tower_widths=[])
    times, z = torch.tensor(weights), torch.linspace(-1, 1, len(rows))
    labels = {"click": torch.tensor(clicks, dtype=torch.int8), "stay": torch.tensor(amounts)}
    labels["stay"][0] = float("nan")
    weighted = heads.losses({"stay": z}, labels | {weight_column("stay"): times.float() * 1e-3})
    many = heads.losses({"stay": z.repeat_interleave(times)}, repeated(labels, times))
    torch.testing.assert_close(weighted, many, rtol=1e-4, atol=1e-6)


def test_a_weight_may_be_said_once_for_all_tasks():
    """A task's own is its own, `1` is none; regressions have it as well."""
    text = (
        SPEC.replace('sample_weight = "w"', "")
        + """
    [tasks.buy]
    label = "b"
    sample_weight = "1"
    [tasks.stay]
    label = "s"
    predict = "log"
    [train]
    sample_weight = "w"
    """
    )
    spec = parse(text)
    assert {name: task.sample_weight for name, task in spec.tasks.items()} == {"click": "w", "buy": "1", "stay": "w"}
    assert parse(dump(spec)) == spec
    rows, ones = pl.DataFrame({"w": [0.5, 2.0]}), np.ones(2, np.int8)
    read = sample_weights.read(spec, rows, {"click": ones, "buy": ones, "stay": np.array([3.0, np.nan], np.float32)})
    assert {name: weight.tolist() for name, weight in read.items()} == {
        "@weight.click": [0.5, 2.0], "@weight.buy": [1.0, 1.0], "@weight.stay": [0.5, 0.0],
    }  # fmt: skip


def test_the_weights_come_with_the_labels():
    """A batch has them as float32; rows to be scored have neither."""
    spec = parse(SPEC)
    shown = [{"item": 1, "click": 1, "@weight.click": 2.5}, {"item": 2, "click": 0, "@weight.click": 0.0}]
    batch = strategies.batch(spec, [{"request_id": "r", "time": 0, "context": {}, "candidates": shown}])
    assert batch.labels["@weight.click"].tolist() == [2.5, 0.0]
    assert list(batch.candidates) == ["item"]
