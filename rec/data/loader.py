"""From session tables to training batches: shuffled, seeded, in bounded memory, a part of every batch per rank.

    parts -> blocks in random order -> pools of `shuffle` requests -> each pool in random order -> batches

A batch is about `batch` candidates of all ranks together; a request is never split. What is left of a pool opens the
next, and the last pool is cut into equal batches, so no batch is tiny. The order depends on the seed and the epoch
alone: every rank works it out from the numbers of candidates, which it reads of all blocks, and reads and encodes only
the requests it owns, a range of each pool. Ranks have different numbers of candidates, and sometimes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from rec.data import id_dropout, splits
from rec.data.days import Day
from rec.data.encoders import Encoder
from rec.data.id_dropout import IdDropout
from rec.data.prefetch import ahead
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
    for number, requests, cuts in ahead(_cut_pools(pools, spec, encoders, dropout, share=share, skip=skip), 1):
        count = requests.candidates()
        for start, stop in islice(pairwise(cuts), max(0, skip - number), None):
            part = requests.span(start, stop)
            yield TrainingBatch(part.mine(share), stop - start, int(count[start:stop].sum()))


def _cut_pools(
    pools: Iterator[tuple[list[pa.RecordBatch], np.ndarray, bool]],
    spec: Spec,
    encoders: Mapping[str, Encoder],
    dropout: IdDropout | None,
    *,
    share: Share,
    skip: int,
) -> Iterator[tuple[int, _Requests, list[int]]]:
    """The number of a pool's first batch, its requests after those left of the one before, and the edges of batches."""
    number = before = 0
    left: list[_Requests] = []
    for blocks, order, last in pools:
        pool = _Pool(blocks, spec, encoders, share, dropout=dropout, before=before)
        requests = _joined([*left, _Requests([pool], np.zeros(len(order), np.int64), order)])
        cuts = edges_of(requests.candidates(), spec.train.batch, last=last)
        if number + len(cuts) - 1 > skip:
            pool.batch  # noqa: B018  read and encoded here, not where it is used
        yield number, requests, cuts
        number += len(cuts) - 1
        before += len(order)
        left = [requests.span(cuts[-1], len(requests.row))]


def counts(data: Path, spec: Spec, splits_of: Sequence[str] = ("train",)) -> tuple[int, int]:
    """Requests and candidates of the training split, or of several."""
    count_R = [_candidates(rows) for split in splits_of for rows in splits.read(data, split, spec)]
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


def _candidates(rows: pa.RecordBatch) -> np.ndarray:
    """How many candidates each request has [B]; nothing else of a block is read."""
    return np.diff(rows.column("candidates").offsets.to_numpy())


class _Pool:
    """Requests that are shuffled together, of which a rank reads the range it owns, when it is first asked for."""

    def __init__(
        self,
        blocks: Sequence[pa.RecordBatch],
        spec: Spec,
        encoders: Mapping[str, Encoder],
        share: Share,
        *,
        dropout: IdDropout | None,
        before: int,
    ) -> None:
        self.dropout, self.before = dropout, before  # requests of the epoch before those of this pool
        self.blocks, self.spec, self.encoders = blocks, spec, encoders
        self.count = np.concatenate([_candidates(block) for block in blocks])
        offsets = np.concatenate([[0], np.cumsum(self.count)])
        # equally many candidates to each rank; the border between two is where a request ends
        boundaries = offsets[-1] * np.arange(1, share.of) // share.of
        self.borders = np.concatenate([[0], np.searchsorted(offsets, boundaries), [len(self.count)]])
        self.first, self.stop = (int(x) for x in self.borders[share.rank : share.rank + 2])
        self.offsets = offsets[self.first : self.stop + 1] - offsets[self.first]

    @cached_property
    def batch(self) -> RequestBatch:
        """The requests this rank owns, encoded, less the ids that are dropped."""
        parts, start = [], 0
        for block in self.blocks:
            low, high = max(self.first - start, 0), min(self.stop - start, len(block))
            if low < high:
                parts.append(to_batch(block.slice(low, high - low), self.spec, self.encoders))
            start += len(block)
        mine = concat(parts or [to_batch(self.blocks[0].slice(0, 0), self.spec, self.encoders)])
        if self.dropout is None:
            return mine
        return self.dropout.of(mine, self.before + np.arange(self.first, self.stop))

    def take(self, rows: np.ndarray) -> RequestBatch:
        """Some of the requests this rank owns, by their rows in the pool."""
        return self.batch.take_at(rows - self.first, self.offsets)


@dataclass(frozen=True)
class _Requests:
    """Requests of pools in a common order: the index of each one's pool, and its row there."""

    pools: Sequence[_Pool]
    pool: np.ndarray
    row: np.ndarray

    def span(self, start: int, stop: int) -> _Requests:
        return _Requests(self.pools, self.pool[start:stop], self.row[start:stop])

    def candidates(self) -> np.ndarray:
        out = np.zeros(len(self.row), np.int64)
        for index, pool in enumerate(self.pools):
            mine = self.pool == index
            out[mine] = pool.count[self.row[mine]]
        return out

    def mine(self, share: Share) -> RequestBatch:
        """Those of them that a rank owns."""
        parts = []
        for index, pool in enumerate(self.pools):
            rows = self.row[self.pool == index]
            if share.of > 1:
                rows = rows[(rows >= pool.first) & (rows < pool.stop)]
            if len(rows) or len(self.pools) == 1:
                parts.append(pool.take(rows))
        return parts[0] if len(parts) == 1 else concat(parts or [self.pools[-1].take(np.zeros(0, np.int64))])


def _joined(parts: Sequence[_Requests]) -> _Requests:
    """Requests one after the other; pools of which nothing is left are let go."""
    pools: list[_Pool] = []
    number: list[np.ndarray] = []
    for part in parts:
        used = np.unique(part.pool)
        number.append(np.searchsorted(used, part.pool) + len(pools))
        pools += [part.pools[old] for old in used]
    return _Requests(pools, np.concatenate(number), np.concatenate([part.row for part in parts]))
