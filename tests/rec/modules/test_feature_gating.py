"""Feature refinement: its equations, what it is before it has learnt anything, and what runs once per request."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec import models
from rec.errors import SpecError
from rec.modules import feature_gating
from rec.modules.feature_gating import FeatureGatingConfig
from tests.rec.modules.products import drawn, multiply_adds, owners, pair, shaken
from tests.reference import refine as slow

KINDS = ["senet", "gate"]
some = settings(max_examples=40, deadline=None)


def created(kind, context, candidate, *, reduction=2):
    """A refinement whose weights are drawn from a fixed seed, none of them zero."""
    torch.manual_seed(1)
    config = FeatureGatingConfig.model_validate({"kind": kind, "reduction": reduction})
    return shaken(feature_gating.create(config, context=context, candidate=candidate))


@st.composite
def sides(draw):
    """(fields of both sides, context [B, C], candidate [N, D], owner [N]); a side may have no field."""
    requests, owner = draw(owners())
    fields = draw(st.sampled_from([([1, 4, 2], [3, 1]), ([2], [1]), ([], [2, 3]), ([4, 1], []), ([], [])]))
    context, candidate = drawn(requests, sum(fields[0]), seed=1), drawn(len(owner), sum(fields[1]), seed=2)
    return fields, context, candidate, owner


def weights(module):
    """The two layers of both sides as (weight [out, in], bias [out]), None for a side without fields."""
    out = []
    for side in (module.weights.context, module.weights.candidate):
        layers = None
        if side is not None:
            up = side.up.weight.detach().numpy(), side.up.bias.detach().numpy()
            layers = (pair(side.down), side.down.bias.detach().numpy()), up
        out.append(layers)
    return out


@some
@given(inputs=sides(), reduction=st.integers(1, 5))
def test_senet_is_its_equations(inputs, reduction):
    """Against a loop over rows and fields."""
    fields, *given_sides = inputs
    module = created("senet", *fields, reduction=reduction)
    twin = slow.senet(*(x.numpy() for x in given_sides), fields, weights(module))
    with torch.no_grad():
        for actual, expected in zip(module(*given_sides), twin, strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-12)


@some
@given(inputs=sides(), reduction=st.integers(1, 5))
def test_gates_are_their_equations(inputs, reduction):
    """Against a loop over rows."""
    fields, *given_sides = inputs
    module = created("gate", *fields, reduction=reduction)
    twin = slow.gate(*(x.numpy() for x in given_sides), weights(module))
    with torch.no_grad():
        for actual, expected in zip(module(*given_sides), twin, strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@some
@given(inputs=sides())
def test_a_fresh_refinement_changes_nothing(kind, inputs):
    """Every weight is exactly 1, whatever it is given."""
    (context, candidate), *given_sides = inputs
    module = feature_gating.create(FeatureGatingConfig(kind=kind), context=context, candidate=candidate).double()
    for actual, before in zip(module(*given_sides), given_sides, strict=False):
        assert torch.equal(actual, before)


@pytest.mark.parametrize("kind", KINDS)
@some
@given(inputs=sides())
def test_weights_lie_between_nothing_and_double(kind, inputs):
    """No column changes its sign."""
    fields, *given_sides = inputs
    with torch.no_grad():
        for actual, before in zip(created(kind, *fields)(*given_sides), given_sides, strict=False):
            assert ((actual / before > 0) & (actual / before < 2)).all()


def test_the_columns_of_a_field_have_one_weight():
    """SENet weighs fields; a gate weighs columns."""
    given_sides = drawn(1, 5, seed=1), drawn(2, 4, seed=2), torch.tensor([0, 0])
    spread = {}
    for kind in KINDS:
        with torch.no_grad():
            _, actual = created(kind, [2, 3], [3, 1])(*given_sides)
        spread[kind] = (actual / given_sides[1])[:, :3].std(1).max().item()
    assert spread["senet"] < 1e-12
    assert spread["gate"] > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_context_is_weighed_by_itself_and_the_candidate_by_both(kind):
    """Other candidates leave the context's columns as they are; another context changes a candidate's."""
    module, owner = created(kind, [2, 3], [3, 1]), torch.tensor([0, 1])
    context, candidate = drawn(2, 5, seed=1), drawn(2, 4, seed=2)
    with torch.no_grad():
        before, other = module(context, candidate, owner), module(context, candidate + 1, owner)
        moved = module(context * torch.tensor([[1.0], [2.0]], dtype=torch.float64), candidate, owner)
    assert torch.equal(before[0], other[0])
    assert torch.equal(before[1][0], moved[1][0])
    assert not torch.isclose(before[1][1], moved[1][1]).any()


@pytest.mark.parametrize(
    ("kind", "once", "each"),
    [
        # 6 and 4 fields, hidden 3 and 5: means, context's weights, context's half of the candidate's; and the rest
        ("senet", 12 * 6 + 6 * 3 + 3 * 6 + 6 * 5, 8 * 4 + 4 * 5 + 5 * 4),
        # 12 and 8 columns, hidden 6 and 10
        ("gate", 12 * 6 + 6 * 12 + 12 * 10, 8 * 10 + 10 * 8),
    ],
)
def test_what_the_context_decides_is_worked_out_once_per_request(kind, once, each):
    """Two requests of ten candidates: multiply-adds as one counts them by hand."""
    module = created(kind, [2] * 6, [2] * 4)
    given_sides = drawn(2, 12, seed=1), drawn(20, 8, seed=2), torch.arange(2).repeat_interleave(10)
    with torch.no_grad():
        assert multiply_adds(module, *given_sides) == 2 * once + 20 * each


def test_a_gate_lets_no_gradient_through_to_what_it_looks_at():
    """The gradient of a column is its weight; through SENet it is more than that."""
    for kind, walled in (("gate", True), ("senet", False)):
        context, candidate = drawn(1, 3, seed=1).requires_grad_(), drawn(2, 2, seed=2).requires_grad_()
        actual = created(kind, [2, 1], [1, 1])(context, candidate, torch.tensor([0, 0]))
        sum(side.sum() for side in actual).backward()
        for side, before in zip(actual, (context, candidate), strict=True):
            assert torch.allclose(before.grad, (side / before).detach()) is walled


def test_every_weight_of_a_fresh_refinement_can_learn():
    """The last layer at once, the first as soon as the last is no longer zero."""
    torch.manual_seed(1)
    for kind in KINDS:
        module = feature_gating.create(FeatureGatingConfig(kind=kind), context=[2, 1, 1], candidate=[1, 3, 2])
        step = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(2):
            step.zero_grad()
            sides = module(drawn(9, 4, seed=1).float(), drawn(9, 6, seed=2).float(), torch.arange(9))
            sum(side.square().sum() for side in sides).backward()
            step.step()
        assert all(p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_nan_stays_with_its_candidate(kind):
    """It is not hidden, and not spread."""
    candidate = drawn(3, 4, seed=2)
    candidate[1, 0] = torch.nan
    with torch.no_grad():
        context, actual = created(kind, [2, 3], [3, 1])(drawn(2, 5, seed=1), candidate, torch.tensor([0, 0, 1]))
    assert context.isfinite().all()
    assert actual.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "sent"}, "model.feature_gating.kind: expected 'senet' or 'gate', got 'sent'; did you mean 'senet'?"),
        ({"kind": "gate", "reduce": 2}, "model.feature_gating.reduce: unknown key; did you mean 'reduction'?"),
    ],
    ids=str,
)
def test_an_unknown_kind_or_setting_is_refused(settings, message):
    """In words a spec's author understands."""
    with pytest.raises(SpecError) as caught:
        models.configured({"feature_gating": settings})
    assert str(caught.value) == message
