"""Softmax gates, and the mixtures of experts they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rec.modules import cpu


class Gates(nn.Module):
    """Softmax gates, one linear layer each: weights [N, G, E] over the experts a gate can see, exactly 0 elsewhere.

    `rows` names the gates, `owners` the group of each expert; `sees(row, owner)` masks experts (all are visible, by
    default). `linear` gives logits [N, G * E] or [G, N, E].
    """

    hidden: Tensor

    def __init__(
        self,
        linear: nn.Module,
        rows: Sequence[str],
        owners: Sequence[str],
        sees: Callable[[str, str], bool] = lambda _row, _owner: True,
    ) -> None:
        super().__init__()
        self.rows, self.owners = list(rows), list(owners)
        self.linear = linear
        hidden = [[not sees(row, owner) for owner in owners] for row in rows]
        self.masked = any(map(any, hidden))
        self.register_buffer("hidden", torch.tensor(hidden), persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        """[N, G, E], each row summing to 1."""
        logits = self.linear(*inputs)
        logits_NGE = logits.unflatten(1, (len(self.rows), -1)) if logits.dim() == 2 else logits.transpose(0, 1)
        if self.masked:
            logits_NGE = logits_NGE.masked_fill(self.hidden, -torch.inf)
        return softmax_over_experts(logits_NGE) if self.training else logits_NGE.softmax(2)


def softmax_over_experts(logit_NGE: Tensor) -> Tensor:
    """Softmax of the last axis [N, G, E], while training."""
    return cpu.softmax_over_experts(logit_NGE) if cpu.pays(logit_NGE) else logit_NGE.softmax(2)


def mix(gate_NGE: Tensor, expert_ENH: Tensor) -> Tensor:
    """Each gate's weighted sum of expert outputs [G, N, H]."""
    if gate_NGE.requires_grad and cpu.pays(gate_NGE) and not torch.compiler.is_exporting():
        return cpu.mix_by_bags(gate_NGE, expert_ENH)
    return torch.bmm(gate_NGE, expert_ENH.transpose(0, 1)).transpose(0, 1)
