"""Checkpoints of a run: the whole state of training, and the weights of the best validation.

    MODEL/checkpoint/step-0000001200/   weights, optimizers, sums of losses, position      the last `keep` of them
    MODEL/checkpoint/best/              weights and where they are from                    those of the best validation
    MODEL/checkpoint/refit/             the same, trained anew on validation too           (rec/training/refit.py)
    MODEL/checkpoint/epoch-0000000003/  weights at the end of an epoch, for their mean     (weight_average.py)

Written in the background, whole or not at all, by as many processes as train (torch.distributed.checkpoint where they
are several), and read by any number of them under any plan of sharding. Names do not depend on how tables are held:
`tables.NAME`, `dense.NAME`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rec import world
from rec.atomic import read_json, sha256
from rec.errors import BundleError
from rec.ranker import Ranker
from rec.training import tensor_folder

BEST, REFIT = "best", "refit"
SUMS = "sums."  # of losses: what a checkpoint has beside live tensors
_STEP = "step-"
_GRACE = 10  # seconds that a rank which failed waits for a save: the others may have gone


def weights(ranker: Ranker) -> dict[str, Tensor]:
    """The live weights by name."""
    tables = {name: value for name, value in ranker.stored_tables().state().items() if name.startswith("tables.")}
    return tables | {f"dense.{name}": value for name, value in ranker.dense_state().items()}


def whole(ranker: Ranker, optimizer: torch.optim.Optimizer, averages: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Everything a step changes: weights, the optimizers' states, averages of weights; all of them live tensors."""
    out = weights(ranker) | ranker.stored_tables().state()
    for name, parameter in ranker.dense().items():
        out |= {f"adamw.{key}.{name}": value for key, value in optimizer.state[parameter].items()}
    return out | {f"average.{name}": value for name, value in averages.items()}


def prepare(ranker: Ranker, optimizer: torch.optim.Optimizer, saved: Sequence[str]) -> None:
    """Give a fresh optimizer the states that a checkpoint has, so that they can be read into their places."""
    known = set(saved)
    for name, parameter in ranker.dense().items():
        if f"adamw.step.{name}" in known:
            moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.zeros(()), **moments}


def read(folder: Path, live: dict[str, Tensor]) -> None:
    """Fill live tensors, sharded or whole, from a folder; all ranks call together.

    Raises BundleError for a tensor that is missing, extra or of another shape, before any is read.
    """
    _same_tensors(folder, live)
    if world.size() == 1:
        with torch.no_grad():
            for name, value in tensor_folder.tensors(folder, list(live)):
                live[name].copy_(value)
        return
    from rec.training import distributed_storage

    distributed_storage.read(folder, live)


def _same_tensors(folder: Path, live: Mapping[str, Tensor]) -> None:
    saved = {name: x["size"] for name, x in tensor_folder.index(folder).items() if not name.startswith(SUMS)}
    if world.size() > 1:  # a rank has the states of the tables it has a part of
        saved = {name: size for name, size in saved.items() if name in live or not name.startswith("table_states.")}
    for name in sorted(set(saved) ^ set(live)):
        raise BundleError(f"{folder}: {name} is {'not in this model' if name in saved else 'missing'}")
    for name, size in saved.items():
        if size != list(live[name].size()):
            raise BundleError(f"{folder}: {name}: expected {list(live[name].size())}, got {size}")


def kept(run: Path) -> Path:
    """The weights that a run is evaluated and exported with: of its best validation, or of its refit."""
    refit = run / "checkpoint" / REFIT
    return refit if refit.exists() else run / "checkpoint" / BEST


def trained_in(run: Path) -> Path:
    """The folder with what those weights are from: vocabularies and scales (fitted/), and the state of training."""
    return run / REFIT if kept(run).name == REFIT else run


def refit_of(run: Path) -> dict[str, Any] | None:
    """What a run's refit was trained on, with a sentence on it ("text"); None where its weights are of no refit."""
    return read_json(kept(run) / "state.json")["refit"] if kept(run).name == REFIT else None


def digest(run: Path) -> str:
    """What tells the weights that a run is evaluated with from others; BundleError where there are none."""
    manifest = kept(run) / "manifest.json"
    if not manifest.exists():
        raise BundleError(f"{run}: no trained model here; `multigate train SPEC --data DATA --out {run}` makes one")
    return sha256(manifest)


def recover(run: Path) -> None:
    """Put away what a killed process left of checkpoints; rank 0 alone."""
    tensor_folder.recover(run / "checkpoint")


def steps(run: Path) -> list[Path]:
    """The whole checkpoints of a run, the newest last."""
    return sorted((run / "checkpoint").glob(f"{_STEP}*"))


class Saver:
    """Saves one checkpoint at a time in the background; all ranks call its methods together."""

    def __init__(self, run: Path, *, keep: int) -> None:
        self.folder, self.keep = run / "checkpoint", keep
        # of its own: another thread must not share a group with the steps that go on meanwhile
        self.group: Any = world.gloo() if world.size() > 1 else None
        self.pool = ThreadPoolExecutor(1, "checkpoint")
        self.pending: Future[Any] | None = None

    def save(self, live: Mapping[str, Tensor], about: Mapping[str, Any], *, step: int) -> None:
        """The whole state; `about` are plain values. What is saved is what tensors hold now."""
        self._begin(self.folder / f"{_STEP}{step:010d}", live, about)

    def save_best(self, live: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """The weights of the best validation so far."""
        self._begin(self.folder / BEST, live, about)

    def save_as(self, name: str, live: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Weights under another name; they are on the disk when this returns."""
        self._begin(self.folder / name, live, about)
        self.wait()

    def give_up(self) -> None:
        """After an error: let a save that is under way end, whatever comes of it."""
        if self.pending is not None:
            wait_for([self.pending], None if world.size() == 1 else _GRACE)
            self.pending = None

    def wait(self) -> None:
        """Until what was begun is on the disk; OSError where it could not be written, BundleError if not finite."""
        if self.pending is None:
            return
        pending, self.pending = self.pending, None
        _raised(pending, self.folder)
        if world.rank() == 0:
            for old in sorted(self.folder.glob(f"{_STEP}*"))[: -self.keep]:
                shutil.rmtree(old)

    def _begin(self, folder: Path, live: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        self.wait()
        if world.size() == 1:
            copies = {name: value.detach().to("cpu", copy=True) for name, value in live.items()}
            self.pending = self.pool.submit(tensor_folder.write, folder, copies, dict(about))
        else:
            from rec.training import distributed_storage

            copies = {name: distributed_storage.copied(value) for name, value in live.items()}
            self.pending = self.pool.submit(distributed_storage.write, folder, copies, dict(about), self.group)


def _raised(pending: Future[Any], folder: Path) -> None:
    """Wait; the rank on which a save failed says why, and the others that another one does."""
    error = pending.exception()
    failures = getattr(error, "failures", None)  # of torch.distributed.checkpoint: {rank: (error, traceback)}
    if failures is not None and world.rank() not in failures:
        raise world.OtherRankError(f"rank {min(failures)} could not save a checkpoint") from error
    cause = failures[world.rank()][0] if failures is not None else error
    if isinstance(cause, OSError):
        raise OSError(f"{folder}: cannot save a checkpoint: {cause.strerror or cause}; those before it are kept")
    if cause is not None:
        raise cause
