"""Task towers: one perceptron per task."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from rec.modules.dropout import Dropout
from rec.modules.linear import BatchedLinear


class Towers(nn.Module):
    """One perceptron per task, ReLU between layers: [T, N, H] -> [T, N, 1], without the last activation."""

    def __init__(self, tasks: int, width: int, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [width, *widths]
        self.hidden = nn.ModuleList(BatchedLinear(tasks, a, b) for a, b in pairwise(sizes))
        self.last = BatchedLinear(tasks, sizes[-1], 1)
        self.dropout = Dropout(dropout)

    def forward(self, x_TNH: Tensor) -> Tensor:
        """[T, N, 1]."""
        return self.last(self.before_last(x_TNH))

    def before_last(self, x_TNH: Tensor) -> Tensor:
        """The input of the last layer [T, N, widths[-1]]."""
        for layer in self.hidden:
            x_TNH = self.dropout(F.relu(layer(x_TNH)))
        return x_TNH
