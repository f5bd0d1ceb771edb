"""The state of a training run: saved and resumed bit for bit, by any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rec import world
from rec.atomic import read_json
from rec.data import splits
from rec.data.days import Day
from rec.data.preprocessor import Preprocessor
from rec.errors import BundleError
from rec.progress import Progress
from rec.spec import Spec
from rec.training import checkpoint, tensor_folder
from rec.training.checkpoint import Saver
from rec.training.step import Fit


@dataclass
class Run:
    """A training run in flight: what trains, on what, where it is, and what is known of it so far."""

    spec: Spec
    learnt: Preprocessor
    data: Path
    folder: Path
    fit: Fit
    progress: Progress
    epoch: int = 1
    batch: int = 0  # batches of this epoch that are done
    sums: dict[str, Tensor] = field(default_factory=dict)  # of losses times candidates, this rank's share
    candidates: int = 0
    seconds: float = 0.0  # of this epoch, before this process took it up
    history: list[dict[str, Any]] = field(default_factory=list)
    days: Sequence[Day] = ()  # of a progressive run, where each is what an epoch is otherwise
    daily: list[dict[str, Any]] = field(default_factory=list)  # their figures (rec/training/progressive.py)
    splits: tuple[str, ...] = ("train",)  # that are learnt from

    @property
    def day(self) -> Day | None:
        """The day that a progressive run is at."""
        return self.days[self.epoch - 1] if self.days else None

    @property
    def requests(self) -> int:
        """How many requests this epoch, or this day, has."""
        return sum(splits.count(self.data, name) for name in self.splits) if self.day is None else self.day.requests

    @property
    def held_out(self) -> bool:
        """Whether the validation split is not learnt from, so that its figures say something."""
        return "validation" not in self.splits

    def add(self, losses: Mapping[str, Tensor], candidates: int) -> None:
        """A step is done: the loss of each task before it, and the candidates of the whole batch."""
        self.batch, self.candidates = self.batch + 1, self.candidates + candidates
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), dtype=torch.float64, device=loss.device)) + (
                loss.detach().double() * candidates
            )

    def next_epoch(self) -> None:
        """An epoch is done."""
        self.epoch, self.batch, self.candidates, self.sums, self.seconds = self.epoch + 1, 0, 0, {}, 0.0

    def losses(self) -> dict[str, float]:
        """The mean over candidates of every loss, of this epoch so far; all ranks call together."""
        return {
            name: float(world.total(total)) / world.size() / self.candidates
            for name, total in sorted(self.sums.items())
        }


def save(run: Run, saver: Saver, seconds: float) -> None:
    """Save everything that a step changes, and where the run is; `seconds` is how long this epoch has taken so far."""
    about = {
        "epoch": run.epoch,
        "batch": run.batch,
        "step": run.fit.steps,
        "candidates": run.candidates,
        "seconds": seconds,
        "history": run.history,
        "daily": run.daily,
    }
    tensors = checkpoint.whole(run.fit.ranker, run.fit.optimizer, run.fit.averages)
    sums = {f"{checkpoint.SUMS}{name}": _of_ranks(total) for name, total in run.sums.items()}
    saver.save(tensors | sums, about, step=run.fit.steps)


def history(folder: Path) -> list[dict[str, Any]]:
    """The validations of a run's newest checkpoint; history.json may be one ahead of what was saved."""
    return read_json(checkpoint.steps(folder)[-1] / "state.json")["history"]


def restore(run: Run) -> None:
    """Put the newest checkpoint back, where there is one.

    Raises BundleError when a file of it is missing or changed, which names the checkpoint before it.
    """
    saved_steps = checkpoint.steps(run.folder)
    if not saved_steps:
        return
    folder = saved_steps[-1]
    try:
        about = tensor_folder.state(folder)
    except BundleError as error:
        before = saved_steps[-2].name if len(saved_steps) > 1 else None
        way_out = f"remove {folder} to go on from {before}" if before else "train again with --force"
        raise BundleError(f"{error}; {way_out}") from None
    run.epoch, run.batch, run.candidates = about["epoch"], about["batch"], about["candidates"]
    run.seconds, run.history, run.fit.steps = about["seconds"], about["history"], about["step"]
    run.daily = about["daily"]
    saved = list(tensor_folder.index(folder))
    checkpoint.prepare(run.fit.ranker, run.fit.optimizer, saved)
    checkpoint.read(folder, checkpoint.whole(run.fit.ranker, run.fit.optimizer, run.fit.averages))
    for name, totals in tensor_folder.tensors(folder, [name for name in saved if name.startswith(checkpoint.SUMS)]):
        run.sums[name.removeprefix(checkpoint.SUMS)] = _mine(totals).to(run.fit.device)


def _of_ranks(total: Tensor) -> Tensor:
    """A number of every rank [W], on all of them."""
    if world.size() == 1:
        return total.reshape(1).cpu()
    gathered = [torch.zeros_like(total) for _ in range(world.size())]
    dist.all_gather(gathered, total)
    return torch.stack(gathered).cpu()


def _mine(totals: Tensor) -> Tensor:
    """The number of this rank; of another number of ranks, all of it on the first, for their mean is what counts."""
    if len(totals) == world.size():
        return totals[world.rank()]
    return totals.mean() * world.size() if world.rank() == 0 else torch.zeros((), dtype=totals.dtype)
