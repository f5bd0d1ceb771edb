"""The bricks: what is done for speed gives what the plain thing gives, gradients too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rec.modules.cpu import NARROW
from rec.modules.expert_groups import SHARED
from rec.modules.experts import ActivationBlock, ExpertNorm, Experts
from rec.modules.gates import Gates, softmax_over_experts
from rec.modules.linear import BatchedLinear, GroupInputLayer, GroupLayer, SharedInputLayer


def learnt(layer, *given):
    """What a layer gives, and the gradients of its weights and of its first input under a sum that is not even."""
    first = given[0].clone().requires_grad_()
    layer.zero_grad()
    out = layer(first, *given[1:])
    (out * torch.arange(1.0, out.numel() + 1).view(out.shape)).sum().backward()
    return [out.detach(), first.grad, *[p.grad.clone() for p in layer.parameters()]]


@pytest.mark.parametrize("out", [1, NARROW - 1, NARROW])
def test_narrow_layers_are_the_same_layers_while_training(out):
    """One product per layer instead of one for all of them: the numbers do not change."""
    layer, x = BatchedLinear(3, 6, out), torch.randn(3, 5, 6)
    for slow, quick in zip(learnt(layer.eval(), x), learnt(layer.train(), x), strict=True):
        torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-4)


def test_weights_are_a_softmax_over_experts():
    """Also where an expert is hidden; in memory as the product with the experts wants them."""
    logit = torch.randn(5, 2, 3)
    logit[:, 0, 1] = -torch.inf
    actual = softmax_over_experts(logit)
    torch.testing.assert_close(actual, logit.softmax(2))
    assert actual.is_contiguous()


@pytest.mark.parametrize("training", [True, False])
def test_gates_sum_to_one_and_hide_what_they_must(training):
    """By either way of working them out."""
    gates = Gates(BatchedLinear(2, 4, 3), ["a", "b"], ["a", "b", SHARED], lambda row, owner: owner in (row, SHARED))
    gate_NGE = gates.train(training)(torch.randn(2, 5, 4))
    torch.testing.assert_close(gate_NGE.sum(2), torch.ones(5, 2))
    assert gate_NGE[:, 0, 1].eq(0).all()
    assert gate_NGE[:, 1, 0].eq(0).all()
    assert gate_NGE[:, 0, 0].gt(0).all()


@pytest.mark.parametrize("counts", [[2], [1, 1, 1], [2, 2, 2, 1], [2, 1, 2], [0, 3], [1, 0, 2, 2, 0], [3, 1, 2]])
def test_experts_on_units_are_one_perceptron_each(counts):
    """Whatever the number of experts of a unit: expert by expert, on its own unit."""
    torch.manual_seed(1)
    layer, x = GroupLayer(counts, 4, 3), torch.randn(len(counts), 5, 4, requires_grad=True)
    out = layer(x)
    units = [unit for unit, count in enumerate(counts) for _ in range(count)]
    experts = zip(units, layer.layer.weight, layer.layer.bias, strict=True)
    expected = [x[unit] @ weight + bias for unit, weight, bias in experts]
    torch.testing.assert_close(out, torch.stack(expected))
    slope = torch.randn_like(out)
    mine, theirs = (
        torch.autograd.grad((o * slope).sum(), x, retain_graph=True)[0] for o in (out, torch.stack(expected))
    )
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("first", "given"),
    [
        (SharedInputLayer(0, 0, count=2, out=3), (torch.zeros(1, 0), torch.zeros(4, 0))),
        (GroupInputLayer(0, 0, counts=[1, 1], out=3), (torch.zeros(2, 1, 0), torch.zeros(2, 4, 0))),
    ],
)
def test_experts_that_read_nothing_learn_their_biases(first, given):
    """A spec without features is a base rate, and trains."""
    experts = Experts(first, [SHARED] * 2, [3])
    with torch.no_grad():
        nn.init.ones_(next(first.parameters()))
    out = experts(*given, torch.zeros(4, dtype=torch.int64))
    out.sum().backward()
    torch.testing.assert_close(out, torch.ones(2, 4, 3))
    assert next(first.parameters()).grad.eq(4).all()


LAYOUTS = {"apart": lambda x: x, "side by side": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1)}


class Plain(nn.Module):
    """A Norm, and what follows it."""

    def __init__(self, norm, bent):
        super().__init__()
        self.norm, self.bent = norm, bent

    def forward(self, x):
        return self.bent(self.norm(x))


@pytest.mark.parametrize("activation", ["relu", "swish"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_experts_normalised_one_by_one_are_normalised_alike(layout, activation):
    """Outputs, gradients and running statistics, however the activations lie in memory."""
    torch.manual_seed(2)
    x = torch.randn(3, 7, 5)
    active = ActivationBlock(3, 5, norm=True, activation=activation, dropout=0.0)
    plain = Plain(ExpertNorm(3, 5), nn.functional.silu if activation == "swish" else torch.relu)
    for quick, slow in zip(learnt(active, LAYOUTS[layout](x)), learnt(plain, x), strict=True):
        torch.testing.assert_close(quick, slow, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(active.norm.mean, plain.norm.mean)
    torch.testing.assert_close(active.norm.variance, plain.norm.variance)


def test_a_norm_put_aside_keeps_its_statistics_while_the_rest_trains():
    """As when a trained network is frozen in part."""
    active = ActivationBlock(3, 5, norm=True, activation="relu", dropout=0.0).train()
    active.norm.eval()
    x = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(active(x), torch.relu(active.norm(x)))
    assert active.norm.mean.abs().max() == 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("counts", [[1, 1], [2, 1], [0, 3]])
def test_experts_on_inputs_of_their_own_read_both_sides(counts, training):
    """Context once per request, then each candidate: expert by expert, on its own unit."""
    torch.manual_seed(3)
    first = GroupInputLayer(3, 2, counts=counts, out=NARROW).train(training)
    context, candidate, owner = torch.randn(2, 2, 3), torch.randn(2, 4, 2), torch.tensor([0, 0, 1, 1])
    expected = []
    for index, unit in enumerate(first.context.home.tolist()):
        sides = (first.context.layer, context[unit][owner]), (first.candidate.layer, candidate[unit])
        expected.append(sum(x @ layer.weight[index] + layer.bias[index] for layer, x in sides))
    torch.testing.assert_close(first(context, candidate, owner), torch.stack(expected))


def test_experts_on_the_raw_input_are_the_same_while_training():
    """Another way through memory, the same numbers and gradients."""
    first = SharedInputLayer(3, 2, count=4, out=5)
    given = torch.randn(2, 3), torch.randn(4, 2), torch.tensor([0, 0, 1, 1])
    for slow, quick in zip(learnt(first.eval(), *given), learnt(first.train(), *given), strict=True):
        torch.testing.assert_close(quick, slow, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("context", "candidate"), [(64, 64), (16, 128), (128, 16), (0, 64), (64, 0)])
def test_a_layer_of_two_sides_starts_as_wide_as_one_of_both_side_by_side(context, candidate):
    """Its output's deviation is that of nn.Linear on all columns, bias included."""
    torch.manual_seed(2)
    sides = torch.randn(1, 400, context), torch.randn(1, 400, candidate)
    first = GroupInputLayer(context, candidate, counts=[200], out=8)
    plain = nn.Linear(context + candidate, 1600)
    expected = plain(torch.cat(sides, 2)).std()
    assert first(*sides, torch.arange(400)).std().item() == pytest.approx(expected.item(), rel=0.03)
