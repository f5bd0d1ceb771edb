"""MODEL/tensorboard: event files that `tensorboard --logdir MODEL` shows; of the extra `watch`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FOLDER = "tensorboard"


class TensorBoardWatcher:
    """Scalars of looks, and of validations under `validation/`."""

    def __init__(self, folder: Path, *, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # what an interrupted run wrote after the checkpoint it goes on from is hidden
        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=step + 1 if step else None)

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """One scalar a figure."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        """The same under `validation/`, and on the disk at once."""
        for name, value in figures.items():
            self._writer.add_scalar(f"validation/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
