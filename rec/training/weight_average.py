"""The mean of the weights at the ends of the last epochs, tables included, in the place of the weights.

    [train] average = 3      MODEL/checkpoint/epoch-0000000007/   the last three ends, as many more as `keep`

Ends of epochs lie around a better place than any of them: their mean is evaluated, kept and exported, while training
goes on from the last. Where `ema` is set too, an end has the moving average. Running statistics of batch normalisation
are those of no average: they are taken anew, over batches of the next epoch that the mean sees.

Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018, section 3.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from rec import world
from rec.data import loader
from rec.data.loader import Share
from rec.modules.experts import ExpertNorm
from rec.ranker import Ranker
from rec.training import checkpoint, saved_rows, tensor_folder
from rec.training.checkpoint import Saver
from rec.training.saved_rows import Saved
from rec.training.state import Run

_END = "epoch-"
_ROWS = 1 << 16  # of a table that are in memory at a time
_BATCHES = 100  # that statistics of batch normalisation are taken from


def save(run: Run, saver: Saver) -> None:
    """Put the weights of an epoch that ends on the disk, where they are averaged; all ranks call together."""
    train = run.spec.train
    if train.average == 1:
        return
    about = {"epoch": run.epoch, "step": run.fit.steps}
    saver.save_as(f"{_END}{run.epoch:010d}", checkpoint.weights(run.fit.ranker), about)
    if world.rank() == 0:
        for old in _ends(run.folder, run.epoch)[: -train.average - train.checkpoint.keep]:
            shutil.rmtree(old)


@contextmanager
def mean_after(run: Run, saver: Saver) -> Iterator[None]:
    """`save`, then `mean`."""
    save(run, saver)
    with mean(run, upto=run.epoch):
        yield


@contextmanager
def mean(run: Run, *, upto: int) -> Iterator[None]:
    """Inside the block the model has the mean of the last `train.average` ends up to an epoch; all ranks call together.

    Of fewer, where there are fewer. Nothing happens where one is asked for.
    """
    if run.spec.train.average == 1:
        yield
        return
    model, ends = run.fit.ranker, _ends(run.folder, upto)[-run.spec.train.average :]
    fill(model, ends)
    _renormalise(run, upto + 1)
    try:
        yield
    finally:
        fill(model, ends[-1:])


@torch.no_grad()
def fill(model: Ranker, folders: Sequence[Path]) -> None:
    """Fill a model with the mean of the weights in folders, summed in float64; other tensors are those of the last."""
    indices = [tensor_folder.index(folder) for folder in folders]
    for part in model.stored_tables().parts():
        name, rows = f"tables.{part.table}", len(part.weight)
        saved = [Saved(folder, name, index[name]) for folder, index in zip(folders, indices, strict=True)]
        columns = (part.column, part.column + part.weight.shape[1])
        for start in range(0, rows, _ROWS):
            stop = min(start + _ROWS, rows)
            parts = [saved_rows.read(of, (part.row + start, part.row + stop), columns) for of in saved]
            part.weight[start:stop].copy_(_mean(parts))
    live, weights = model.dense_state(), model.dense()
    for name, value in live.items():
        several = folders if name in weights else folders[-1:]
        value.copy_(_mean([_whole(folder, f"dense.{name}") for folder in several]))


def _mean(parts: Sequence[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    total = parts[0].double()
    for part in parts[1:]:
        total += part.double()
    return total / len(parts)


def _whole(folder: Path, name: str) -> Tensor:
    return next(iter(tensor_folder.tensors(folder, [name])))[1]


def _ends(folder: Path, upto: int) -> list[Path]:
    """The saved ends of epochs up to one, the newest last."""
    every = sorted((folder / "checkpoint").glob(f"{_END}*"))
    return [end for end in every if int(end.name.removeprefix(_END)) <= upto]


@torch.no_grad()
def _renormalise(run: Run, epoch: int) -> None:
    """Take running means and variances anew: the mean over batches of what the weights, as they are, see in them."""
    norms = [module for module in run.fit.ranker.modules() if isinstance(module, ExpertNorm)]
    if not norms:
        return
    run.fit.ranker.eval()
    momenta, encoders = [norm.momentum for norm in norms], run.learnt.encoders
    share = Share(world.rank(), world.size())
    how = {"epoch": epoch, "share": share, "splits_of": run.splits, "whole": True}
    batches = loader.shuffled(run.data, run.spec, encoders, **how)
    for norm in norms:
        norm.train()
    for number, part in enumerate(batches):
        if number == _BATCHES:
            break
        for norm in norms:
            norm.momentum = 1 / (number + 1)
        run.fit.ranker.hidden(loader.tensors(part.mine, run.fit.device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
