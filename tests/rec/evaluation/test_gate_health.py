"""Health: the figures are those of a slow count, each anomaly is caught where it was planted, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rec.evaluation import gate_health
from rec.modules.expert_groups import SHARED
from rec.modules.experts import Experts
from rec.modules.gates import Gates, mix
from rec.modules.linear import PairLinear, SharedInputLayer
from rec.progress import Silent
from rec.training import run as evaluate
from rec.training import trainer
from tests.rec.models import by_hand
from tests.reference import health as slow

TASKS = ("click", "like")
POSITIVES = {"click": 90, "like": 10}
OWNERS = ("click", "click", "like", "like", SHARED)


class Level(nn.Module):
    """Experts of two tasks and one they share, with a gate per task, as a level of CGC has them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.experts = Experts(SharedInputLayer(3, 2, count=5, out=6), OWNERS, [6, 4])
        own_or_shared = lambda row, owner: owner in (row, SHARED)  # noqa: E731
        self.gates = Gates(PairLinear(3, 2, 10), TASKS, OWNERS, own_or_shared)

    def forward(self, *inputs):
        return mix(self.gates(*inputs), self.experts(*inputs))


def lean(gates, row, expert, logit):
    """Plant: a gate whose logit for one expert has this added."""
    with torch.no_grad():
        gates.linear.bias[gates.rows.index(row) * len(gates.owners) + expert] += logit


def watched(model, *, batches=2):
    """The health section after some batches of different sizes."""
    with gate_health.watched(model) as seen, torch.no_grad():
        for size in range(2, 2 + batches):
            model(*by_hand.inputs(owner=(0, 1, *[1] * size)))
    return gate_health.report(seen, POSITIVES)


def caught(health):
    """Which anomalies were found."""
    return [finding["anomaly"] for finding in health["findings"]]


def test_figures_are_those_of_a_slow_count():
    """Weights, entropies and near-zero activations over two batches, one candidate at a time."""
    model, sums = Level(), {"gates": [], "experts": []}
    for name, outputs in sums.items():
        getattr(model, name).register_forward_hook(lambda _m, _i, out, outputs=outputs: outputs.append(out.tolist()))
    level = watched(model)["levels"][0]
    (gates,) = level["gates"]
    sees = [[True, True, False, False, True], [False, False, True, True, True]]
    expected = slow.weights(sums["gates"])
    for row, seen, twin in zip(gates["weights"], sees, expected, strict=True):
        assert [weight is not None for weight in row] == seen
        np.testing.assert_allclose([w or 0.0 for w in row], twin, rtol=1e-5)
    np.testing.assert_allclose(gates["entropy"], slow.entropy(sums["gates"], sees), rtol=1e-5)
    near_zero = [expert["near_zero"] for expert in level["experts"]]
    np.testing.assert_allclose(near_zero, slow.near_zero(sums["experts"]))
    assert gates["experts"] == ["click 1", "click 2", "like 1", "like 2", "(shared) 1"]
    (click, like), (shared,) = gates["own"], gates["taken"]
    assert click["share"] == pytest.approx(sum(expected[0][:2]), rel=1e-5)
    assert (like["experts"], like["even"]) == (2, pytest.approx(2 / 3))
    assert shared["share"] == pytest.approx(max(r[4] for r in expected) / sum(r[4] for r in expected), rel=1e-5)


def test_a_fresh_model_is_healthy():
    """Nothing is found where nothing was planted."""
    assert watched(Level())["findings"] == []
    assert watched(by_hand.body("mmoe", experts=3, expert_widths=[8, 6]))["findings"] == []


def test_a_collapsed_expert_is_caught():
    """Planted: the last bias of one expert is far below zero, so that ReLU lets nothing through."""
    model = Level()
    with torch.no_grad():
        model.experts.rest[0].bias[2] = -100.0
    (finding,) = watched(model)["findings"]
    assert finding == {
        "anomaly": "collapse",
        "level": 1,
        "text": "level 1: 100% of what expert 'like 1' gives is nearly zero (collapse)",
    }


def test_activations_that_are_tiny_count_as_zero():
    """Planted: an expert whose outputs are a ten-thousandth of the others', none of them exactly zero."""
    model = by_hand.body("mmoe", experts=3, expert_widths=[5], activation="swish")
    with torch.no_grad():
        for p in model.experts.first.linear.parameters():
            p[:5] *= 1e-4
    assert caught(watched(model)) == ["collapse"]


def test_a_shared_expert_that_one_task_took_is_caught():
    """Planted: 'like' leaves the shared expert alone, and 'click' uses it."""
    model = Level()
    lean(model.gates, "like", 4, -20.0)
    (finding,) = watched(model)["findings"]
    assert finding["anomaly"] == "degradation"
    assert finding["text"] == (
        "level 1: 'click' takes 100% of the weight that 2 gates give to shared expert '(shared) 1' (degradation)"
    )


def test_a_sparse_task_that_ignores_its_experts_is_caught():
    """Planted: 'like' looks at the shared expert only."""
    model = Level()
    lean(model.gates, "like", 4, 20.0)
    sums = watched(model)
    text = "level 1: 'like' gives 0% of its weight to its own 2 experts, where an even gate would give 67%"
    assert sums["findings"][-1]["text"] == f"{text} (underfitting)"
    assert "underfitting" in caught(sums)


def test_a_task_with_many_positives_may_ignore_its_experts():
    """Underfitting is a sparse task's trouble; 'click' has nine tenths of the positives."""
    model = Level()
    lean(model.gates, "click", 4, 20.0)
    assert "underfitting" not in caught(watched(model))


