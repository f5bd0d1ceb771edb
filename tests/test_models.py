"""The contract of every file in rec/models, on specs and tables of any shape."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rec import models, ranker
from rec.errors import SpecError
from rec.losses import probabilities
from rec.spec import parse
from rec.train import scorer
from tests import laws, strategies
from tests.reference import models as slow

NAMES = list(models.names())
CPU = torch.device("cpu")
# odd widths, wide enough that no ReLU is dead on every candidate
SMALL = {"mmoe": {"experts": 3, "expert": [21, 13], "tower": [9]}, "shared_bottom": {"bottom": [31, 17], "tower": [9]}}
some = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def made(data, name, *, min_candidates=0):
    """A spec, its fresh ranker and a batch."""
    spec = data.draw(strategies.specs(model=name))
    spec = spec.model_copy(update={"model": {"name": name, **SMALL.get(name, {})}})
    rows = data.draw(strategies.rows(spec, min_candidates=min_candidates))
    return spec, ranker.create(spec, strategies.fitted(spec), seed=1, device=CPU), strategies.batch(spec, rows)


def plain(model, spec):
    """The same network over plain tables, as it is read from a checkpoint."""
    return ranker.from_weights(spec, strategies.fitted(spec), ranker.weights_of(model))


@pytest.mark.parametrize("name", NAMES)
@some
@given(data=st.data())
def test_one_finite_logit_per_candidate_and_task(name, data):
    """Missing values, empty lists, one task or four, a side without features."""
    spec, model, batch = made(data, name, min_candidates=1)
    laws.one_finite_logit_per_candidate_and_task(model, spec, batch)


@pytest.mark.parametrize("name", NAMES)
@some
@given(data=st.data())
def test_a_child_is_never_likelier_than_its_parent(name, data):
    """In float32, on what is served, by any tree of tasks."""
    spec, model, batch = made(data, name, min_candidates=1)
    found = scorer(model, laws.parents_of(spec), CPU)(batch)
    laws.a_child_is_never_likelier_than_its_parent(found, laws.parents_of(spec))


@pytest.mark.parametrize("name", NAMES)
@some
@given(data=st.data())
def test_a_request_scores_the_same_alone(name, data):
    """Neighbours in the batch do not change a score."""
    _, model, batch = made(data, name)
    if len(batch):
        laws.a_request_scores_the_same_alone(model.eval(), batch)


@pytest.mark.parametrize("name", NAMES)
@some
@given(data=st.data())
def test_candidate_order_does_not_matter(name, data):
    """Reversed candidates get the reversed scores."""
    _, model, batch = made(data, name, min_candidates=1)
    laws.candidate_order_does_not_matter(model.eval(), batch)


@pytest.mark.parametrize("name", NAMES)
@some
@given(data=st.data())
def test_every_weight_learns(name, data):
    """No parameter is left without a gradient, no used table stays still."""
    spec, model, batch = made(data, name, min_candidates=1)
    laws.every_weight_learns(model, spec, batch)


@pytest.mark.parametrize("name", NAMES)
@some
@given(data=st.data())
def test_plain_tables_score_as_the_fused_ones_do(name, data):
    """What is exported and read without TorchRec is the same network, rebuilt from its weights."""
    spec, model, batch = made(data, name, min_candidates=1)
    rebuilt = plain(model, spec)
    for task, value in laws.logits(model.eval(), batch).items():
        np.testing.assert_allclose(laws.logits(rebuilt, batch)[task], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_onnx_gives_the_same_scores_for_one_request_and_for_many(name, tmp_path_factory, data):
    """One graph, dynamic B and N, to 1e-5 on probabilities."""
    from serving import export

    spec, model, batch = made(data, name, min_candidates=1)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export.write_graph(plain(model, spec), spec, batch, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    asked = [feed.name for feed in session.get_inputs()]
    for part in (batch, batch.request(0), batch.take(np.zeros(5, np.int64))):
        expected = scorer(model.eval(), laws.parents_of(spec), CPU)(part)
        got = session.run(list(expected), {k: v for k, v in export.inputs_of(part).items() if k in asked})
        for mine, theirs in zip(expected.values(), got, strict=True):
            np.testing.assert_allclose(theirs, mine, atol=1e-5)


def pair(layer):
    """A PairLinear's weights as numpy, None for a side it does not have."""
    held = {key: getattr(layer, key) for key in ("context", "candidate", "bias")}
    return {key: None if p is None else p.detach().numpy() for key, p in held.items()}


def stacked(layers):
    """Stacked layers' weights and biases as numpy."""
    return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]


def weights(model, *, first, gate):
    """A model's weights as the slow twins want them."""
    tower = stacked([*model.towers.hidden, model.towers.logit])
    out = {"first": pair(first.first), "rest": stacked(first.rest), "tower": tower}
    return out | ({"gate": pair(gate.linear)} if gate is not None else {})


