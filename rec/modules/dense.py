"""Numbers and vectors of one side as columns, with a learned value for missing ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rec.data.preprocessor import Scale


class Numbers(nn.Module):
    """Scaled numbers of one side [M, n]; a missing number (NaN) becomes a learned weight per column."""

    mean: Tensor
    std: Tensor
    log: Tensor

    def __init__(self, scales: Mapping[str, Scale]) -> None:
        super().__init__()
        self.names = list(scales)
        self.register_buffer("mean", torch.tensor([s.mean for s in scales.values()], dtype=torch.float32))
        self.register_buffer("std", torch.tensor([s.std for s in scales.values()], dtype=torch.float32))
        self.register_buffer("log", torch.tensor([s.log for s in scales.values()], dtype=torch.bool))
        self.missing = nn.Parameter(torch.zeros(len(scales)))

    def forward(self, values: Mapping[str, Tensor]) -> Tensor:
        """[M, n]."""
        x = torch.stack([values[name] for name in self.names], 1)
        known = ~x.isnan()
        x = torch.where(known, x, 0.0)
        x = torch.where(self.log, x.sign() * x.abs().log1p(), x)
        return torch.where(known, (x - self.mean) / self.std, self.missing)


class Vectors(nn.Module):
    """Vectors of one side, concatenated [M, sum of sizes]; a missing number (NaN) becomes a learned weight."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.names = list(sizes)
        self.missing = nn.Parameter(torch.zeros(sum(sizes.values())))

    def forward(self, values: Mapping[str, Tensor]) -> Tensor:
        """[M, sum of sizes]."""
        x = torch.cat([values[name] for name in self.names], 1)
        return torch.where(x.isnan(), self.missing, x)
