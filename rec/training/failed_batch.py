"""The batch whose loss is no number, saved beside the run with the likely cause.

    MODEL/failed/step-0000000031/rank-00000.safetensors    context.NAME, candidates.NAME, labels.NAME, owner
                                 rank-00000.json           epoch, step, losses, cause

Each rank looks at the losses of its own candidates, and saves its own part. On a CPU that is before the step changes a
weight. A CUDA device is waited for every few steps only, when the weights may have changed since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from rec import world
from rec.atomic import write_json
from rec.errors import BundleError
from rec.request import RequestBatch
from rec.training import checkpoint
from rec.training.finite import NotFiniteError
from rec.training.state import Run

FOLDER = "failed"
_SHOWN = 3  # names in a message


@contextmanager
def saved_where_not_finite(run: Run, batch: RequestBatch) -> Iterator[None]:
    """Around a step: where a loss is NaN or infinite the batch is saved, and BundleError names the likely cause."""
    number = run.fit.steps + 1
    try:
        yield
    except NotFiniteError as error:
        folder = run.folder / FOLDER / f"step-{number:010d}"
        name = f"rank-{world.rank():05d}"
        reason = cause(batch, checkpoint.weights(run.fit.ranker))
        losses = {task: str(loss) for task, loss in error.losses.items()}
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {key: value.detach().cpu().clone() for key, value in named(batch).items()}
        save_file(tensors, folder / f"{name}.safetensors")
        write_json(folder / f"{name}.json", {"epoch": run.epoch, "step": number, "losses": losses, "cause": reason})
        raise BundleError(f"epoch {run.epoch}, step {number}: {error}: {reason}; the batch is in {folder}") from None


def cause(batch: RequestBatch, weights: Mapping[str, Any]) -> str:
    """What is not finite, inputs before weights; where all is, what is largest. NaN in an input is a missing value."""
    inputs = {name: value for name, value in named(batch).items() if value.is_floating_point()}
    infinite = [name for name, value in inputs.items() if value.isinf().any()]
    if infinite:
        return f"in this batch {_list(infinite)} infinite; look for the value in the logs"
    broken = [name for name, value in weights.items() if any(not part.isfinite().all() for part in _parts(value))]
    if broken:
        return f"{_list(broken)} not finite; try a lower train.lr or table_lr, or train.clip"
    largest = {"input": inputs, "weight": weights}
    sizes = [f"the largest {what} is {_largest(values)}" for what, values in largest.items() if values]
    return f"all inputs and weights are finite, {', '.join(sizes)}; try a lower train.lr or table_lr, or train.clip"


def named(batch: RequestBatch) -> dict[str, Tensor]:
    """Every tensor of a batch by side and name."""
    sides = {"context": batch.context, "candidates": batch.candidates, "labels": batch.labels}
    tensors = {f"{side}.{name}": value for side, values in sides.items() for name, value in values.items()}
    return tensors | {"owner": batch.owner}


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"{shown} {'is' if len(names) == 1 else 'are'}"


def _parts(weight: Any) -> list[Tensor]:
    """What this rank holds of a weight."""
    return [shard.tensor for shard in weight.local_shards()] if hasattr(weight, "local_shards") else [weight]


def _largest(values: Mapping[str, Any]) -> str:
    """The largest finite magnitude, and where it is."""
    sizes = {name: max((_size(part) for part in _parts(value)), default=0.0) for name, value in values.items()}
    name = max(sizes, key=lambda name: sizes[name])
    return f"{sizes[name]:.3g} in {name}"


def _size(part: Tensor) -> float:
    known = part[~part.isnan()] if part.is_floating_point() else part[:0]
    return float(known.abs().max()) if known.numel() else 0.0
