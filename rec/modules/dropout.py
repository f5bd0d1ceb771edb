"""Dropout, in 256ths where these are close enough."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from rec.modules import cpu


class Dropout(nn.Module):
    """Inverted dropout: hidden units are zeroed in training, the others scaled so that the mean is unchanged.

    The rate `share` is rounded to 256ths on every device, unless nothing or everything would be left out by that.

    Srivastava et al., Dropout, JMLR 2014.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """The identity when not training; any shape."""
        left_out = round(self.share * 256)
        if not self.training or not self.share:
            return x
        if left_out in (0, 256):
            return F.dropout(x, self.share)
        return cpu.dropout_by_bytes(x, left_out) if cpu.pays(x) else F.dropout(x, left_out / 256)
