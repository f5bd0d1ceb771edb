"""One training step: batch -> rows of tables -> network -> losses -> backward -> optimizers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rec import ranker, world
from rec.data.preprocessor import Preprocessor
from rec.errors import SpecError
from rec.losses import task_losses
from rec.memory import keep_large_blocks
from rec.ranker import Ranker
from rec.request import RequestBatch
from rec.spec import Spec, Train
from rec.training import finite, optimizers

if TYPE_CHECKING:
    from rec.training.id_exchange import IdExchange  # TorchRec's sharding takes seconds to import

Mark = Callable[[str], None]


@dataclass
class Fit:
    """A model that trains: its weights, its optimizer, and how many steps it has made."""

    ranker: Ranker
    optimizer: torch.optim.Optimizer
    device: torch.device
    steps: int = 0
    of: int = 0  # steps in all epochs, for schedules
    averages: dict[str, Tensor] = field(default_factory=dict)


def device_of(train: Train) -> torch.device:
    """The device `train.device` names; `auto` is CUDA where there is one, of several the one of this process."""
    if train.device == "cuda" and not torch.cuda.is_available():
        raise SpecError(
            "train.device: 'cuda' was asked for, but torch sees no CUDA device; `multigate doctor` says why"
        )
    if train.device == "cpu" or not torch.cuda.is_available():
        if train.table_optimizer == "adam":
            raise SpecError("train.table_optimizer: 'adam' needs CUDA; on a CPU: rowwise_adagrad, adagrad, sgd")
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def new_fit(spec: Spec, learnt: Preprocessor, tables: ranker.Tables | None = None) -> Fit:
    """A model with fresh weights and its optimizer; `tables` makes sharded embedding tables."""
    device = device_of(spec.train)
    keep_large_blocks()
    model = ranker.create(spec, learnt, seed=spec.seed, device=device, tables=tables)
    if spec.train.compile:
        model.model.compile(dynamic=True)  # candidates per batch differ
    fit = Fit(model, optimizers.dense(model.dense(), spec.train), device)
    if spec.train.ema is not None:
        fit.averages = {name: weight.detach().clone() for name, weight in model.dense().items()}
    return fit


def unmarked(_: str) -> None:
    """Nobody measures time."""


def step(
    fit: Fit, spec: Spec, batch: RequestBatch, *, sent: IdExchange | None = None, mark: Mark = unmarked
) -> dict[str, Tensor]:
    """One update; the loss of each task before it: over ranks, their mean is that of the whole batch.

    `batch` is this rank's part, torch tensors on the device; `sent` are its ids, where they were sent ahead
    (rec/training/id_exchange.py). All ranks call together. Raises NotFiniteError on a CPU,
    before any weight has changed, where a loss of this rank is NaN or infinite. `mark` is told the name of every
    part of the step when it ends (rec/training/step_clock.py).
    """
    train, tables = spec.train, fit.ranker.stored_tables()
    factor = optimizers.rate(train, fit.steps, fit.of)
    for group in fit.optimizer.param_groups:
        group["lr"] = train.lr * factor
    if train.warmup or train.decay != "constant":
        tables.set_lr(train.table_lr * factor)
    fit.optimizer.zero_grad(set_to_none=True)
    mark("optimizer")
    backward = _backward if train.accumulate == 1 else _accumulated
    losses = backward(fit, spec, batch, sent, mark)
    dense = fit.ranker.dense()
    optimizers.averaged(dense.values())
    mark("communication")
    optimizers.clipped(dense.values(), train)
    fit.optimizer.step()
    tables.step()
    if train.ema is not None:
        optimizers.average(fit.averages, dense, train.ema)
    fit.steps += 1
    mark("optimizer")
    return losses


def seed_step(spec: Spec, steps: int) -> None:
    """Draw dropout from the seed, the step and the rank alone, so that a resumed run repeats it."""
    digest = hashlib.blake2b(f"{spec.seed} {steps} {world.rank()}".encode(), digest_size=7).digest()
    number = int.from_bytes(digest)
    # torch.manual_seed also writes down the stack, once for each kind of device that is not in use
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


def _backward(fit: Fit, spec: Spec, batch: RequestBatch, sent: IdExchange | None, mark: Mark) -> dict[str, Tensor]:
    losses = fit.ranker.losses(batch, fit.ranker.embedding.lookup(batch, sent))
    _looked_at(fit, losses)
    mark("forward")
    task_losses.total(losses, spec.tasks, _shares(spec, batch)).backward()
    mark("backward")
    return losses


def _shares(spec: Spec, batch: RequestBatch) -> dict[str, Tensor] | None:
    """What every loss of a task is multiplied by; None where tasks weigh alike."""
    return None if spec.train.task_weighting == "equal" else task_losses.shares_by_count(spec.tasks, batch.labels)


def _looked_at(fit: Fit, losses: dict[str, Tensor]) -> None:
    """NotFiniteError before a weight has changed, where looking costs nothing; another device is waited for later."""
    if fit.device.type == "cpu":
        finite.numbers(losses)


def _accumulated(fit: Fit, spec: Spec, batch: RequestBatch, sent: IdExchange | None, mark: Mark) -> dict[str, Tensor]:
    """The gradient of a whole batch from `accumulate` parts of it, whose activations never exist together.

    Rows of tables are looked up for the whole batch and their gradients collected, so that fused tables, which step in
    every backward pass, step once. The loss is the mean of the parts' losses, by candidates.
    """
    rows = fit.ranker.embedding.lookup(batch, sent)
    leaves = {name: value.detach().requires_grad_() for name, value in rows.items()}
    sums: dict[str, Tensor] = {}
    parts = list(_parts(batch, leaves, spec.train.accumulate))
    sizes = world.total(torch.tensor([float(len(part)) for part, _ in parts]))
    for (part, mine), share in zip(parts, (sizes / sizes.sum().clamp(min=1)).tolist(), strict=True):
        losses = fit.ranker.losses(part, mine)
        _looked_at(fit, losses)
        mark("forward")
        (task_losses.total(losses, spec.tasks, _shares(spec, part)) * share).backward()
        mark("backward")
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.detach() * share
    names = [name for name, leaf in leaves.items() if leaf.grad is not None]
    torch.autograd.backward([rows[n] for n in names], [leaves[n].grad for n in names])
    mark("backward")
    return sums


def _parts(
    batch: RequestBatch, rows: dict[str, Tensor], count: int
) -> Iterator[tuple[RequestBatch, dict[str, Tensor]]]:
    """A batch cut into `count` parts of about equally many candidates, each with its rows; some may be empty."""
    owner = batch.owner.cpu().numpy()
    offsets = np.searchsorted(owner, np.arange(batch.size + 1))
    boundaries = offsets[-1] * np.arange(1, count) // count
    cuts = [0, *np.searchsorted(offsets, boundaries).tolist(), batch.size]
    for start, stop in pairwise(cuts):
        few = slice(int(offsets[start]), int(offsets[stop]))
        yield (
            RequestBatch(
                stop - start,
                {name: value[start:stop] for name, value in batch.context.items()},
                {name: value[few] for name, value in batch.candidates.items()},
                batch.owner[few] - start,
                {name: value[few] for name, value in batch.labels.items()},
            ),
            {
                name: value[start:stop] if name.split(".")[0] == "context" else value[few]
                for name, value in rows.items()
            },
        )
