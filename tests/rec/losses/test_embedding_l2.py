"""An L2 penalty on rows that are looked up: it acts, as a dense twin in numpy says, with every optimizer of tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rec import spec as specs
from rec.data import preprocessor
from rec.data.loader import tensors
from rec.errors import SpecError
from rec.losses import embedding_l2
from rec.training.step import new_fit, step

LR, L2 = 0.1, 0.7


def after(spec, data, batch, *overrides):
    """Every table before a step and after it, as numpy arrays, and the losses of the step."""
    described = specs.parse(specs.dump(spec), overrides=[f"train.table_lr={LR}", *overrides])
    fit = new_fit(described, preprocessor.load(described, data / "fitted"))
    fit.ranker.train()
    with torch.no_grad():
        for table in fit.ranker.tables().values():
            table.mul_(30)  # a row is not next to nothing
    before = {name: table.numpy().copy() for name, table in fit.ranker.tables().items()}
    losses = step(fit, described, tensors(batch, fit.device))
    return before, {name: table.numpy().copy() for name, table in fit.ranker.tables().items()}, losses


def lookups(batch):
    """{table: (ids, how many)} of every use of a table in the tiny shop; padding of lists is no lookup."""
    clicked = batch.context["clicked"]
    return {
        "user_id": [batch.context["user_id"]],
        "city": [batch.context["city"]],
        "hour": [batch.context["hour"]],
        "item_id": [batch.candidates["item_id"], clicked[clicked != 0]],
    }


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rowwise_adagrad"])
def test_a_step_is_that_of_the_dense_twin(spec, data, batch, optimizer):
    """Gradients of the data from a step of SGD without the penalty, and the update rule in numpy over whole tables."""
    before, without, plain = after(spec, data, batch, "train.table_optimizer=sgd")
    _, tables, losses = after(spec, data, batch, f"train.table_optimizer={optimizer}", f"train.table_l2={L2}")
    penalty = 0.0
    for name, uses in lookups(batch).items():
        gradient = (before[name] - without[name]).astype(float) / LR
        for ids in uses:
            share_R = np.bincount(ids, minlength=len(before[name])) / len(ids)
            gradient += L2 * share_R[:, None] * before[name]
            penalty += L2 / 2 * (share_R * (before[name].astype(float) ** 2).sum(1)).sum()
        square = gradient**2
        scale = {
            "sgd": 1.0,
            "adagrad": np.sqrt(square) + 1e-8,
            "rowwise_adagrad": np.sqrt(square.mean(1, keepdims=True)) + 1e-8,
        }[optimizer]
        # Adagrad's first step is its rate whatever the gradient: one that is rounding alone has no direction
        known = np.abs(gradient) > 1e-4 if optimizer == "adagrad" else np.ones_like(gradient, bool)
        np.testing.assert_allclose(
            tables[name][known],
            (before[name] - LR * gradient / scale)[known],
            atol=1e-6 if optimizer == "sgd" else 2e-3,
        )
        assert not np.allclose(tables[name], without[name], atol=1e-4)
    assert losses[embedding_l2.NAME].item() == pytest.approx(penalty, rel=1e-4)
    for name, loss in plain.items():
        assert losses[name].item() == pytest.approx(loss.item(), rel=1e-5)
    assert embedding_l2.NAME not in plain


def test_one_feature_alone_is_penalised_and_rows_that_nobody_looks_up_stay(spec, data, batch):
    """`l2` of a feature, whatever train.table_l2 says of the others; none at all is 0 everywhere."""
    before, tables, _ = after(spec, data, batch, "train.table_optimizer=sgd", f"candidates.item_id.l2={L2}")
    _, without, _ = after(spec, data, batch, "train.table_optimizer=sgd")
    for name in ("user_id", "city", "hour"):
        np.testing.assert_array_equal(tables[name], without[name])
    looked_up = np.isin(np.arange(len(before["item_id"])), batch.candidates["item_id"])
    assert not np.allclose(tables["item_id"][looked_up], without["item_id"][looked_up], atol=1e-4)
    np.testing.assert_array_equal(tables["item_id"][~looked_up], without["item_id"][~looked_up])
    others = specs.parse(specs.dump(spec), overrides=["train.table_l2=0.5", "candidates.item_id.l2=0"])
    assert set(embedding_l2.of(others)) == {("context", name) for name in ("user_id", "city", "hour", "clicked")}
    assert not embedding_l2.of(spec)


def test_parts_of_a_batch_add_up(spec, data, batch):
    """With `accumulate` the penalty is the mean of the parts', and copies of embeddings (STEM) are one row."""
    _, _, losses = after(spec, data, batch, f"candidates.item_id.l2={L2}")
    _, _, parts = after(spec, data, batch, f"candidates.item_id.l2={L2}", "train.accumulate=3")
    assert parts[embedding_l2.NAME].item() == pytest.approx(losses[embedding_l2.NAME].item(), rel=1e-4)
    stem = 'model={ name = "stem", expert_widths = [8], shared_experts = 2, tower_widths = [4] }'
    before, _, losses = after(spec, data, batch, f"candidates.item_id.l2={L2}", stem)
    expected = L2 / 2 * (before["item_id"][batch.candidates["item_id"]].astype(float) ** 2).sum(1).mean()
    assert losses[embedding_l2.NAME].item() == pytest.approx(expected, rel=1e-4)


def test_a_number_without_rows_is_refused(spec):
    """There is nothing to penalise."""
    with pytest.raises(SpecError, match=r"context\.age\.l2: only for scale = 'quantile', whose buckets have rows"):
        specs.parse(specs.dump(spec), overrides=["context.age.l2=0.1"])
    specs.parse(specs.dump(spec), overrides=["context.age.l2=0.1", "context.age.scale=quantile"])