def section(*, near_zero=0.5, share=0.5, weight=0.3, own=0.5, even=0.5):
    """A level with one of everything."""
    gates = {
        "taken": [{"expert": "(shared) 1", "by": "click", "share": share, "weight": weight, "gates": 2}],
        "own": [{"task": "like", "experts": 1, "share": own, "even": even}],
    }
    return [{"experts": [{"expert": "like 1", "near_zero": near_zero}], "gates": [gates]}]


@pytest.mark.parametrize(
    ("anomaly", "below", "above"),
    [
        ("collapse", {"near_zero": 0.9}, {"near_zero": 0.901}),
        ("degradation", {"share": 0.9}, {"share": 0.901}),
        ("degradation", {"share": 0.99, "weight": 0.01}, {"share": 0.99, "weight": 0.011}),
        ("underfitting", {"own": 0.125}, {"own": 0.124}),
    ],
)
def test_thresholds_hold_on_both_sides(anomaly, below, above):
    """What is on the line is let pass, what is over it is said."""
    assert list(gate_health.findings(section(**below), POSITIVES)) == []
    assert [finding["anomaly"] for finding in gate_health.findings(section(**above), POSITIVES)] == [anomaly]


def test_what_was_not_found_is_said_of_the_gates_that_were_looked_at():
    """Underfitting of the sparse task's gate, degradation of gates that share an expert; collapse of all."""
    assert watched(Level())["passed"] == [
        "gates click, like: no expert collapse, no degradation of a shared expert",
        "gate like: no underfitting",
    ]


def test_an_anomaly_that_was_found_is_not_denied():
    """What is said of the others stays."""
    model = Level()
    lean(model.gates, "like", 4, 20.0)
    health = watched(model)
    assert {finding["anomaly"] for finding in health["findings"]} == {"underfitting"}
    assert health["passed"] == ["gates click, like: no expert collapse, no degradation of a shared expert"]


def test_nothing_is_said_of_what_a_model_cannot_have():
    """Gates over shared experts alone have no experts of their own, which cannot be underfitted."""
    model = by_hand.body("mmoe", experts=3, expert_widths=[5])
    assert watched(model)["passed"] == ["gates click, buy, like: no expert collapse, no degradation of a shared expert"]


def test_a_task_is_sparse_below_the_mean():
    """Of two tasks with as many positives neither is."""
    ignored = section(own=0.0)
    assert list(gate_health.findings(ignored, {"click": 10, "like": 10})) == []
    assert [f["level"] for f in gate_health.findings(ignored, {"click": 11, "like": 10})] == [1]


def test_a_level_is_what_runs_together():
    """Modules whose paths differ in their last name only; levels are numbered in the order in which they run."""
    model = nn.Sequential(*[nn.ModuleDict({"first": Level()}) for _ in range(2)])
    with gate_health.watched(model) as seen, torch.no_grad():
        for index in (1, 0):
            model[index]["first"](*by_hand.inputs())
    assert list(seen) == [f"{index}.first.{part}" for index in (1, 0) for part in ("gates", "experts")]
    assert len(gate_health.report(seen, POSITIVES)["levels"]) == 2


def test_gates_that_are_called_alike_are_numbered():
    """Those of ML-MMoE feed the experts of the next level, which all tasks share."""
    model = nn.ModuleDict({"experts": Level().experts, "gates": Gates(PairLinear(3, 2, 10), [SHARED] * 2, OWNERS)})
    with gate_health.watched(model) as seen, torch.no_grad():
        model["experts"](*by_hand.inputs())
        model["gates"](*by_hand.inputs())
    (level,) = gate_health.report(seen, POSITIVES)["levels"]
    assert level["gates"][0]["rows"] == ["(shared) 1", "(shared) 2"]
    assert level["gates"][0]["taken"] == level["gates"][0]["own"] == []


def test_memory_does_not_grow_with_the_data():
    """What is kept after a hundred batches is what was kept after one."""
    model = Level()
    with gate_health.watched(model) as seen, torch.no_grad():
        model(*by_hand.inputs())
        before = {
            path: [v.shape for v in vars(sums).values() if isinstance(v, torch.Tensor)] for path, sums in seen.items()
        }
        for _ in range(99):
            model(*by_hand.inputs())
    assert {
        path: [v.shape for v in vars(sums).values() if isinstance(v, torch.Tensor)] for path, sums in seen.items()
    } == before
    assert seen["gates"].candidates == 400


def test_hooks_are_gone_afterwards():
    """An evaluated model is as fast as before, whatever happened inside."""
    model = Level()
    with pytest.raises(KeyboardInterrupt), gate_health.watched(model):
        raise KeyboardInterrupt
    assert not model.gates._forward_hooks
    assert not model.experts._forward_hooks


def test_a_model_without_gates_has_no_health():
    """Shared bottom has nothing to say here."""
    assert watched(by_hand.body("shared_bottom", bottom_widths=[5])) is None


def test_a_report_holds_the_health_of_its_run(run, data):
    """Every candidate of the split, both tasks, both experts of the tiny shop's MMoE."""
    report = evaluate.evaluate_run(run, data, split="test", progress=Silent())
    (level,) = report["health"]["levels"]
    (gates,) = level["gates"]
    assert (gates["rows"], gates["experts"]) == (["click", "buy"], ["(shared) 1", "(shared) 2"])
    assert [sum(row) for row in gates["weights"]] == pytest.approx([1.0, 1.0])


def test_a_run_without_gates_has_a_report_all_the_same(spec, data, tmp_path):
    """Without a health section."""
    plain = spec.model_copy(update={"model": {"name": "shared_bottom", "bottom_widths": [8], "tower_widths": [4]}})
    trainer.train(plain, data, tmp_path / "run", progress=Silent())
    assert "health" not in evaluate.evaluate_run(tmp_path / "run", data, split="validation", progress=Silent())
