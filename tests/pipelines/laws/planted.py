"""Models that break the contract, one law each; named by path, as another package's would be."""

from __future__ import annotations

import torch
from torch import nn

from rec.modules.config import ModelConfig
from rec.modules.linear import PairLinear


class Config(ModelConfig):
    """What every model can be told."""


class Right(nn.Module):
    """One linear layer per task: keeps every law."""

    Config = Config

    def __init__(self, config, *, context, candidate, tasks):
        super().__init__()
        del config
        self.width = 6
        self.tasks = len(tasks)
        self.linear = PairLinear(context, candidate, 6 * len(tasks))

    def forward(self, context_BC, candidate_ND, owner_N):
        hidden = self.linear(context_BC, candidate_ND, owner_N)
        return hidden.unflatten(1, (self.tasks, 6)).transpose(0, 1).tanh()


class NotBuilt(Right):
    """Wants two tasks."""

    def __init__(self, config, *, context, candidate, tasks):
        super().__init__(config, context=context, candidate=candidate, tasks=tasks)
        _first, _second = tasks


class TooFew(Right):
    """Forgets the last candidate."""

    def forward(self, *inputs):
        return super().forward(*inputs)[:, :-1]


class NotANumber(Right):
    """Divides nothing by nothing for the second task, a child."""

    def forward(self, *inputs):
        hidden_TNH = super().forward(*inputs)
        return torch.cat([hidden_TNH[:1], hidden_TNH[1:] / 0.0 * 0.0])


class Leaky(Right):
    """Reads the mean over the whole batch."""

    def forward(self, *inputs):
        hidden_TNH = super().forward(*inputs)
        return hidden_TNH + hidden_TNH.mean(1, keepdim=True)


class Positional(Right):
    """Knows the place of a candidate among those of its request."""

    def forward(self, context_BC, candidate_ND, owner_N):
        place_N = (owner_N.unsqueeze(1) == owner_N.unsqueeze(0)).tril(-1).sum(1)
        return super().forward(context_BC, candidate_ND, owner_N) + place_N.unsqueeze(1) * 0.1


class Squeezed(Right):
    """Loses an axis where there is one candidate."""

    def forward(self, *inputs):
        hidden_TNH = super().forward(*inputs)
        return torch.stack([hidden_NH.squeeze(0) for hidden_NH in hidden_TNH])


class Dead(Right):
    """Has a layer that nothing reads."""

    def __init__(self, config, *, context, candidate, tasks):
        super().__init__(config, context=context, candidate=candidate, tasks=tasks)
        self.forgotten = nn.Linear(3, 3)


class Branching(Right):
    """Takes one of two ways by what its weights are, which no graph can say."""

    def forward(self, *inputs):
        hidden_TNH = super().forward(*inputs)
        return hidden_TNH if self.linear.candidate.sum() > 0 else -hidden_TNH


class Leaves(Right):
    """Ends the process in the middle of a forward pass."""

    def forward(self, context_BC, candidate_ND, owner_N):
        """Never returns."""
        raise SystemExit(7)
