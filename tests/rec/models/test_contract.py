"""The contract of every file in rec/models, on specs and tables of any shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.laws import laws
from rec import models, objectives, ranker
from rec.errors import SpecError
from rec.modules.layout import histories
from rec.spec import parse
from rec.training.scorer import scorer
from tests import strategies

NAMES = [*models.names(), "single_task with own tables"]
CPU = torch.device("cpu")
# odd widths, wide enough that no ReLU is dead on every candidate; HoME's normalisation comes from BESIDE, as of others
SMALL = {
    "adatt": {"levels": [[21], [13]], "task_experts": 2, "shared_experts": 1, "tower_widths": [9]},
    "adatt_sp": {"levels": [[21], [13]], "task_experts": 2, "tower_widths": [9]},
    "cgc": {"expert_widths": [21, 13], "task_experts": 2, "shared_experts": 1, "tower_widths": [9]},
    "cross_stitch": {"levels": [[21], [13]], "tower_widths": [9]},
    "home": {"levels": [[21, 15], [13]], "feature_gates": 3, "rank": 3, "normalise": False, "tower_widths": [9]},
    "ml_mmoe": {"experts": 3, "levels": [[21], [13]], "tower_widths": [9]},
    "mmoe": {"experts": 3, "expert_widths": [21, 13], "tower_widths": [9]},
    "omoe": {"experts": 3, "expert_widths": [21, 13], "tower_widths": [9]},
    "ple": {"levels": [[21], [13]], "task_experts": 2, "shared_experts": 1, "tower_widths": [9]},
    "single_task": {"bottom_widths": [19, 13], "tower_widths": [9]},
    "single_task with own tables": {
        "name": "single_task",
        "tables": "own",
        "bottom_widths": [19, 13],
        "tower_widths": [9],
    },
    "stem": {"expert_widths": [21, 13], "task_experts": 2, "shared_experts": 3, "tower_widths": [9]},
    "shared_bottom": {"bottom_widths": [31, 17], "tower_widths": [9]},
}
# every model is drawn with one of these besides its own sizes, and with one of the objectives
BESIDE = [
    {},
    {"activation": "swish", "normalise": True},
    {"dropout": 0.1},
    {"feature_gating": {"kind": "senet"}, "cross": {"kind": "full", "layers": 3}},
    {"feature_gating": {"kind": "gate"}, "cross": {"kind": "low_rank", "rank": 5}},
    {"cross": {"kind": "mixture", "rank": 3, "experts": 2}},
    {"request": {"width": 14}},
    {"request": {"width": 7, "heads": 1, "summaries": []}, "feature_gating": {"kind": "senet"}},
    {"request": {"width": 15, "heads": 3, "summaries": ["max", "pooled"], "self_attention": False}},
]
# where a candidate has a history to look into, one of these comes on top
ATTENTION = [
    {},
    {"attention": {"kind": "din", "hidden": [7, 5]}},
    {"attention": {"kind": "din", "softmax": True}},
    {"attention": {"kind": "multihead", "heads": 3, "width": 5}},
    {"attention": {"kind": "multihead", "activation": "relu"}},
]
OBJECTIVES = [{"name": name} for name in objectives.names()]
some = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def network(data, name, *, min_candidates=0):
    """A spec, its fresh ranker and a batch."""
    spec = data.draw(strategies.specs(model=name))
    looks = data.draw(st.sampled_from(ATTENTION if histories(spec) else ATTENTION[:1]))
    model = {"name": name, **SMALL.get(name, {}), **data.draw(st.sampled_from(BESIDE)), **looks}
    spec = spec.model_copy(update={"model": model, "objective": data.draw(st.sampled_from(OBJECTIVES))})
    rows = data.draw(strategies.rows(spec, min_candidates=min_candidates))
    return spec, ranker.create(spec, strategies.preprocessor(spec), seed=1, device=CPU), strategies.batch(spec, rows)


def plain(model, spec):
    """The same network over plain tables, as it is read from a checkpoint."""
    return ranker.from_weights(spec, strategies.preprocessor(spec), ranker.weights_of(model))


@pytest.mark.parametrize("name", NAMES)
@some
@given(data=st.data())
def test_one_finite_logit_per_candidate_and_task(name, data):
    """Missing values, empty lists, one task or four, a side without features."""
    spec, model, batch = network(data, name, min_candidates=1)
    laws.one_finite_logit_per_candidate_and_task(model, spec, batch)


@pytest.mark.parametrize("name", NAMES)
@some
@given(data=st.data())
def test_a_child_is_never_likelier_than_its_parent(name, data):
    """In float32, on what is served, by any tree of tasks; and there is no more of a quantity than its parent lets."""
    spec, model, batch = network(data, name, min_candidates=1)
    actual = scorer(model, laws.parents_of(spec), CPU)(batch)
    laws.a_child_is_never_likelier_than_its_parent(actual, laws.event_parents_of(spec))
    laws.an_amount_is_what_its_parent_lets_through(actual, spec)


@pytest.mark.parametrize("name", NAMES)
@some
@given(data=st.data())
def test_a_request_scores_the_same_alone(name, data):
    """Neighbours in the batch do not change a score."""
    _, model, batch = network(data, name)
    if len(batch):
        laws.a_request_scores_the_same_alone(model.eval(), batch)


@pytest.mark.parametrize("name", NAMES)
@some
@given(data=st.data())
def test_candidate_order_does_not_matter(name, data):
    """Reversed candidates get the reversed scores."""
    _, model, batch = network(data, name, min_candidates=1)
    laws.candidate_order_does_not_matter(model.eval(), batch)


@pytest.mark.parametrize("name", NAMES)
@some
@given(data=st.data())
def test_every_weight_learns(name, data):
    """No parameter is left without a gradient, no used table stays still."""
    spec, model, batch = network(data, name, min_candidates=1)
    laws.every_weight_learns(model, spec, batch)


@pytest.mark.parametrize("name", NAMES)
@some
@given(data=st.data())
def test_plain_tables_score_as_the_fused_ones_do(name, data):
    """What is exported and read without TorchRec is the same network, rebuilt from its weights."""
    spec, model, batch = network(data, name, min_candidates=1)
    rebuilt = plain(model, spec)
    for task, value in laws.logits(model.eval(), batch).items():
        np.testing.assert_allclose(laws.logits(rebuilt, batch)[task], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_onnx_gives_the_same_scores_for_one_request_and_for_many(name, tmp_path_factory, data):
    """One graph, dynamic B and N, to 1e-5 on probabilities, and relatively on amounts."""
    spec, model, batch = network(data, name, min_candidates=1)
    laws.onnx_gives_the_same_scores(plain(model, spec), spec, batch, tmp_path_factory.mktemp("onnx"))


def test_every_model_has_a_line_that_says_what_it_is():
    """`multigate models` prints these."""
    assert set(NAMES) >= {"mmoe", "shared_bottom"}
    assert set(objectives.names()) >= {"esmm"}
    for line in (models.names() | objectives.names()).values():
        assert 20 < len(line) < 120


def test_an_unknown_model_or_setting_is_refused_with_the_nearest():
    """In words a spec's author understands."""
    shape = {"context": 1, "candidate": 1, "tasks": {"a": None}}
    with pytest.raises(SpecError, match=r"model\.name: no model 'mmo': adatt, .*, mmoe, .*; did you mean 'mmoe'"):
        models.create({"name": "mmo"}, **shape)
    with pytest.raises(SpecError, match=r"model\.towers: unknown key; did you mean 'tower_widths'"):
        models.create({"name": "mmoe", "towers": 3}, **shape)
    with pytest.raises(SpecError, match=r"model\.experts: expected greater than or equal to 1, got 0"):
        models.create({"name": "mmoe", "experts": 0}, **shape)


def test_a_spec_without_context_features_trains_and_scores():
    """Census-Income: everything is on the candidate."""
    spec = parse('name = "x"\n[candidates]\nitem = { kind = "id" }\n[tasks.c]\nlabel = "c"')
    model = ranker.create(spec, strategies.preprocessor(spec), seed=1, device=CPU)
    rows = [{"request_id": "r", "time": 0, "context": {}, "candidates": [{"item": 1, "c": 1}, {"item": 2, "c": 0}]}]
    laws.every_weight_learns(model, spec, strategies.batch(spec, rows))
