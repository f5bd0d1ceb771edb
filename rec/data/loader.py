"""From session tables to training batches: shuffled, seeded, in bounded memory, a part of every batch per rank.

    parts -> blocks in random order -> pools of `shuffle` requests -> each pool in random order -> batches

A batch is about `batch` candidates of all ranks together; a request is never split. What is left of a pool opens the
next, and the last pool is cut into equal batches, so no batch is tiny. The order depends on the seed and the epoch
alone: every rank works it out from the numbers of candidates, which it reads of all blocks, and reads and encodes only
the requests it owns: of every batch about as many candidates as any other rank, and much the same range of every pool
(rec/data/request_order.py). Requests are not split, so ranks differ by some candidates, and sometimes have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from rec.data import id_dropout, request_order, splits
from rec.data.days import Day
from rec.data.encoders import Encoder
from rec.data.id_dropout import IdDropout
from rec.data.prefetch import ahead
from rec.data.request_order import RequestOrder
from rec.data.session_table import check_schema, to_batch
from rec.request import RequestBatch, concat
from rec.spec import Spec


@dataclass(frozen=True)
class Share:
    """Which rank of how many a loader reads for."""

    rank: int = 0
    of: int = 1


@dataclass(frozen=True)
class TrainingBatch:
    """A rank's part of a batch, and how many requests and candidates the whole batch has."""

    mine: RequestBatch
    requests: int
    candidates: int


def shuffled(
    data: Path,
    spec: Spec,
    encoders: Mapping[str, Encoder],
    *,
    epoch: int,
    share: Share | None = None,
    skip: int = 0,
    day: Day | None = None,
    splits_of: Sequence[str] = ("train",),
    whole: bool = False,
) -> Iterator[TrainingBatch]:
    """One epoch of numpy batches over the training split, or over several, in the order of `spec.seed` and `epoch`.

    `share` says which part of every batch is wanted; `skip` batches are passed over without reading them; of a `day`
    only its own rows are read. `whole` batches have all ids, those that training drops too. A pool is read and encoded
    while the one before it is used.
    """
    share = share or Share()
    files = [path for split in splits_of for path in splits.files(data, split)]
    pools = _pools(files, spec, np.random.default_rng([spec.seed, epoch]), day)
    dropout = None if whole else id_dropout.create(spec, epoch)
    for batches in ahead(_pools_read(pools, spec, encoders, dropout, share=share, skip=skip), 1):
        yield from batches


def _pools_read(
    pools: Iterator[tuple[list[pa.RecordBatch], np.ndarray, bool]],
    spec: Spec,
    encoders: Mapping[str, Encoder],
    dropout: IdDropout | None,
    *,
    share: Share,
    skip: int,
) -> Iterator[Iterator[TrainingBatch]]:
    """The batches of every pool, what was left of the one before it first; a rank's part is read and encoded here."""
    before = 0
    left: RequestOrder | None = None
    for blocks, order, last in pools:
        pool = request_order.of_pool(blocks, order, before=before)
        requests = pool if left is None else left.and_then(pool)
        cuts = edges_of(requests.count, spec.train.batch, last=last)
        before += len(order)
        left = requests.span(cuts[-1], len(requests)).copied()
        passed = min(skip, len(cuts) - 1)
        skip -= passed
        if passed < len(cuts) - 1:
            yield _read(requests, cuts[passed:], spec, encoders, dropout, share=share)


def _read(
    requests: RequestOrder,
    cuts: Sequence[int],
    spec: Spec,
    encoders: Mapping[str, Encoder],
    dropout: IdDropout | None,
    *,
    share: Share,
) -> Iterator[TrainingBatch]:
    """A rank's part of each batch from one cut to the next; all that it owns is read and encoded now, at once."""
    owned = [
        start + np.flatnonzero(requests.span(start, stop).owners(share.of) == share.rank)
        for start, stop in pairwise(cuts)
    ]
    index = np.concatenate(owned)
    by_row = np.argsort(requests.row[index])
    mine = _encoded(requests.at(index[by_row]), spec, encoders, dropout)
    offsets, held = mine.offsets(), np.empty_like(index)
    held[by_row] = np.arange(len(index))  # where each of `index` is in `mine`
    parts = np.split(held, np.cumsum([len(few) for few in owned])[:-1])
    return (
        TrainingBatch(mine.take_at(part, offsets), stop - start, int(requests.count[start:stop].sum()))
        for part, (start, stop) in zip(parts, pairwise(cuts), strict=True)
    )


