"""Biases: learnt beside the experts, in training alone; what is served does not know of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.laws import laws
from rec import objectives, ranker
from rec.data.loader import tensors
from rec.errors import SpecError
from rec.losses import task_losses
from rec.request import RequestBatch
from rec.spec import parse
from rec.training.step import Fit, step
from tests import strategies

CPU = torch.device("cpu")
SPEC = """
name = "x"
[context]
screen = { kind = "number", bias = true }
[candidates]
item = { kind = "id", dim = 8 }
position = { kind = "id", bias = true }
[tasks.click]
label = "c"
[tasks.buy]
label = "b"
given = "click"
[model]
name = "shared_bottom"
bottom_widths = [16]
tower_widths = [8]
"""
POSITIONS = 5
TRUTH = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])  # log odds of items, beside those of their position


def fresh(spec, seed=1):
    """A ranker with fresh weights."""
    return ranker.create(spec, strategies.preprocessor(spec), seed=seed, device=CPU)


def rows(count=6):
    """Requests of five candidates at the positions 1 to 5."""
    return [
        {
            "request_id": "r",
            "time": 0,
            "context": {"screen": float(request)},
            "candidates": [
                {"item": 1 + (place + request) % 5, "position": place + 1, "click": (place + request) % 2, "buy": 0}
                for place in range(POSITIONS)
            ],
        }
        for request in range(count)
    ]


@pytest.mark.parametrize("objective", sorted(set(objectives.names()) - {"aitm"}))
def test_a_bias_is_in_the_losses_and_in_no_score(objective):
    """Its mean over the batch is 0, so that scores stay calibrated; every weight of it learns."""
    spec = parse(SPEC + f'[objective]\nname = "{objective}"\n')
    model, batch = fresh(spec), tensors(strategies.batch(spec, rows()), CPU)
    plain, losses = model(batch), model.losses(batch)
    with torch.no_grad():
        model.bias.ids["candidates"]["of_position"][1] += 3.0
        model.bias.slopes["context"].weight += 1.0
    offset_TN = model.bias(batch)
    assert offset_TN.mean(1).abs().max() < 1e-6
    assert offset_TN.std() > 0.5
    for name, logit in model(batch).items():
        assert torch.equal(logit, plain[name])
    moved = model.losses(batch)
    assert all(not torch.equal(moved[name], losses[name]) for name in ("click", "buy"))
    task_losses.total(moved, spec.tasks).backward()
    learning = [*model.bias.ids.parameters(), *model.bias.slopes.parameters()]  # no number is missing here
    assert all(p.grad.abs().sum() > 0 for p in learning)


def test_the_network_has_no_columns_and_no_table_of_a_bias(tmp_path):
    """Nor does an exported graph depend on it, whatever is sent."""
    spec = parse(SPEC)
    model, batch = fresh(spec).eval(), strategies.batch(spec, rows())
    assert set(model.tables()) == {"item"}
    laws.onnx_gives_the_same_scores(
        ranker.from_weights(spec, strategies.preprocessor(spec), ranker.weights_of(model)), spec, batch, tmp_path
    )
    unknown = {**batch.candidates, "position": np.zeros_like(batch.candidates["position"])}
    other = RequestBatch(batch.size, {"screen": batch.context["screen"] * 9}, unknown, batch.owner)
    for name, logit in laws.logits(model, other).items():
        np.testing.assert_array_equal(logit, laws.logits(model, batch)[name])


def drawn(count):
    """Requests in which worse items tend to be shown higher up, where more is clicked."""
    generator = np.random.default_rng(3)
    shown = np.argsort(TRUTH + generator.normal(0, 0.7, (count, POSITIONS)), 1)
    place = np.tile(np.arange(POSITIONS), (count, 1))
    clicked = generator.random(shown.shape) < 1 / (1 + np.exp(1.2 * place - TRUTH[shown]))
    labels = {"click": clicked.ravel().astype(np.int8), "buy": np.zeros(clicked.size, np.int8)}
    candidates = {"item": shown.ravel() + 1, "position": place.ravel() + 1}
    context = {"screen": np.ones(count, np.float32)}
    return RequestBatch(count, context, candidates, np.repeat(np.arange(count), POSITIONS), labels)


def learnt(spec):
    """The logit of every item as it is served, after some hundred steps; the position that is sent is the first."""
    model, batch = fresh(spec), tensors(drawn(2000), CPU)
    fit = Fit(model, torch.optim.AdamW(model.dense().values(), lr=spec.train.lr), CPU)
    for _ in range(400):
        step(fit, spec, batch)
    alone = {"item": np.arange(POSITIONS) + 1, "position": np.ones(POSITIONS, np.int64)}
    request = RequestBatch(1, {"screen": np.ones(1, np.float32)}, alone, np.zeros(POSITIONS, np.int64))
    return laws.logits(model.eval(), request)["click"]


def test_what_positions_hide_is_found():
    """Clicks alone rank items by where they were shown; with the bias they are ranked by their truth."""
    settings = SPEC + "[train]\nlr = 0.02\n"
    unbiased = learnt(parse(settings))
    fooled = learnt(parse(settings.replace('position = { kind = "id", bias = true }', 'position = { kind = "kept" }')))
    assert np.corrcoef(unbiased, TRUTH)[0, 1] > 0.9
    assert np.corrcoef(fooled, TRUTH)[0, 1] < 0.5
    assert np.argsort(unbiased).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[tasks", 'p = { kind = "id", table = "position" }\n[tasks'), r"p\.table: 'position' is a bias"),
        (
            ("[tasks", 'p = { kind = "id", make = "cross", of = ["item", "position"] }\n[tasks'),
            r"p\.of: 'position' is a",
        ),
        (('"id", bias = true', '"id", bias = true, pretrained = "x"'), r"position\.pretrained: a bias has a weight"),
        (('item = { kind = "id", dim = 8 }', 'item = { kind = "id", bias = true }'), r"bias: every feature is one"),
        (("[model]", '[objective]\nname = "aitm"\n[model]'), r"bias: objective 'aitm' has no place for it"),
    ],
)
def test_what_would_let_the_network_know_is_refused(change, message):
    """In the spec."""
    with pytest.raises(SpecError, match=message):
        parse(SPEC.replace(*change, 1))
