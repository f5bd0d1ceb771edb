"""Dropout at a price a CPU can pay."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """Units left out while training, the others scaled up, so that means stay; `share` in 256ths.

    On a CPU eight units share a random number: one for each would cost as much as the product before it.
    Srivastava et al., Dropout, JMLR 2014.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """As it came, whatever its shape, when not training."""
        out = round(self.share * 256)
        if not self.training or not out:
            return x
        if x.is_cuda:
            return F.dropout(x, out / 256)
        drawn = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
        # in the order x lies in memory: a view of experts side by side stays one
        laid = torch.empty_like(x, device="meta").stride()
        kept = drawn[: x.numel()].as_strided(x.shape, laid) >= out
        return x * kept.to(x.dtype).mul_(256 / (256 - out))