def _encoded(
    requests: RequestOrder, spec: Spec, encoders: Mapping[str, Encoder], dropout: IdDropout | None
) -> RequestBatch:
    """Requests in the order they are stored in, encoded, less the ids that are dropped."""
    parts = [to_batch(rows, spec, encoders) for rows in requests.stored()]
    batch = concat(parts or [to_batch(requests.blocks[0].slice(0, 0), spec, encoders)])
    return batch if dropout is None else dropout.of(batch, requests.number)


def counts(data: Path, spec: Spec, splits_of: Sequence[str] = ("train",)) -> tuple[int, int]:
    """Requests and candidates of the training split, or of several."""
    count_R = [request_order.candidates_of(rows) for split in splits_of for rows in splits.read(data, split, spec)]
    return sum(map(len, count_R)), sum(int(count.sum()) for count in count_R)


def batches(data: Path, spec: Spec, splits_of: Sequence[str] = ("train",)) -> int:
    """How many batches an epoch has: one more or less where requests are long, for they are not split."""
    return max(1, round(counts(data, spec, splits_of)[1] / spec.train.batch))


def tensors(batch: RequestBatch, device: torch.device) -> RequestBatch:
    """A numpy batch as torch tensors on a device; on the way to CUDA through pinned memory, without waiting."""

    def move(value: np.ndarray) -> torch.Tensor:
        # Arrow's buffers are read-only, and torch insists on writable memory
        tensor = torch.from_numpy(value if value.flags.writeable else value.copy())
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

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
    return _cuts(batch.offsets(), candidates)


def edges_of(count_R: np.ndarray, candidates: int, *, last: bool) -> list[int]:
    """Where to cut requests of so many candidates each into batches of about `candidates`.

    What is behind the last edge is too little for a batch. Of the `last` requests nothing is: they are cut evenly.

    >>> edges_of(np.array([2, 2, 2, 2, 1]), 4, last=False), edges_of(np.array([2, 2, 2, 2, 1]), 4, last=True)
    ([0, 2, 4], [0, 3, 5])
    """
    offsets = np.concatenate([[0], np.cumsum(count_R)])
    total = int(offsets[-1])
    if last:
        count = max(1, round(total / candidates))
        return _cuts(offsets, -(-total // count)) if total else [0]
    cuts = _cuts(offsets, candidates)
    return cuts if len(cuts) == 1 or total - offsets[cuts[-2]] >= candidates else cuts[:-1]


def _cuts(offsets: np.ndarray, candidates: int) -> list[int]:
    cuts = [0]
    while offsets[cuts[-1]] < offsets[-1]:
        limit = min(offsets[cuts[-1]] + candidates, offsets[-1])
        cuts.append(int(np.searchsorted(offsets, limit)))
    return cuts


def _pools(
    files: Sequence[Path], spec: Spec, random: np.random.Generator, day: Day | None
) -> Iterator[tuple[list[pa.RecordBatch], np.ndarray, bool]]:
    """Blocks of at least `shuffle` requests, the order of those [R], and whether they are the last."""
    places: list[tuple[Path, int]] = []
    for path in files:
        with splits.opened(path) as reader:
            check_schema(reader.schema, spec, str(path))
            places += [(path, index) for index in range(reader.num_record_batches)]
    if day is not None:
        places = [place for place in places if place in day.places]
    held: list[pa.RecordBatch] = []
    order = random.permutation(len(places))
    for number, place in enumerate(order, 1):
        path, index = places[place]
        with splits.opened(path) as reader:
            held.append(reader.get_batch(index) if day is None else day.of(reader.get_batch(index)))
        rows, last = sum(map(len, held)), number == len(order)
        if rows >= spec.train.shuffle or last:
            yield held, random.permutation(rows), last
            held = []
