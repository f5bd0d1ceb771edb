"""Crosses: their equations, what the three kinds have in common, and what runs once per request."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec import models
from rec.errors import SpecError
from rec.modules.cross_network import CrossConfig, FullCross, LowRankCross, MixtureCross, create
from tests.rec.modules.products import drawn, multiply_adds, owners, pair, shaken
from tests.reference import cross as slow

some = settings(max_examples=40, deadline=None)


def created(*, context, candidate, **settings):
    """A cross network, its weights drawn from a fixed seed and none of them zero."""
    torch.manual_seed(1)
    return shaken(create(CrossConfig.model_validate(settings), context=context, candidate=candidate))


@st.composite
def sides(draw):
    """(context [B, C], candidate [N, D], owner [N]); one of the widths may be 0."""
    requests, owner = draw(owners())
    context, candidate = draw(st.sampled_from([(3, 2), (1, 4), (0, 3), (2, 0), (1, 1)]))
    return drawn(requests, context, seed=1), drawn(len(owner), candidate, seed=2), owner


def flat(context, candidate, owner):
    """One row per candidate [N, C + D], numpy."""
    return torch.cat([context[owner], candidate], 1).numpy()


def bias(layer):
    """Of the layer on the right, numpy."""
    return (layer.linear if isinstance(layer, FullCross) else layer.up).bias.detach().numpy()


def thin(layer):
    """U [M, R] and V [M, R], numpy; for a mixture, all experts' side by side."""
    return layer.up.weight.detach().numpy(), pair(layer.down).T


@some
@given(inputs=sides(), layers=st.integers(1, 3))
def test_a_full_cross_is_its_equation(inputs, layers):
    """Against a loop over candidates and layers."""
    net = created(kind="full", layers=layers, context=inputs[0].shape[1], candidate=inputs[1].shape[1])
    twin = slow.full(flat(*inputs), [(pair(layer.linear), bias(layer)) for layer in net.layers])
    with torch.no_grad():
        np.testing.assert_allclose(net(*inputs), twin, atol=1e-9, rtol=1e-9)


@some
@given(inputs=sides(), layers=st.integers(1, 3), rank=st.integers(1, 4))
def test_a_low_rank_cross_is_its_equation(inputs, layers, rank):
    """Against a loop over candidates and layers."""
    net = created(kind="low_rank", layers=layers, rank=rank, context=inputs[0].shape[1], candidate=inputs[1].shape[1])
    twin = slow.low_rank(flat(*inputs), [(*thin(layer), bias(layer)) for layer in net.layers])
    with torch.no_grad():
        np.testing.assert_allclose(net(*inputs), twin, atol=1e-9, rtol=1e-9)


@some
@given(inputs=sides(), layers=st.integers(1, 3), rank=st.integers(1, 4), experts=st.integers(1, 3))
def test_a_mixture_of_crosses_is_its_equation(inputs, layers, rank, experts):
    """Against a loop over candidates, layers and experts."""
    shape = {"context": inputs[0].shape[1], "candidate": inputs[1].shape[1]}
    net = created(kind="mixture", layers=layers, rank=rank, experts=experts, **shape)
    parts = []
    for layer in net.layers:
        u, v = (np.split(weight, experts, axis=1) for weight in thin(layer))
        core = layer.core.detach().numpy().transpose(0, 2, 1)
        parts.append(([*zip(u, core, v, strict=True)], pair(layer.gate), layer.gate.bias.detach().numpy(), bias(layer)))
    with torch.no_grad():
        np.testing.assert_allclose(net(*inputs), slow.mixture(flat(*inputs), parts), atol=1e-9, rtol=1e-9)


def test_a_cross_of_one_column_is_a_polynomial():
    """With weight 1 and bias 0 it is x (1 + x)^L: 2, 6, 18, 54."""
    for layers, expected in enumerate([6.0, 18.0, 54.0], start=1):
        net = create(CrossConfig(kind="full", layers=layers), context=0, candidate=1)
        for layer in net.layers:
            torch.nn.init.ones_(layer.linear.candidate)
        with torch.no_grad():
            assert net(torch.empty(1, 0), torch.tensor([[2.0]]), torch.tensor([0])).item() == expected


def test_low_rank_at_full_rank_is_full():
    """Given W = U V^T."""
    inputs = drawn(2, 3, seed=1), drawn(4, 2, seed=2), torch.tensor([0, 1, 1, 1])
    low, full = (
        created(kind=kind, context=3, candidate=2, **more) for kind, more in (("low_rank", {"rank": 5}), ("full", {}))
    )
    with torch.no_grad():
        for thin_layer, layer in zip(low.layers, full.layers, strict=True):
            u, v = thin(thin_layer)
            w = torch.from_numpy(u @ v.T)
            if layer.linear.context is None:
                layer.linear.candidate.copy_(w)
            else:
                layer.linear.context.copy_(w[:, :3])
                layer.linear.candidate.copy_(w[:, 3:])
            layer.linear.bias.copy_(thin_layer.up.bias)
        torch.testing.assert_close(low(*inputs), full(*inputs))


