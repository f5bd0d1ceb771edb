"""Sides of any shape for what lies below the experts, and the multiply-adds of a call."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode


def drawn(*shape, seed):
    """Normal numbers, double precision."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def owners(draw, *, empty=True):
    """(number of requests, owner [N]): one to four requests of up to three candidates each, some without any."""
    counts = draw(st.lists(st.integers(0 if empty else 1, 3), min_size=1, max_size=4))
    return len(counts), torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def shaken(module, *, seed=3):
    """The module in double precision, none of its weights zero."""
    module.double()
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.add_(drawn(*p.shape, seed=seed + i) * 0.3)
    return module


def multiply_adds(run, *given):
    """Of the matrix products in `run(*given)`."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _in_place}) as counter:
        run(*given)
    return counter.get_total_flops() / 2


def pair(layer):
    """A PairLinear's weight [out, C + D], numpy."""
    return torch.cat([p for p in (layer.context, layer.candidate) if p is not None], 1).detach().numpy()


def _in_place(_out, left, right, *_rest, **_options):
    return 2 * torch.Size(left).numel() * right[-1]
