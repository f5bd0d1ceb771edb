"""From session tables to training batches: shuffled, seeded, in bounded memory.

Blocks are read in an order drawn from the seed and the epoch, `shuffle` requests at a time are mixed in memory, and
cut into batches of about `batch` candidates. A request is never split. The same seed and epoch give the same batches,
so a run can be resumed at an epoch without storing a position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from rec.data import splits
from rec.data.encoders import Encoder
from rec.data.session_table import check_schema, to_batch
from rec.request import RequestBatch, concat
from rec.spec import Spec


def shuffled(data: Path, spec: Spec, encoders: Mapping[str, Encoder], *, epoch: int) -> Iterator[RequestBatch]:
    """One epoch of numpy batches over the training split, in the order of `spec.seed` and `epoch`."""
    random = np.random.default_rng([spec.seed, epoch])
    held: list[RequestBatch] = []
    for rows in _blocks(splits.files(data, "train"), spec, random):
        held.append(to_batch(rows, spec, encoders))
        if sum(batch.size for batch in held) >= spec.train.shuffle:
            yield from _mixed(held, spec.train.batch, random)
            held = []
    if held:
        yield from _mixed(held, spec.train.batch, random)


def tensors(batch: RequestBatch, device: torch.device) -> RequestBatch:
    """A numpy batch as torch tensors on a device."""

    def move(value: np.ndarray) -> torch.Tensor:
        # Arrow's buffers are read-only, and torch insists on writable memory
        tensor = torch.from_numpy(value if value.flags.writeable else value.copy())
        return tensor.to(device, non_blocking=True)

    return RequestBatch(
        size=batch.size,
        context={name: move(value) for name, value in batch.context.items()},
        candidates={name: move(value) for name, value in batch.candidates.items()},
        owner=move(batch.owner),
        labels={name: move(value) for name, value in batch.labels.items()},
    )


def edges(batch: RequestBatch, candidates: int) -> list[int]:
    """Where to cut a batch into parts of about `candidates`, none of which is without candidates.

    >>> edges(RequestBatch(4, {}, {}, np.array([0, 0, 1, 2, 2, 3])), 3)
    [0, 2, 4]
    """
    offsets = batch.offsets()
    cuts = [0]
    while offsets[cuts[-1]] < offsets[-1]:
        wanted = min(offsets[cuts[-1]] + candidates, offsets[-1])
        cuts.append(int(np.searchsorted(offsets, wanted)))
    return cuts


def _blocks(files: list[Path], spec: Spec, random: np.random.Generator) -> Iterator[pa.RecordBatch]:
    """Every record batch of every part once, in random order."""
    places: list[tuple[Path, int]] = []
    for path in files:
        with splits.opened(path) as reader:
            check_schema(reader.schema, spec, str(path))
            places += [(path, index) for index in range(reader.num_record_batches)]
    for place in random.permutation(len(places)):
        path, index = places[place]
        with splits.opened(path) as reader:
            yield reader.get_batch(index)


def _mixed(held: list[RequestBatch], candidates: int, random: np.random.Generator) -> Iterator[RequestBatch]:
    pool = concat(held)
    mixed = pool.take(random.permutation(pool.size))
    yield from mixed.cut(edges(mixed, candidates))
