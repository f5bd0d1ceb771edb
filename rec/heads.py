"""From one representation per task to one logit per task, starting from each task's base rate.

A head learns how a candidate differs from the base rate, which is added to its logit: a task that happens once in a
thousand does not spend its first epoch on finding that out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rec.layers import Towers
from rec.sizes import Sizes


class Heads(nn.Module):
    """A tower per task above representations [T, N, H]; `rates` are P(task | parent) in the training split.

    `sizes` and `width` are kept for objectives that build towers of their own beside these.
    """

    prior: Tensor

    def __init__(self, rates: Mapping[str, float], *, width: int, sizes: Sizes) -> None:
        super().__init__()
        self.rates = dict(rates)
        self.width, self.sizes = width, sizes
        self.towers = Towers(len(rates), width, sizes.tower, sizes.dropout)
        self.register_buffer("prior", torch.tensor(list(rates.values())).logit())

    def forward(self, hidden_TNH: Tensor) -> dict[str, Tensor]:
        """{task: logit [N]}."""
        logit_TN = self.towers(hidden_TNH).squeeze(-1) + self.prior.unsqueeze(1)
        return dict(zip(self.rates, logit_TN.unbind(0), strict=True))
