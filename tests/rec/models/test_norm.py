"""Batch normalisation of many experts at once, against torch's of one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rec.modules.experts import ExpertNorm

EXPERTS, ROWS, WIDTH = 3, 17, 5


def experts_side_by_side():
    """[E, N, H] as the first layer on the raw input gives it: a view of [N, E * H]."""
    return torch.randn(ROWS, EXPERTS * WIDTH).unflatten(1, (EXPERTS, WIDTH)).transpose(0, 1)


LAYOUTS = {"stacked": lambda: torch.randn(EXPERTS, ROWS, WIDTH), "side by side": experts_side_by_side}


def pair():
    """Ours, and torch's for every expert, with the same weights."""
    ours = ExpertNorm(EXPERTS, WIDTH)
    theirs = [nn.BatchNorm1d(WIDTH) for _ in range(EXPERTS)]
    with torch.no_grad():
        for e, norm in enumerate(theirs):
            norm.weight.copy_(ours.scale[e, 0].normal_())
            norm.bias.copy_(ours.shift[e, 0].normal_())
    return ours, theirs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_torchs_batch_normalisation_of_every_expert(layout):
    """Outputs, gradients of inputs and weights, running statistics; then, not training, by the statistics."""
    torch.manual_seed(1)
    ours, theirs = pair()
    for _ in range(2):
        x = LAYOUTS[layout]().requires_grad_()
        pull = torch.randn(EXPERTS, ROWS, WIDTH)
        mine = ours(x)
        mine.mul(pull).sum().backward()
        for e, norm in enumerate(theirs):
            expert = x[e].detach().clone().requires_grad_()
            out = norm(expert)
            out.mul(pull[e]).sum().backward()
            torch.testing.assert_close(mine[e], out)
            torch.testing.assert_close(x.grad[e], expert.grad)
            torch.testing.assert_close(ours.scale.grad[e, 0], norm.weight.grad)
            torch.testing.assert_close(ours.shift.grad[e, 0], norm.bias.grad)
            torch.testing.assert_close(ours.mean[e, 0], norm.running_mean)
            torch.testing.assert_close(ours.variance[e, 0], norm.running_var)
    x = LAYOUTS[layout]()
    expected = torch.stack([norm.eval()(x[e]) for e, norm in enumerate(theirs)])
    torch.testing.assert_close(ours.eval()(x), expected)


def test_it_can_be_differentiated_twice():
    """Balancing methods take gradients of gradients."""
    norm = ExpertNorm(2, 3).double()
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, x)
    assert torch.autograd.gradgradcheck(norm, x)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_candidates_are_normalised_by_the_running_statistics(rows):
    """They have no variance of their own, and leave no trace."""
    norm = ExpertNorm(EXPERTS, WIDTH)
    norm.mean.normal_()
    before = norm.mean.clone()
    x = torch.randn(EXPERTS, rows, WIDTH)
    out = norm.train()(x)
    assert torch.equal(norm.mean, before)
    assert torch.equal(out, norm.eval()(x))
