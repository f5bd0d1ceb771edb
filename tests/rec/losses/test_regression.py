"""Quantities: each kind's loss and value against loops, who counts for them, and what is served."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rec import ranker
from rec.data import label_bins, sketch
from rec.losses.regression import LogHead, OrdinalHead, QuantileHead, RegressionHeads
from rec.spec import Task, parse
from tests import strategies
from tests.reference import regression as slow

LABELS = np.array([0.0, 0.0, 1.0, 2.0, 3.0, 8.0, 21.0, 60.0])
label_values = st.sampled_from([0.0, 0.25, 1.0, 1.5, 8.0, 59.0, 60.0, 500.0])
z = st.floats(-12, 12, width=32)


def kind_of(predict: str, **settings):
    """A piece and its target, fitted to LABELS."""
    task = Task(label="y", predict=predict, **settings)
    target = label_bins.fit(task, sketch.of(LABELS))
    return {"log": LogHead, "ordinal": OrdinalHead, "quantile": QuantileHead}[predict](task, target), target


@given(z, label_values)
def test_log_is_least_squares_on_logarithms(z, label):
    """Against the definition; the value undoes the scale, between 0 and the largest label."""
    kind, target = kind_of("log")
    loss = kind.loss(torch.tensor([z]), torch.tensor([label]))
    assert loss.item() == pytest.approx(slow.log_loss(z, label, target.mean, target.std), rel=1e-4, abs=1e-5)
    expected = min(max(np.expm1(target.mean + target.std * z), 0.0), 60.0)
    assert kind.value(torch.tensor([z])).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(z, label_values, st.sampled_from([0.1, 0.5, 0.9]))
def test_quantile_is_pinball_on_logarithms(z, label, quantile):
    """Against the definition."""
    kind, target = kind_of("quantile", quantile=quantile)
    loss = kind.loss(torch.tensor([z]), torch.tensor([label]))
    short = (np.log1p(label) - target.mean) / target.std - z
    assert loss.item() == pytest.approx(slow.pinball(short, quantile), rel=1e-4, abs=1e-5)


@given(z, label_values, st.integers(2, 9))
def test_ordinal_is_the_cumulative_logit_model(z, label, bins):
    """Loss and value against a loop over bins, with cuts that have moved."""
    kind, target = kind_of("ordinal", bins=bins)
    torch.manual_seed(3)
    with torch.no_grad():
        for p in kind.parameters():
            p.add_(torch.randn_like(p))
    cuts = kind.cuts().tolist()
    assert all(np.diff(cuts) > 0)
    loss, value = kind.loss(torch.tensor([z]), torch.tensor([label])), kind.value(torch.tensor([z]))
    assert loss.item() == pytest.approx(slow.ordinal_loss(z, label, cuts, target.edges), rel=1e-3, abs=1e-4)
    assert value.item() == pytest.approx(slow.ordinal_value(z, cuts, target.means), rel=1e-4, abs=1e-4)


def test_the_loss_of_a_very_thin_bin_is_finite():
    """Cuts that differ by less than fp32 can tell, and a gap that training has closed."""
    kind, _ = kind_of("ordinal", bins=4)
    bins = label_bins.LabelBins(
        mean=0.0, std=1.0, top=3.0, start=0.0, edges=[1.0, 2.0], means=[1.0, 2.0, 3.0], cuts=[9.0, 9.0 + 1e-8]
    )
    thin = OrdinalHead(Task(label="y", predict="ordinal"), bins)
    loss = thin.loss(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))
    assert loss.isfinite().all()
    assert loss[1].item() == pytest.approx(9.0 - np.log(1e-8), rel=1e-3)
    with torch.no_grad():
        kind.gaps.fill_(-500.0)
    label = torch.tensor(LABELS, dtype=torch.float32)
    loss = kind.loss(torch.zeros(len(label)), label).sum()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in kind.parameters())


def test_ordinal_starts_from_the_mean_of_all():
    """Before anything is learnt each bin has about its share, and the value is about the mean label."""
    many = np.random.default_rng(1).lognormal(3, 1, 20_000)
    task = Task(label="y", predict="ordinal")
    kind = OrdinalHead(task, label_bins.fit(task, sketch.of(many)))
    assert kind.value(torch.zeros(1)).item() == pytest.approx(many.mean(), rel=1e-3)


@pytest.mark.parametrize(("predict", "settings"), [("log", {}), ("ordinal", {}), ("quantile", {"quantile": 0.9})])
@pytest.mark.parametrize("far", [-1e4, -80.0, 80.0, 1e4])
def test_far_away_nothing_overflows(predict, settings, far):
    """Loss and gradient are finite, and the value stays within the labels."""
    kind, _ = kind_of(predict, **settings)
    at = torch.full((len(LABELS),), far, requires_grad=True)
    loss = kind.loss(at, torch.tensor(LABELS, dtype=torch.float32)).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(at.grad).all()
    value = kind.value(at.detach())
    assert ((value >= 0) & (value <= 60.0 * (1 + 1e-5))).all()


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
def test_the_best_constant_of_the_quantile_loss_is_the_quantile(quantile):
    """Over labels of any tail: 80% of them are below what 0.8 learns."""
    labels = np.random.default_rng(2).lognormal(2, 1.5, 4001)
    task = Task(label="y", predict="quantile", quantile=quantile)
    kind = QuantileHead(task, label_bins.fit(task, sketch.of(labels)))
    tries = torch.linspace(-3, 3, 2001)
    losses = [kind.loss(z, torch.tensor(labels, dtype=torch.float32)).mean().item() for z in tries]
    best = kind.value(tries[int(np.argmin(losses))])
    assert (labels <= best.item()).mean() == pytest.approx(quantile, abs=0.01)


def beside(**more):
    """A click and its quantity, with one unit wide representations, and the labels of five candidates."""
    tasks = {"click": Task(label="c"), "watch": Task(label="w", given="click", predict="log", **more)}
    torch.manual_seed(1)
    actual = RegressionHeads(
        tasks, {"watch": label_bins.fit(tasks["watch"], sketch.of(LABELS))}, width=3, tower_widths=[4]
    )
    labels = {
        "click": torch.tensor([1, 1, 0, -1, 1], dtype=torch.int8),
        "watch": torch.tensor([5.0, float("nan"), 9.0, 9.0, 2.0]),
    }
    return actual, labels


def test_only_known_quantities_of_parents_that_happened_count():
    """Leaving the others out is the same, and no gradient reaches them, though their labels are NaN."""
    quantities, labels = beside()
    hidden = torch.randn(2, 5, 3, requires_grad=True)
    loss = quantities.losses(quantities(hidden), labels)["watch"]
    rows = [0, 4]
    shorter = quantities.losses(quantities(hidden[:, rows]), {name: label[rows] for name, label in labels.items()})
    torch.testing.assert_close(loss, shorter["watch"])
    loss.backward()
    assert torch.isfinite(hidden.grad).all()
    assert hidden.grad[1].abs().sum(1).bool().tolist() == [True, False, False, False, True]
    assert not hidden.grad[0].any()


def test_where_nothing_counts_the_loss_is_nothing():
    """A batch without a click."""
    quantities, labels = beside()
    loss = quantities.losses(quantities(torch.randn(2, 5, 3)), {**labels, "click": torch.zeros(5)})["watch"]
    assert loss.item() == 0.0


def test_a_quantity_is_served_with_its_parent_and_given_it():
    """P(click) times the value, and the value; one without a parent is its value."""
    quantities, _ = beside()
    z = quantities(torch.randn(2, 5, 3))
    chance = torch.rand(5)
    actual = quantities.values(z, {"click": chance})
    torch.testing.assert_close(actual["watch"], chance * actual["watch|click"])
    torch.testing.assert_close(actual["watch|click"], quantities.kinds[0].value(z["watch"]))


@pytest.mark.parametrize("order", [["a", "b", "c"], ["b", "a", "c"], ["c", "a", "b"]])
def test_representations_go_to_their_own_task(order):
    """Wherever the quantities stand among the tasks, each tower and the objective get their own rows."""
    kinds = {"a": "event", "b": "log", "c": "event"}
    tasks = {name: Task(label="x", predict=kinds[name]) for name in order}
    quantities = RegressionHeads(tasks, {"b": label_bins.fit(tasks["b"], sketch.of(LABELS))}, width=3, tower_widths=[])
    hidden = torch.arange(3.0)[:, None, None].expand(3, 2, 3)
    torch.testing.assert_close(quantities.events(hidden)[:, 0, 0], torch.tensor([float(order.index(n)) for n in order
                                                                                if n != "b"]))  # fmt: skip
    with torch.no_grad():
        quantities.towers.last.weight.fill_(1.0)
        quantities.towers.last.bias.zero_()
    assert quantities(hidden)["b"].tolist() == [3.0 * order.index("b")] * 2


@pytest.mark.parametrize("name", ["items", "update", "type"])
def test_a_task_may_have_any_name(name):
    """Also that of a method."""
    spec = parse(f'name = "x"\n[candidates]\ni = {{ kind = "id" }}\n[tasks.{name}]\nlabel = "c"\npredict = "ordinal"')
    model = ranker.create(spec, strategies.preprocessor(spec), seed=1, device=torch.device("cpu"))
    rows = [{"request_id": "r", "time": 0, "context": {}, "candidates": [{"i": 1, name: 2.0}]}]
    batch = strategies.batch(spec, rows)
    assert set(model.served(ranker_input(batch), {name: None})) == {name}


def ranker_input(batch):
    """A numpy batch as tensors."""
    from rec.data.loader import tensors

    return tensors(batch, torch.device("cpu"))
