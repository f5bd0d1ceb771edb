"""Models side by side: equals are compared, the loop is the same network, and the figures say what they mean."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from benchmarks.speed import equal_size, looped_experts, synthetic
from benchmarks.speed import models as bench_models
from benchmarks.speed.models import ModelSteps
from pipelines.cli.main import main
from rec import models
from rec.errors import SpecError
from rec.modules.experts import Experts
from rec.training.step import new_fit
from tests.rec.models import by_hand

NAMES = list(models.names())


def sides(name):
    """The inputs a model reads: with a leading axis where ids have several embeddings."""
    context, candidate, owner = by_hand.inputs(owner=(0, 0, 1, 1, 1))
    copies = models.configured({"name": name}).copies(by_hand.TASKS)
    if copies > 1:
        scale = torch.arange(1.0, copies + 1)[:, None, None]
        context, candidate = context * scale, candidate * scale
    return context, candidate, owner


def gradients(model, *given):
    """What a model gives, and the gradients of a sum of it, by the shape and the place of the weight."""
    model.zero_grad()
    out = model(*given)
    (out * torch.arange(1.0, out.shape[-1] + 1)).sum().backward()
    return out.detach(), [p.grad.clone() for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("settings", [{}, {"activation": "swish", "normalise": True}])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_loop_over_experts_is_the_same_network(name, training, settings):
    """Outputs and gradients, whatever the first layer reads; not one Experts is left."""
    model = by_hand.body(name, **settings).train(training)
    given = sides(name)
    out, grads = gradients(model, *given)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    loop = looped_experts.looped(model)
    assert not any(isinstance(part, Experts) for part in loop.modules())
    again = loop(*given)
    torch.testing.assert_close(again.detach(), out, rtol=1e-4, atol=1e-5)
    loop.zero_grad()
    (again * torch.arange(1.0, out.shape[-1] + 1)).sum().backward()
    small = 1e-5 * max(float(grad.abs().max()) for grad in grads)
    for weight, grad in zip(weights, grads, strict=True):
        torch.testing.assert_close(weight.grad, grad, rtol=1e-3, atol=small)


@pytest.mark.parametrize(("context", "candidate"), [(3, 0), (0, 2), (0, 0)])
@pytest.mark.parametrize("name", ["mmoe", "stem"])
def test_a_loop_over_experts_of_one_side(name, context, candidate):
    """Features on one side only, or none."""
    model = by_hand.body(name, context=context, candidate=candidate)
    copies = models.configured({"name": name}).copies(by_hand.TASKS)
    lead = () if copies == 1 else (copies,)
    given = torch.randn(*lead, 2, context), torch.randn(*lead, 3, candidate), torch.tensor([0, 1, 1])
    out = model(*given)
    torch.testing.assert_close(looped_experts.looped(model)(*given), out, rtol=1e-4, atol=1e-5)


def test_an_entry_is_as_large_as_it_says():
    """The parameters counted are those of the network whose step is measured, and the budget is held."""
    described = synthetic.spec(50)
    batch = synthetic.batch(described, rows=50, candidates=40, per_request=20, seed=1)
    wanted = equal_size.parameters(described.model, **bench_models._shape(described))
    for name in NAMES:
        steps = bench_models.entry(name, wanted, described, batch)
        assert steps.parameters == pytest.approx(wanted, rel=0.02)
        fit = new_fit(described.model_copy(update={"model": steps.settings}), synthetic.preprocessor(described))
        assert sum(p.numel() for p in fit.ranker.dense().values()) == steps.parameters


def entry(multiply_adds):
    """An entry whose steps do nothing."""
    return ModelSteps({}, step=lambda: None, loop=lambda: None, parameters=7, multiply_adds=multiply_adds)


def test_ratios_are_taken_within_a_round():
    """Three rounds on a machine that becomes ten times slower: ratios stay what they are."""
    entries = {"shared_bottom": entry(200.0), "mmoe": entry(100.0), "x": entry(150.0)}
    rounds = {"shared_bottom": (2.0, 2.0), "mmoe": (4.0, 8.0), "x": (9.0, 10.0)}
    times = {name: [(a * k, b * k) for k in (1, 3, 10)] for name, (a, b) in rounds.items()}
    row = bench_models._row("x", entries, times)
    assert (row.step_ms, row.of_shared_bottom, row.batched_of_looped) == pytest.approx((27_000, 4.5, 0.9))
    assert row.of_predicted == pytest.approx((9 / 4) / (150 / 100))
    assert bench_models._row("mmoe", entries, times).of_predicted == 1


def test_the_command_prints_a_row_per_model(capsys, monkeypatch):
    """Those asked for, after the two that others are compared with; at a tiny size here."""
    monkeypatch.setattr(bench_models, "ROWS", 50)
    monkeypatch.setattr(bench_models, "CANDIDATES", 60)
    with pytest.raises(SystemExit) as left:
        main(["bench", "train", "--models", "adatt, mmoe", "--repeats", "1", "--json"])
    assert left.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["candidates"], result["rows_per_table"], result["candidates_per_request"]) == (60, 50, 20)
    assert [row["model"] for row in result["rows"]] == ["shared_bottom", "mmoe", "adatt"]
    assert all(value > 0 for row in result["rows"] for key, value in row.items() if key != "model")


def test_models_are_chosen_by_name():
    """All of them, or those named; a name nobody has is refused."""
    assert sorted(bench_models.chosen("all")) == NAMES
    assert bench_models.chosen("mmoe") == ["shared_bottom", "mmoe"]
    with pytest.raises(SpecError, match=r"no model 'mmo': .*; did you mean 'mmoe'\?"):
        bench_models.chosen("mmoe,mmo")


class Two(nn.Module):
    """Experts held by a module inside a list."""

    def __init__(self, experts):
        super().__init__()
        self.levels = nn.ModuleList([experts])


def test_experts_in_a_list_are_looped_too():
    """Wherever they are held."""
    model = looped_experts.looped(Two(by_hand.body("mmoe").experts))
    assert isinstance(model.levels[0], looped_experts.Looped)
