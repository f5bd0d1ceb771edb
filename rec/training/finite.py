"""NaN and infinite losses stop training, before anything of it is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rec.errors import BundleError


def refuse_nan(losses: Mapping[str, float], epoch: int, step: int) -> None:
    """Raise BundleError where a loss is NaN or infinite."""
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise BundleError(
                f"epoch {epoch}, step {step}: the loss of {name} is {loss}; try a lower train.lr or table_lr"
            )
