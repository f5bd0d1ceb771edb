"""Losses that are no numbers end a run, before anything of it is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from rec.errors import BundleError


class NotFiniteError(ArithmeticError):
    """Losses of a batch of which one is NaN or infinite; rec/training/failed_batch.py says why."""

    def __init__(self, losses: Mapping[str, float]) -> None:
        self.losses = dict(losses)
        name, loss = next((name, loss) for name, loss in losses.items() if not math.isfinite(loss))
        super().__init__(f"the loss of {name} is {loss}")


def numbers(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """The losses of a batch, for which a device is waited; NotFiniteError where one is NaN or infinite."""
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    if not all(map(math.isfinite, values.values())):
        raise NotFiniteError(values)
    return values


def refuse_nan(losses: Mapping[str, float], epoch: int, step: int) -> None:
    """Raise BundleError where the mean loss of an epoch is NaN or infinite."""
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise BundleError(
                f"epoch {epoch}, step {step}: the loss of {name} is {loss}; try a lower train.lr or table_lr"
            )