@pytest.mark.parametrize("widths", [(3, 4), (0, 4), (3, 0)])
def test_mmoe_is_its_equations(widths):
    """Against a loop over candidates, experts and tasks; either side may be empty."""
    context, candidate = (torch.randn(2, widths[0]), torch.randn(5, widths[1]))
    owner = torch.tensor([0, 0, 1, 1, 1])
    model = models.create(
        {"name": "mmoe", **SMALL["mmoe"]}, context=widths[0], candidate=widths[1], tasks={"a": None, "b": "a"}
    )
    twin = slow.mmoe(
        context.numpy(),
        candidate.numpy(),
        owner,
        weights(model, first=model.experts, gate=model.gates),
        tasks=2,
        experts=3,
    )
    with torch.no_grad():
        np.testing.assert_allclose(
            torch.stack(list(model(context, candidate, owner).values())), twin, rtol=1e-4, atol=1e-6
        )


def test_shared_bottom_is_its_equations():
    """Against a loop over candidates and tasks."""
    context, candidate, owner = torch.randn(2, 3), torch.randn(4, 2), torch.tensor([0, 1, 1, 1])
    model = models.create(
        {"name": "shared_bottom", **SMALL["shared_bottom"]}, context=3, candidate=2, tasks={"a": None, "b": None}
    )
    twin = slow.shared_bottom(
        context.numpy(), candidate.numpy(), owner, weights(model, first=model.bottom, gate=None), tasks=2
    )
    with torch.no_grad():
        np.testing.assert_allclose(
            torch.stack(list(model(context, candidate, owner).values())), twin, rtol=1e-4, atol=1e-6
        )


def test_mmoe_with_one_expert_is_shared_bottom():
    """The softmax over one expert is 1."""
    one = models.create(
        {"name": "mmoe", "experts": 1, "expert": [6, 5], "tower": [3]}, context=3, candidate=2, tasks={"a": None}
    )
    plain = models.create(
        {"name": "shared_bottom", "bottom": [6, 5], "tower": [3]}, context=3, candidate=2, tasks={"a": None}
    )
    renamed = {k.replace("experts.", "bottom."): v for k, v in one.state_dict().items() if not k.startswith("gates.")}
    plain.load_state_dict(renamed)
    inputs = torch.randn(2, 3), torch.randn(4, 2), torch.tensor([0, 1, 1, 1])
    torch.testing.assert_close(one(*inputs)["a"], plain(*inputs)["a"])


def test_experts_permuted_with_their_gates_leave_mmoe_unchanged():
    """Experts have no order."""
    model = models.create({"name": "mmoe", **SMALL["mmoe"]}, context=3, candidate=2, tasks={"a": None, "b": None})
    inputs = torch.randn(2, 3), torch.randn(4, 2), torch.tensor([0, 1, 1, 1])
    before = model(*inputs)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        for p in (model.experts.first.context, model.experts.first.candidate, model.experts.first.bias):
            p.copy_(p.unflatten(0, (3, -1))[order].flatten(0, 1))
        for p in model.experts.rest.parameters():
            p.copy_(p[order])
        for p in model.gates.linear.parameters():
            p.copy_(p.unflatten(0, (2, 3))[:, order].flatten(0, 1))
    torch.testing.assert_close(model(*inputs), before)


def test_every_model_has_a_line_that_says_what_it_is():
    """`multigate models` prints these."""
    assert set(NAMES) >= {"mmoe", "shared_bottom"}
    assert all(20 < len(line) < 120 for line in models.names().values())


def test_an_unknown_model_or_setting_is_refused_with_the_nearest():
    """In words a spec's author understands."""
    shape = {"context": 1, "candidate": 1, "tasks": {"a": None}}
    with pytest.raises(SpecError, match=r"model\.name: no model 'mmo': mmoe, shared_bottom; did you mean 'mmoe'"):
        models.create({"name": "mmo"}, **shape)
    with pytest.raises(SpecError, match=r"model\.towers: unknown key; did you mean 'tower'"):
        models.create({"name": "mmoe", "towers": 3}, **shape)
    with pytest.raises(SpecError, match=r"model\.experts: expected greater than or equal to 1, got 0"):
        models.create({"name": "mmoe", "experts": 0}, **shape)


def test_served_probabilities_multiply_up_exactly():
    """P(child) is P(parent) times P(child | parent), in floating point too."""
    found = probabilities({"a": torch.randn(50), "b": torch.randn(50)}, {"a": None, "b": "a"})
    assert torch.equal(found["b"], found["a"] * found["b|a"])


def test_a_spec_without_context_features_trains_and_scores():
    """Census-Income: everything is on the candidate."""
    spec = parse('name = "x"\n[candidates]\nitem = { kind = "id" }\n[tasks.c]\nlabel = "c"')
    model = ranker.create(spec, strategies.fitted(spec), seed=1, device=CPU)
    rows = [{"request_id": "r", "time": 0, "context": {}, "candidates": [{"item": 1, "c": 1}, {"item": 2, "c": 0}]}]
    laws.every_weight_learns(model, spec, strategies.batch(spec, rows))
