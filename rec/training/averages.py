"""Exponential moving averages of the dense weights in the place of the weights, while a model is evaluated or kept.

Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM 1992; tables are not averaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rec.training.step import Fit


@contextmanager
def averaged_weights(fit: Fit) -> Iterator[None]:
    """Inside the block the model has its averaged weights, where there are any."""
    live = {name: weight.detach().clone() for name, weight in fit.ranker.dense().items() if name in fit.averages}
    _put(fit, fit.averages)
    try:
        yield
    finally:
        _put(fit, live)


@torch.no_grad()
def _put(fit: Fit, weights: dict[str, torch.Tensor]) -> None:
    dense = fit.ranker.dense()
    for name, weight in weights.items():
        dense[name].copy_(weight)
