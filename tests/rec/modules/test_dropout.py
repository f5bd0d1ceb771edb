"""Dropout: what is left out, and what is left."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.modules.dropout import Dropout


@settings(deadline=None, derandomize=True)
@given(share=st.sampled_from([0.1, 0.2, 0.5, 0.9]), experts=st.integers(1, 3), rows=st.integers(2, 40))
def test_dropout_leaves_out_its_share_and_keeps_the_mean(share, experts, rows):
    """What is kept is scaled by what was left out, to the 256th; in a view of experts side by side too."""
    dropout = Dropout(share)
    x = torch.ones(rows, experts * 257).unflatten(1, (experts, -1)).transpose(0, 1)
    actual = dropout(x)
    keep_rate = 1 - round(share * 256) / 256
    assert set(actual.unique().tolist()) <= {0.0, torch.tensor(1 / keep_rate).item()}
    assert abs((actual > 0).float().mean() - keep_rate) < 5 * (keep_rate * (1 - keep_rate) / x.numel()) ** 0.5
    assert actual.is_contiguous() == x.is_contiguous()
    assert dropout.eval()(x) is x


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_share_that_rounds_to_nothing_or_all_is_left_out_all_the_same(share):
    """Below 1/512 and above 511/512: the share itself, and the mean stays."""
    torch.manual_seed(5)
    actual = Dropout(share)(torch.ones(2_000_000))
    assert (actual == 0).float().mean().item() == pytest.approx(share, rel=0.1)
    assert actual.mean().item() == pytest.approx(1.0, rel=0.1)


def test_dropout_is_drawn_from_the_seed_and_independently():
    """The same seed leaves out the same units; neighbours, which share a random number, are not alike."""
    torch.manual_seed(3)
    first = Dropout(0.5)(torch.ones(1000, 64))
    torch.manual_seed(3)
    assert torch.equal(first, Dropout(0.5)(torch.ones(1000, 64)))
    alike = torch.corrcoef((first > 0).float().t())
    assert (alike - torch.eye(64)).abs().max() < 0.2
