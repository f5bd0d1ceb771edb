"""The laws of the model contract, as functions that raise AssertionError when a model breaks one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from rec.data.loader import tensors
from rec.losses import task_losses
from rec.modules.experts import ExpertNorm
from rec.spec.tasks import conditional, events, given, quantities

CPU = torch.device("cpu")


def logits(model, batch):
    """{task: logit [N]} of a numpy batch, as numpy."""
    with torch.no_grad():
        return {name: value.numpy() for name, value in model(tensors(batch, CPU)).items()}


def one_finite_logit_per_candidate_and_task(model, spec, batch):
    """Every task of the spec, nothing else, N numbers each: a logit of an event, a z of a quantity."""
    actual = logits(model, batch)
    assert set(actual) == set(spec.tasks)
    for value in actual.values():
        assert value.shape == (len(batch),)
        assert np.isfinite(value).all()


def a_child_is_never_likelier_than_its_parent(actual, parents):
    """On served probabilities; `parents` are those of events."""
    for name, parent in parents.items():
        if parent is not None:
            assert (actual[name] <= actual[parent]).all(), f"{name} is likelier than {parent}"


def an_amount_is_what_its_parent_lets_through(actual, spec):
    """0 or more; in all no more than where the parent happened, by exactly the chance of the parent."""
    for name, task in quantities(spec.tasks).items():
        assert (actual[name] >= 0).all(), f"{name} is below 0"
        if task.given is not None:
            alone = actual[conditional(name, task.given)]
            np.testing.assert_array_equal(actual[name], actual[task.given] * alone)


def a_request_scores_the_same_alone(model, batch):
    """Neighbours in the batch do not change a score."""
    together = {name: batch.split(value) for name, value in logits(model, batch).items()}
    for index in range(batch.size):
        alone = batch.request(index)
        if len(alone):
            for name, value in logits(model, alone).items():
                np.testing.assert_allclose(value, together[name][index], rtol=1e-4, atol=1e-5)


def candidate_order_does_not_matter(model, batch):
    """Reversing the candidates inside every request reverses their scores."""
    back = np.concatenate([part[::-1] for part in batch.split(np.arange(len(batch)))]) if len(batch) else np.arange(0)
    reversed_ = type(batch)(batch.size, batch.context, {n: v[back] for n, v in batch.candidates.items()}, batch.owner)
    plain, turned = logits(model, batch), logits(model, reversed_)
    for name, value in plain.items():
        np.testing.assert_allclose(turned[name], value[back], rtol=1e-4, atol=1e-5)


def every_weight_learns(model, spec, batch):
    """After one backward pass no dense weight is without a gradient, and no table it used stays as it was.

    Every label counts as observed here, so that every candidate pulls. Normalisation is by its running statistics: over
    a batch of one row and its copies, batch statistics let no gradient through.
    """
    labels = {name: np.maximum(np.nan_to_num(label), 0) for name, label in batch.labels.items()}
    batch = replace(batch, labels=labels)
    before = {name: value.clone() for name, value in model.tables().items()}
    moved = tensors(batch, CPU)
    model.train()
    for part in model.modules():
        if isinstance(part, ExpertNorm):
            part.eval()
    task_losses.total(model.losses(moved), spec.tasks).backward()
    dead = [name for name, p in model.dense().items() if p.grad is None]
    assert not dead, f"no gradient reaches {', '.join(dead)}"
    still = [
        name for name, value in model.tables().items() if used(spec, batch, name) and torch.equal(value, before[name])
    ]
    assert not still, f"the tables {', '.join(still)} did not move"


def used(spec, batch, table):
    """Whether a candidate's score depends on a known row of the table."""
    owners = np.unique(batch.owner)
    for side, features in spec.sides():
        for name in features:
            values = (batch.context if side == "context" else batch.candidates).get(name)
            if values is None or values.dtype != np.int64 or spec.table_of(side, name) != table:
                continue
            if (values[owners] if side == "context" else values).any():
                return True
    return False


def parents_of(spec):
    """The task graph of a spec."""
    return given(spec.tasks)


def event_parents_of(spec):
    """The task graph of a spec's events."""
    return given(events(spec.tasks))
