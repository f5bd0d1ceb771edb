"""Interaction layers before the experts: their order, their widths, and the same numbers out of ONNX."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from pipelines.laws import laws
from rec import ranker
from rec.data.loader import tensors
from rec.models.mmoe import Config
from rec.modules.inputs import AttendedHistory, Inputs, InputWidths
from rec.modules.interaction import create
from rec.spec import parse
from serving.graph import network as network_graph
from serving.graph.signature import inputs_of, output_names
from tests import strategies
from tests.rec.modules.products import drawn

CPU = torch.device("cpu")
SHAPE = InputWidths([2, 3], [4, 1], [4])
ALL = {
    "attention": {"kind": "din", "hidden": [6, 5]},
    "feature_gating": {"kind": "senet"},
    "cross": {"kind": "full", "layers": 2},
}
OTHERS = [
    {
        "attention": {"kind": "din", "softmax": True},
        "feature_gating": {"kind": "gate"},
        "cross": {"kind": "low_rank", "rank": 3},
    },
    {"attention": {"kind": "multihead"}, "feature_gating": {"kind": "senet"}},
    {"attention": {"kind": "multihead", "activation": "relu"}, "cross": {"kind": "mixture", "rank": 3, "experts": 2}},
]
COPIES = {"name": "stem", **ALL}
SPEC = parse("""
name = "shop"
[context]
hour = { kind = "id", dim = 4 }
seen = { kind = "ids", last = 3, table = "item" }
asked = { kind = "ids", last = 2, table = "tag" }
age = { kind = "number" }
[candidates]
item = { kind = "id", dim = 8 }
tag = { kind = "id", dim = 4 }
price = { kind = "number" }
[tasks.click]
label = "click"
[tasks.buy]
label = "buy"
given = "click"
""")
CANDIDATES = [
    {"item": 1, "tag": 2, "price": 0.5, "click": 1, "buy": 0},
    {"item": 9, "tag": None, "price": None, "click": 0, "buy": 0},
    {"item": 3, "tag": 1, "price": 2.0, "click": 0, "buy": 0},
]
CONTEXTS = [
    {"hour": 1, "seen": [1, 2, 3], "asked": [2], "age": 1.0},
    {"hour": 2, "seen": [], "asked": [], "age": None},
    {"hour": 3, "seen": [4, 77], "asked": [77], "age": 3.0},
]


def rows():
    """Three requests: three candidates and full histories, one candidate and none, two candidates and unknown steps."""
    shown = [CANDIDATES, CANDIDATES[:1], CANDIDATES[1:]]
    return [
        {"request_id": "r", "time": 0, "context": context, "candidates": candidates}
        for context, candidates in zip(CONTEXTS, shown, strict=True)
    ]


def network(model):
    """A ranker, none of whose weights is zero, and a batch."""
    spec = SPEC.model_copy(update={"model": model})
    fresh = ranker.create(spec, strategies.preprocessor(spec), seed=1, device=CPU)
    with torch.no_grad():
        for weight in (*fresh.dense().values(), *fresh.tables().values()):
            weight.add_(torch.randn_like(weight) * 0.1)
    return spec, fresh.eval(), strategies.batch(spec, rows())


def layers_of(config):
    """The interaction layers that a model's settings ask for."""
    return create(SHAPE, attention=config.attention, gating=config.feature_gating, cross=config.cross)


def test_nothing_asked_for_is_nothing_done():
    """The two sides pass through as they are, and there is no weight."""
    layers = create(SHAPE)
    inputs = Inputs(drawn(2, 5, seed=1), drawn(3, 5, seed=2), torch.tensor([0, 0, 1]))
    context, candidate = layers(inputs)
    assert context is inputs.context
    assert candidate is inputs.candidate
    assert list(layers.parameters()) == []
    assert (layers.context, layers.candidate) == (5, 5)


def test_the_parts_run_in_their_order():
    """Attention's columns are refined with the others, and all of them are crossed."""
    torch.manual_seed(1)
    layers = layers_of(Config.model_validate(ALL)).double()
    with torch.no_grad():
        for p in layers.parameters():
            p.add_(drawn(*p.shape, seed=p.numel()) * 0.3)
    past = AttendedHistory(drawn(2, 3, 4, seed=3), torch.ones(2, 3, dtype=torch.bool), drawn(3, 4, seed=4))
    inputs = Inputs(drawn(2, 5, seed=1), drawn(3, 5, seed=2), torch.tensor([0, 0, 1]), [past])
    wide = torch.cat([inputs.candidate, layers.attention[0](past, inputs.owner)], 1)
    context, candidate = layers.gating(inputs.context, wide, inputs.owner)
    actual = layers(inputs)
    assert torch.equal(actual[1], layers.cross(context, candidate, inputs.owner))
    assert [side.shape for side in actual] == [(2, layers.context), (3, layers.candidate)] == [(2, 0), (3, 14)]


@pytest.mark.parametrize(
    "model", [ALL, *(pytest.param(model, marks=pytest.mark.slow) for model in (*OTHERS, COPIES))], ids=str
)
def test_onnx_gives_the_same_scores(model, tmp_path):
    """For three requests at once, for each alone, and for one that shows nothing; to 1e-5 on probabilities."""
    spec, fresh, batch = network(model)
    plain = ranker.from_weights(spec, strategies.preprocessor(spec), ranker.weights_of(fresh))
    network_graph.write(plain, spec, batch, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for part in (batch, *(batch.request(i) for i in range(3)), batch.take(np.array([1, 1, 0]))):
        with torch.no_grad():
            expected = fresh.served(tensors(part, CPU), laws.parents_of(spec))
        got = session.run(output_names(spec), inputs_of(part))
        for mine, theirs in zip(expected.values(), got, strict=True):
            np.testing.assert_allclose(theirs, mine.numpy(), atol=1e-5)


@pytest.mark.parametrize("model", [ALL, *OTHERS, COPIES], ids=str)
def test_the_laws_hold_with_all_of_it(model):
    """Finite logits, requests that do not see each other, weights that all learn."""
    spec, fresh, batch = network(model)
    laws.one_finite_logit_per_candidate_and_task(fresh, spec, batch)
    laws.a_request_scores_the_same_alone(fresh, batch)
    laws.candidate_order_does_not_matter(fresh, batch)
    laws.every_weight_learns(fresh, spec, batch)


def test_every_copy_has_what_lies_below_of_its_own():
    """STEM reads one copy of the ids per task and a shared one; each has its own attention, weights and crosses."""
    _, fresh, _ = network(COPIES)
    assert len(fresh.interaction) == 3
    weights = [layers.cross.layers[0].linear.candidate for layers in fresh.interaction]
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("settings", [ALL, *OTHERS])
def test_every_kind_is_built_without_numbers(settings):
    """`multigate check` builds a spec's network on torch's meta device, before there is any data."""
    ranker.validate(SPEC.model_copy(update={"model": {"name": "mmoe", **settings}}))
