"""What lies below the experts, each part only where `[model]` asks for it."""

from __future__ import annotations

from torch import Tensor, nn

from rec.inputs import Inputs, Shape
from rec.sizes import Sizes


class Below(nn.Module):
    """Inputs of one copy -> the two sides the experts read; `context` and `candidate` are their widths."""

    def __init__(self, sizes: Sizes, shape: Shape) -> None:
        super().__init__()
        del sizes
        self.context, self.candidate = sum(shape.context), sum(shape.candidate)

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(context [B, C], candidate [N, D])."""
        return inputs.context, inputs.candidate
