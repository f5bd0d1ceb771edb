"""Losses weighted by count: every label pulls alike, whatever its task."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rec import spec as specs
from rec.data import preprocessor
from rec.data.loader import tensors
from rec.losses import embedding_l2, task_losses
from rec.spec import Task
from rec.spec.spec import NAME
from rec.training.step import new_fit, step
from tests.rec.training.ranks import on_ranks

TASKS = {
    "click": Task(label="c"),
    "buy": Task(label="b", given="click", space="parent", weight=3.0),
    "paid": Task(label="p", sample_weight="w"),
}
LABELS = {
    "click": torch.tensor([1, 0, 1, 0, 1, -1, 0, 0], dtype=torch.int8),
    "buy": torch.tensor([1, 0, 0, 0, -1, 0, 0, 0], dtype=torch.int8),
    "paid": torch.tensor([1, 0, -1, 0, 0, 0, 0, 0], dtype=torch.int8),
    "@weight.paid": torch.tensor([1.0, 0.0, 1.0, 2.0, 1.0, 1.0, 0.0, 1.0]),
}
COUNTS = {"click": 7, "buy": 2, "paid": 5}  # of the task's loss: observed, clicked, with a weight


def test_a_task_is_weighted_by_the_candidates_of_its_loss():
    """The sum over labels over the batch: by hand in numpy."""
    shares = task_losses.shares_by_count(TASKS, LABELS)
    assert {name: share.item() for name, share in shares.items()} == {n: k / 8 for n, k in COUNTS.items()}
    losses = {"click": torch.tensor(0.5), "buy": torch.tensor(0.25), "paid": torch.tensor(1.0)}
    losses |= {"buy (ips)": torch.tensor(0.125), embedding_l2.NAME: torch.tensor(0.0625)}
    expected = 7 / 8 * 0.5 + 3 * 2 / 8 * 0.25 + 5 / 8 * 1.0 + 2 / 8 * 0.125 + 0.0625
    assert task_losses.total(losses, TASKS, shares).item() == pytest.approx(expected)
    assert task_losses.total(losses, TASKS).item() == pytest.approx(0.5 + 0.75 + 1.0 + 0.125 + 0.0625)


def test_a_penalty_is_of_no_task_whatever_tasks_are_called():
    """What stands before the brackets tells the task of a loss, and is no name that a task may have."""
    word = embedding_l2.NAME.split(" (")[0]
    assert not NAME.match(word)
    losses = {"tables": torch.tensor(1.0), embedding_l2.NAME: torch.tensor(1.0)}
    assert task_losses.total(losses, {"tables": Task(label="t")}, {"tables": torch.tensor(0.25)}).item() == 1.25


def shares_on_ranks(folder):
    """A rank has the first 3 candidates, the other the rest."""
    mine = slice(0, 3) if torch.distributed.get_rank() == 0 else slice(3, 8)
    shares = task_losses.shares_by_count(TASKS, {name: value[mine] for name, value in LABELS.items()})
    torch.save({name: share.item() for name, share in shares.items()}, f"{folder}/{mine.start}")


def test_shares_are_of_the_batch_of_all_ranks(tmp_path):
    """However its candidates are divided."""
    on_ranks(2, shares_on_ranks, str(tmp_path))
    for start in (0, 3):
        assert torch.load(tmp_path / str(start)) == {name: count / 8 for name, count in COUNTS.items()}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_by_count_is_one_by_weights_of_the_same_ratio(spec, data, batch, accumulate):
    """Labels of buy are taken away but for a few: count is equal with tasks.buy.weight = that share; losses stay."""
    few = np.where(np.arange(len(batch)) < 20, batch.labels["buy"], -1)
    labels = {**batch.labels, "buy": few.astype(np.int8)}
    share = (few >= 0).sum() / len(batch)
    parent = (labels["click"] >= 0).sum() / len(batch)
    assert parent == 1
    weights, losses = [], []
    for overrides in (["train.task_weighting=count"], [f"tasks.buy.weight={share}"]):
        described = specs.parse(specs.dump(spec), overrides=[f"train.accumulate={accumulate}", *overrides])
        fit = new_fit(described, preprocessor.load(described, data / "fitted"))
        fit.ranker.train()
        few_bought = type(batch)(batch.size, batch.context, batch.candidates, batch.owner, labels)
        losses.append(step(fit, described, tensors(few_bought, fit.device)))
        weights.append({**fit.ranker.tables(), **fit.ranker.dense()})
    if accumulate == 1:  # parts have other shares each, whose sum is the batch's
        for name, value in weights[0].items():
            torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-6)
    assert {name: loss.item() for name, loss in losses[0].items()} == pytest.approx(
        {name: loss.item() for name, loss in losses[1].items()}
    )
