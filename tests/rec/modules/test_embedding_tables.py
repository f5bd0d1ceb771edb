"""The fused tables against a row-wise Adagrad written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rec import ranker
from rec.modules.embedding_tables import TableOptimizer
from rec.modules.fused_tables import FusedTables
from rec.modules.layout import EmbeddingTable
from rec.spec import parse
from tests import strategies

CPU = torch.device("cpu")


def tables(lr=0.1):
    """Two tables, one of which two keys share."""
    torch.manual_seed(3)
    rows = {"a": EmbeddingTable("a", 6, 4), "b": EmbeddingTable("b", 5, 8)}
    return FusedTables(
        rows, {"context": [("x", "a"), ("y", "b"), ("z", "a")]}, optimizer=TableOptimizer(lr=lr), device=CPU
    )


def test_columns_come_in_the_order_of_the_keys():
    """Also when two keys share a table, which the collection keeps side by side."""
    held = tables()
    ids = [torch.tensor([1, 2, 0]), torch.tensor([4, 4, 1]), torch.tensor([5, 1, 3])]
    weight = {name: w.clone() for name, w in held.weights().items()}
    expected = torch.cat([weight["a"][ids[0]], weight["b"][ids[1]], weight["a"][ids[2]]], 1)
    torch.testing.assert_close(held({"context": ids})["context"], expected)


def test_a_step_is_row_wise_adagrad_on_the_rows_used_and_on_no_other():
    """Repeated ids first add up; one accumulator per row is the mean square of its gradient."""
    held = tables(lr=0.1)
    ids = [torch.tensor([1, 2, 1]), torch.tensor([4, 4, 1]), torch.tensor([5, 1, 3])]
    before = {name: w.clone().numpy() for name, w in held.weights().items()}
    pull = torch.randn(3, 16)
    accumulated = {name: np.zeros(len(w)) for name, w in before.items()}
    for _ in range(2):
        (held({"context": ids})["context"] * pull).sum().backward()
        gradient = {name: np.zeros_like(w) for name, w in before.items()}
        for key, name, columns in (("x", "a", slice(0, 4)), ("y", "b", slice(4, 12)), ("z", "a", slice(12, 16))):
            for n, row in enumerate(ids["xyz".index(key)].tolist()):
                gradient[name][row] += pull[n, columns].numpy()
        for name, w in before.items():
            accumulated[name] += (gradient[name] ** 2).mean(1)
            before[name] = w - 0.1 * gradient[name] / (np.sqrt(accumulated[name])[:, None] + 1e-8)
    for name, w in held.weights().items():
        np.testing.assert_allclose(w.numpy(), before[name], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(held.accumulators()[name].numpy(), accumulated[name], rtol=1e-4)


def test_row_zero_begins_at_zero():
    """Missing and unknown ids begin by saying nothing."""
    assert all(not w[0].any() for w in tables().weights().values())


@pytest.mark.parametrize("name", ["type", "keys", "forward", "training", "item-id"])
def test_a_feature_may_be_called_like_an_attribute_of_a_module(name):
    """A log's column `type` is an id like another, in training and in what is exported."""
    spec = parse(f'name = "x"\n[candidates]\n{name} = {{ kind = "id" }}\n[tasks.{name}x]\nlabel = "c"')
    preprocessor = strategies.preprocessor(spec)
    model = ranker.create(spec, preprocessor, seed=1, device=CPU)
    assert list(model.tables()) == [name]
    rebuilt = ranker.from_weights(spec, preprocessor, ranker.weights_of(model))
    torch.testing.assert_close(rebuilt.tables()[name], model.tables()[name])
