"""Steps of everything but tables: what weight decay takes from, and what it spares."""

from __future__ import annotations

import torch
from torch import nn

from rec.modules.experts import ExpertNorm
from rec.modules.linear import BatchedLinear, PairLinear
from rec.spec import Train
from rec.training import optimizers


class Parts(nn.Module):
    """A layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.batched, self.norm, self.plain = (
            PairLinear(2, 3, 4),
            BatchedLinear(2, 3, 4),
            ExpertNorm(2, 4),
            nn.Linear(3, 2),
        )


def test_biases_and_normalisations_do_not_decay():
    """Without a gradient only weights that multiply an input shrink."""
    parts = Parts()
    weights = dict(parts.named_parameters())
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = optimizers.dense(weights, Train(weight_decay=0.1, lr=0.5))
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    shrunk = {name for name, weight in weights.items() if not torch.equal(weight, before[name])}
    assert shrunk == {"pair.context", "pair.candidate", "batched.weight", "plain.weight"}
    for name in shrunk:
        torch.testing.assert_close(weights[name].detach(), before[name] * 0.95)


def test_every_weight_is_stepped_on_once():
    """Whatever decays; without decay in the order of the network, as ever."""
    weights = dict(Parts().named_parameters())
    for decay in (0.0, 0.1):
        groups = optimizers.dense(weights, Train(weight_decay=decay)).param_groups
        held = [weight for group in groups for weight in group["params"]]
        assert sorted(map(id, held)) == sorted(map(id, weights.values()))
        assert all(group["lr"] == Train().lr for group in groups)
    assert optimizers.dense(weights, Train()).param_groups[0]["params"] == list(weights.values())