def test_a_mixture_of_one_expert_is_low_rank_where_tanh_is_straight():
    """Its gate is 1; with C = 1 and V small, U as much larger, tanh(tanh(z)) is z."""
    inputs = drawn(2, 3, seed=1), drawn(4, 2, seed=2), torch.tensor([0, 1, 1, 1])
    shape = {"context": 3, "candidate": 2, "rank": 4}
    single, low = created(kind="mixture", experts=1, **shape), created(kind="low_rank", **shape)
    with torch.no_grad():
        for mixed, plain in zip(single.layers, low.layers, strict=True):
            mixed.core.copy_(torch.eye(4))
            mixed.up.bias.copy_(plain.up.bias)
            mixed.up.weight.copy_(plain.up.weight * 1e5)
            for name in ("context", "candidate"):
                if (weight := getattr(plain.down, name)) is not None:
                    getattr(mixed.down, name).copy_(weight * 1e-5)
        torch.testing.assert_close(single(*inputs), low(*inputs), atol=1e-7, rtol=1e-7)


def test_experts_of_a_mixture_have_no_order():
    """Permuted with their gates they give the same."""
    inputs = drawn(2, 3, seed=1), drawn(4, 2, seed=2), torch.tensor([0, 1, 1, 1])
    net = created(kind="mixture", experts=3, rank=2, layers=1, context=3, candidate=2)
    before, order = net(*inputs), torch.tensor([2, 0, 1])
    layer = net.layers[0]
    with torch.no_grad():
        layer.core.copy_(layer.core[order])
        layer.up.weight.copy_(layer.up.weight.unflatten(1, (3, 2))[:, order].flatten(1))
        for p in (layer.down.context, layer.down.candidate):
            p.copy_(p.unflatten(0, (3, 2))[order].flatten(0, 1))
        for p in layer.gate.parameters():
            p.copy_(p[order])
    torch.testing.assert_close(net(*inputs), before)


@pytest.mark.parametrize(
    ("settings", "once", "each"),
    [
        ({"kind": "full"}, 7 * 12, 5 * 12 + 12 * 12),
        ({"kind": "low_rank", "rank": 3}, 7 * 3, 5 * 3 + 12 * 3 + 2 * 3 * 12),
        (
            {"kind": "mixture", "rank": 3, "experts": 2},
            7 * 6 + 7 * 2,
            5 * 6 + 5 * 2 + 12 * 6 + 12 * 2 + 2 * (2 * 9 + 6 * 12),
        ),
    ],
    ids=["full", "low_rank", "mixture"],
)
def test_the_first_layer_sees_the_context_once_per_request(settings, once, each):
    """Two layers, two requests of ten candidates, C = 7, D = 5, M = 12: multiply-adds as one counts them by hand."""
    net = created(**settings, context=7, candidate=5)
    inputs = drawn(2, 7, seed=1), drawn(20, 5, seed=2), torch.arange(2).repeat_interleave(10)
    with torch.no_grad():
        assert multiply_adds(net, *inputs) == 2 * once + 20 * each


@pytest.mark.parametrize("kind", ["full", "low_rank", "mixture"])
def test_sides_without_columns_have_no_crosses(kind):
    """No column, no weight, no gradient that could be missing."""
    net = created(kind=kind, context=0, candidate=0)
    assert list(net.parameters()) == []
    assert net(torch.empty(2, 0), torch.empty(3, 0), torch.tensor([0, 0, 1])).shape == (3, 0)


@pytest.mark.parametrize("kind", ["full", "low_rank", "mixture"])
def test_a_planted_nan_stays_with_its_candidate(kind):
    """It is not hidden, and not spread."""
    candidate = drawn(3, 2, seed=2)
    candidate[1, 0] = torch.nan
    with torch.no_grad():
        actual = created(kind=kind, context=3, candidate=2)(drawn(2, 3, seed=1), candidate, torch.tensor([0, 0, 1]))
    assert actual.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("kind", ["full", "low_rank", "mixture"])
def test_a_fresh_network_has_no_crosses_and_can_learn_them(kind):
    """It gives what it was given; one step later no weight stands still."""
    torch.manual_seed(1)
    net = create(CrossConfig.model_validate({"kind": kind}), context=3, candidate=2)
    inputs = drawn(2, 3, seed=1).float(), drawn(4, 2, seed=2).float(), torch.tensor([0, 1, 1, 1])
    assert torch.equal(net(*inputs), torch.cat([inputs[0][inputs[2]], inputs[1]], 1))
    step = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        step.zero_grad()
        net(*inputs).square().sum().backward()
        step.step()
    assert all(p.grad.any() for p in net.parameters())


def test_thin_matrices_start_at_one_scale():
    """Whatever the widths of the two sides are."""
    torch.manual_seed(1)
    layer = create(CrossConfig(kind="low_rank", layers=1, rank=40), context=60, candidate=300).layers[0]
    for side in (layer.down.context, layer.down.candidate):
        assert side.std().item() == pytest.approx(200**-0.5, rel=0.03)


def test_each_kind_is_what_it_is_called():
    """The settings decide which layer is made."""
    made_of = {
        kind: type(created(kind=kind, context=2, candidate=2).layers[0]) for kind in ("full", "low_rank", "mixture")
    }
    assert made_of == {"full": FullCross, "low_rank": LowRankCross, "mixture": MixtureCross}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"kind": "ful"},
            "model.cross.kind: expected 'full', 'low_rank' or 'mixture', got 'ful'; did you mean 'full'?",
        ),
        ({"kind": "full", "rank": 2}, "model.cross: expected no 'rank' with kind 'full'"),
        ({"kind": "low_rank", "experts": 2}, "model.cross: expected no 'experts' with kind 'low_rank'"),
        ({"kind": "mixture", "layers": 0}, "model.cross.layers: expected greater than or equal to 1, got 0"),
    ],
    ids=str,
)
def test_a_setting_that_means_nothing_is_refused(settings, message):
    """A setting of another kind is not ignored."""
    with pytest.raises(SpecError) as caught:
        models.configured({"cross": settings})
    assert str(caught.value) == message
