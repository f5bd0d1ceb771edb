"""RequestBatch: requests in memory, numpy in serving and torch in training.

    request 0          request 1     request 2 (no candidates)
    context   user=7        user=9        user=7           [B]      one value per request
    candidates a  b  c      d  e                           [N]      one value per candidate
    owner      0  0  0      1  1                           [N]      the request each candidate belongs to, sorted

    context["user_id"][owner] is the only broadcast to candidates, as late as possible.

Values are rows of embedding tables (int64; 0 is missing or unknown) or numbers (float32; NaN is missing). A list of L
ids is [B, L] or [N, L], right-aligned: the newest last, padded with 0. A vector is [B, size] or [N, size].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor, the same throughout a batch


@dataclass(frozen=True, slots=True)
class RequestBatch:
    """B requests and their N candidates.

    >>> batch = RequestBatch(2, {"user": np.array([7, 9])}, {"item": np.array([1, 2, 3])}, np.array([0, 0, 1]))
    >>> batch.request(1).candidates["item"]
    array([3])
    """

    size: int
    context: Mapping[str, Array]
    candidates: Mapping[str, Array]
    owner: Array
    labels: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of candidates N."""
        return len(self.owner)

    def offsets(self) -> np.ndarray:
        """Where each request's candidates begin, and the end of the last [B + 1]; numpy batches only."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.owner, minlength=self.size))])

    def request(self, index: int) -> RequestBatch:
        """One request as a batch of its own."""
        return self.take(np.array([index]))

    def take(self, requests: np.ndarray) -> RequestBatch:
        """The given requests, in the given order; numpy batches only."""
        return self.take_at(requests, self.offsets())

    def take_at(self, requests: np.ndarray, offsets: np.ndarray) -> RequestBatch:
        """The same where `offsets` are known: the cost is that of what is taken, not of what it is taken from."""
        start = offsets[requests]
        counts = offsets[requests + 1] - start
        rows = spans(start, counts)
        return RequestBatch(
            size=len(requests),
            context={name: value.take(requests, 0) for name, value in self.context.items()},
            candidates={name: value.take(rows, 0) for name, value in self.candidates.items()},
            owner=np.repeat(np.arange(len(requests)), counts),
            labels={name: value.take(rows, 0) for name, value in self.labels.items()},
        )

    def cut(self, edges: Sequence[int]) -> Iterator[RequestBatch]:
        """Consecutive requests from each edge to the next, as views; numpy batches only.

        >>> [part.size for part in batch.cut([0, 2, 5])]
        [2, 3]
        """
        offsets = self.offsets()
        for start, stop in pairwise(edges):
            rows = slice(offsets[start], offsets[stop])
            yield RequestBatch(
                size=stop - start,
                context={name: value[start:stop] for name, value in self.context.items()},
                candidates={name: value[rows] for name, value in self.candidates.items()},
                owner=self.owner[rows] - start,
                labels={name: value[rows] for name, value in self.labels.items()},
            )

    def split(self, per_candidate: np.ndarray) -> list[np.ndarray]:
        """An array over candidates [N, ...] as one array per request."""
        return np.split(per_candidate, self.offsets()[1:-1])


def concat(batches: Sequence[RequestBatch]) -> RequestBatch:
    """Requests of several numpy batches, one after the other."""
    first = batches[0]
    starts = np.cumsum([0, *(batch.size for batch in batches)])
    return RequestBatch(
        size=int(starts[-1]),
        context=_joined(first.context, (batch.context for batch in batches)),
        candidates=_joined(first.candidates, (batch.candidates for batch in batches)),
        owner=np.concatenate([batch.owner + start for batch, start in zip(batches, starts[:-1], strict=True)]),
        labels=_joined(first.labels, (batch.labels for batch in batches)),
    )


def spans(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Indices of several ranges, concatenated.

    >>> spans(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    ends = np.cumsum(length)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(start - (ends - length), length)


def _joined(names: Iterable[str], parts: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    held = list(parts)
    return {name: np.concatenate([part[name] for part in held]) for name in names}
