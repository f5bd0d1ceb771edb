"""The contract of every file in rec/objectives, on a chain of three with a branch and a root of its own."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.laws import laws
from rec import objectives, ranker
from rec.errors import SpecError
from rec.losses import task_losses
from rec.spec import parse
from rec.training.scorer import scorer
from tests import strategies
from tests.rec.objectives import by_hand

CPU = torch.device("cpu")
NAMES = list(objectives.names())
SPEC = """
name = "x"
[context]
user = { kind = "id", dim = 4 }
[candidates]
item = { kind = "id", dim = 8 }
price = { kind = "number" }
[tasks]
buy = { label = "b", given = "cart", weight = 2.0 }
click = { label = "c" }
cart = { label = "t", given = "click" }
like = { label = "l", given = "click" }
share = { label = "s" }
[model]
name = "mmoe"
experts = 2
expert_widths = [13]
tower_widths = [9, 5]
"""
SHOWN = [
    {"item": 1, "price": 2.0, "click": 1, "cart": 1, "buy": 1, "like": 0, "share": 0},
    {"item": 2, "price": None, "click": 1, "cart": 0, "buy": 0, "like": 1, "share": 1},
    {"item": 3, "price": 0.5, "click": 0, "cart": 0, "buy": -1, "like": 0, "share": -1},
]
ROWS = [{"request_id": "r", "time": 0, "context": {"user": u}, "candidates": SHOWN[:n]} for u, n in ((1, 3), (2, 1))]


def network(name):
    """A spec, its fresh ranker and a batch."""
    spec = parse(SPEC).model_copy(update={"objective": {"name": name}})
    return spec, ranker.create(spec, strategies.preprocessor(spec), seed=1, device=CPU), strategies.batch(spec, ROWS)


@pytest.mark.parametrize("name", NAMES)
def test_an_objective_keeps_the_laws_of_the_model(name):
    """A logit per task and candidate, children below parents, no dead weight, no neighbour in a score."""
    spec, model, batch = network(name)
    laws.one_finite_logit_per_candidate_and_task(model, spec, batch)
    laws.a_child_is_never_likelier_than_its_parent(
        scorer(model, laws.parents_of(spec), CPU)(batch), laws.parents_of(spec)
    )
    laws.a_request_scores_the_same_alone(model.eval(), batch)
    laws.every_weight_learns(model, spec, batch)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_gives_the_same_scores_without_the_towers_of_training(name, tmp_path):
    """One request and many; what is only there for the losses is not in the graph."""
    from serving.graph import network as graph
    from serving.graph.signature import inputs_of, output_names

    spec, model, batch = network(name)
    plain = ranker.from_weights(spec, strategies.preprocessor(spec), ranker.weights_of(model))
    graph.write(plain, spec, batch, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for part in (batch, batch.request(0), batch.take(np.zeros(5, np.int64))):
        expected = scorer(model.eval(), laws.parents_of(spec), CPU)(part)
        got = session.run(output_names(spec), inputs_of(part))
        for mine, theirs in zip(expected.values(), got, strict=True):
            np.testing.assert_allclose(theirs, mine, atol=1e-5)
    initializers = [
        weight.name for weight in onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.initializer
    ]
    assert "model.objective.heads.towers.last.weight" in initializers
    assert [name for name in initializers if "imputation" in name or "twins" in name] == []


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_losses_are_finite_and_so_are_their_gradients_whatever_is_known(name, data):
    """Nothing clicked, everything clicked, nothing observed; towers sure of the wrong thing."""
    parents = data.draw(st.sampled_from(by_hand.TREES))
    tasks = by_hand.tasks_of(parents)
    x = by_hand.hidden(tasks, scale=data.draw(st.sampled_from([1.0, 300.0])))
    actual = by_hand.objective(name, tasks).losses(x, data.draw(by_hand.patterns(parents)))
    assert set(actual) >= set(tasks)
    assert all(value.isfinite() and value.shape == () for value in actual.values())
    assert by_hand.pull(task_losses.total(actual, tasks), x).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_an_objective_does_not_know_is_refused(name):
    """In words a spec's author understands."""
    with pytest.raises(SpecError, match=r"objective\.lamda_global: unknown key"):
        by_hand.objective(name, by_hand.tasks_of({"click": None}), lamda_global=1.0)


def test_an_unknown_objective_is_refused_with_the_nearest():
    """In words a spec's author understands."""
    with pytest.raises(SpecError, match=r"objective\.name: no objective 'esm': .*; did you mean 'esmm'"):
        by_hand.objective("esm", by_hand.tasks_of({"click": None}))
