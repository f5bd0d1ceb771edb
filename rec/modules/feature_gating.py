"""Feature gating: every field (SENet) or column (gate) times a weight in (0, 2) computed from all of them.

    SENet   z_f = mean of field f     w = 2 sigmoid(W_2 relu(W_1 z + b_1) + b_2)     field f becomes w_f field f
    gate    w = 2 sigmoid(W_2 relu(W_1 sg(x) + b_1) + b_2)                           x becomes w * x

Context weights depend on the context alone and are computed once per request; candidate weights depend on both sides.
W_2 and b_2 are initialised to 0, hence all weights to exactly 1. sg: stop-gradient.
Huang et al., FiBiNET, RecSys 2019, section 3.2 (SENet); Chang et al., PEPNet, KDD 2023, Gate NU and EPNet, and Huang et
al., GateNet, arXiv 2007.03519, section 3 (gates).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from rec.modules.linear import PairLinear
from rec.spec import Positive, Strict


class FeatureGatingConfig(Strict):
    """Fields or columns of both sides times learned weights between 0 and 2, before crosses and experts."""

    kind: Literal["senet", "gate"] = Field(
        description="senet: a weight per field, from the fields' means; gate: a weight per column, from all columns"
    )
    reduction: Positive = Field(default=2, description="the hidden layer is so many times narrower than what it reads")


class GateWeights(nn.Module):
    """`2 sigmoid(W_2 relu(W_1 [context; candidate] + b_1) + b_2)`: [B, C], [N, D], [N] -> [N, out], initially 1."""

    def __init__(self, context: int, candidate: int, *, out: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, (context + candidate) // reduction)
        self.down = PairLinear(context, candidate, hidden)
        self.up = nn.Linear(hidden, out)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """[N, out]."""
        return 2 * self.up(F.relu(self.down(context_BC, candidate_ND, owner_N))).sigmoid()


class SideFields(nn.Module):
    """Weights of both sides: [B, C], [N, D], owner -> [B, C] from the context alone, [N, D] from both."""

    def __init__(self, context: int, candidate: int, *, reduction: int) -> None:
        super().__init__()
        self.context = GateWeights(0, context, out=context, reduction=reduction) if context else None
        self.candidate = GateWeights(context, candidate, out=candidate, reduction=reduction) if candidate else None

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> tuple[Tensor, Tensor]:
        """([B, C], [N, D]); a side without columns stays as it is."""
        return (
            context_BC if self.context is None else self.context(context_BC, context_BC, owner_N),
            candidate_ND if self.candidate is None else self.candidate(context_BC, candidate_ND, owner_N),
        )


class Gate(nn.Module):
    """A weight per column: context [B, C], candidate [N, D], owner [N] -> the same two, gated."""

    def __init__(self, context: Sequence[int], candidate: Sequence[int], *, reduction: int) -> None:
        super().__init__()
        self.weights = SideFields(sum(context), sum(candidate), reduction=reduction)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> tuple[Tensor, Tensor]:
        """(context [B, C], candidate [N, D])."""
        weight_BC, weight_ND = self.weights(context_BC.detach(), candidate_ND.detach(), owner_N)
        return context_BC * weight_BC, candidate_ND * weight_ND


class Senet(nn.Module):
    """A weight per field: context [B, C], candidate [N, D], owner [N] -> the same two, gated."""

    def __init__(self, context: Sequence[int], candidate: Sequence[int], *, reduction: int) -> None:
        super().__init__()
        self.context, self.candidate = Fields(context), Fields(candidate)
        self.weights = SideFields(len(context), len(candidate), reduction=reduction)

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> tuple[Tensor, Tensor]:
        """(context [B, C], candidate [N, D])."""
        means = self.context(context_BC), self.candidate(candidate_ND)
        weight_BF, weight_NF = self.weights(*means, owner_N)
        return self.context.times(context_BC, weight_BF), self.candidate.times(candidate_ND, weight_NF)


class Fields(nn.Module):
    """Columns that lie field by field, `widths[f]` of them each: [M, sum of widths] -> their means [M, F]."""

    means: Tensor
    field: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        shares = [torch.full((width, 1), 1 / width) for width in widths]
        self.register_buffer("means", torch.block_diag(*shares) if shares else torch.zeros(0, 0), persistent=False)
        places = [place for place, width in enumerate(widths) for _ in range(width)]
        self.register_buffer("field", torch.tensor(places, dtype=torch.int64), persistent=False)

    def forward(self, x_MC: Tensor) -> Tensor:
        """[M, F]."""
        return x_MC @ self.means

    def times(self, x_MC: Tensor, weight_MF: Tensor) -> Tensor:
        """Every column times the weight of its field [M, C]."""
        return x_MC * weight_MF.index_select(1, self.field)


def create(config: FeatureGatingConfig, *, context: Sequence[int], candidate: Sequence[int]) -> nn.Module:
    """What `[model.feature_gating]` describes, over fields of these widths."""
    kind = Senet if config.kind == "senet" else Gate
    return kind(context, candidate, reduction=config.reduction)
