"""Classification heads: one logit per task, its output bias initialised from the task's base rate.

The logit of the base rate is a constant offset, so that a head of a rare task need not learn it first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rec.modules.towers import Towers
from rec.spec import Task
from rec.spec.tasks import given


class Heads(nn.Module):
    """A tower per task above representations [T, N, H]; `rates` are P(task | parent) in the training split.

    `width` is H, `tower_widths` are those of a tower's hidden layers; objectives that build towers of their own beside
    these read them too (ChildTowers).
    """

    prior: Tensor

    def __init__(
        self, rates: Mapping[str, float], *, width: int, tower_widths: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.rates = dict(rates)
        self.width, self.tower_widths, self.dropout = width, list(tower_widths), dropout
        self.towers = Towers(len(rates), width, tower_widths, dropout)
        # on the CPU: on the meta device, where specs are validated, a logit imports the compiler
        self.register_buffer("prior", torch.tensor(list(rates.values()), device="cpu").logit())
        self.offset: Tensor | None = None  # [T, N], inside `moved`

    def forward(self, hidden_TNH: Tensor) -> dict[str, Tensor]:
        """{task: logit [N]}."""
        logit_TN = self.towers(hidden_TNH).squeeze(-1) + self.prior.unsqueeze(1)
        if self.offset is not None:
            logit_TN = logit_TN + self.offset
        return dict(zip(self.rates, logit_TN.unbind(0), strict=True))


@contextmanager
def moved(heads: Heads, offset_TN: Tensor | None) -> Iterator[None]:
    """Inside the block `offset` [T, N] is added to the logits, where there is one."""
    heads.offset = offset_TN
    try:
        yield
    finally:
        heads.offset = None


class ChildTowers(nn.Module):
    """An additional tower for each of the K tasks with a parent (`names`), on the representation its head reads."""

    def __init__(self, heads: Heads, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.names = [name for name, parent in given(tasks).items() if parent is not None]
        self.places = [list(heads.rates).index(name) for name in self.names]
        count = len(self.names)
        self.towers = Towers(count, heads.width, heads.tower_widths, heads.dropout) if count else None

    def forward(self, hidden_TNH: Tensor) -> Tensor:
        """[K, N]; K may be 0."""
        if self.towers is None:
            return hidden_TNH.new_zeros(0, hidden_TNH.shape[1])
        return self.towers(torch.stack([hidden_TNH[place] for place in self.places])).squeeze(-1)
