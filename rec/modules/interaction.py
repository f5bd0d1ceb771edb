"""What lies below the experts, each part only where `[model]` asks for it: attention, then refinement, then crosses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rec.modules import attention, feature_gating
from rec.modules.config import Sizes
from rec.modules.cross_network import Crosses
from rec.modules.inputs import Inputs, Shape


class Below(nn.Module):
    """Inputs of one copy -> the two sides the experts read; `context` and `candidate` are their widths.

    Attention adds a field of columns per history to the candidate, refinement weighs all fields, and crosses put both
    sides into the candidate's: what they give depends on the pair, so nothing is left to the context alone.
    """

    def __init__(self, sizes: Sizes, shape: Shape) -> None:
        super().__init__()
        context, candidate = list(shape.context), list(shape.candidate)
        self.attention = self.refine = self.cross = None
        if sizes.attention is not None:
            self.attention = nn.ModuleList(attention.create(sizes.attention, width) for width in shape.pasts)
            candidate += shape.pasts
        if sizes.refine is not None:
            self.refine = feature_gating.create(sizes.refine, context=context, candidate=candidate)
        self.context, self.candidate = sum(context), sum(candidate)
        if sizes.cross is not None:
            self.cross = Crosses(sizes.cross, context=self.context, candidate=self.candidate)
            self.context, self.candidate = 0, self.context + self.candidate

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(context [B, C], candidate [N, D])."""
        context, candidate, owner = inputs.context, inputs.candidate, inputs.owner
        if self.attention is not None:
            found = [look(past, owner) for look, past in zip(self.attention, inputs.pasts, strict=True)]
            candidate = torch.cat([candidate, *found], 1)
        if self.refine is not None:
            context, candidate = self.refine(context, candidate, owner)
        if self.cross is not None:
            context, candidate = context[:, :0], self.cross(context, candidate, owner)
        return context, candidate
