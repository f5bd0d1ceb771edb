"""Ids on their way to the ranks that hold their rows of sharded tables, sent some batches ahead of their step.

Three messages, and each needs the one before it:

    bags       how many the largest rank has, where ranks are padded to equally many
    lengths    how many ids each rank sends to which
    ids

Each is sent one batch later than the one before it, so it has a whole step to arrive, and no step waits for ids. Rows
are looked up in the step itself, after the update of the step before: numbers are those of ids that were not sent
ahead. It is the idea of TorchRec's TrainPipelineSparseDist, which owns the whole step, and so leaves no room to
accumulate, to clip, and to look at losses before weights change.

On CUDA devices messages have a stream of their own, beside that of steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from rec import world
from rec.modules.fused_tables import bags_of_one
from rec.training import torchrec_distributed as trd

T = TypeVar("T")
Arrived = dict[str, tuple[Any, Any]]  # {group: (the collection's context, features of the rows this rank holds)}
_MESSAGES = 3


class IdExchange:
    """The ids of a batch on their way; all ranks make them, and call their methods, in the same order."""

    def __init__(
        self,
        collections: Mapping[str, trd.ShardedEmbeddingBagCollection],
        names: Mapping[str, Sequence[str]],
        ids: Mapping[str, Sequence[Tensor]],
        *,
        padded: Collection[str],
    ) -> None:
        """`ids` [M] of each of a group's keys, `names`; the first message is sent here."""
        self.bags = {group: len(of[0]) for group, of in ids.items()}
        self._device = next((of[0].device for of in ids.values()), torch.device("cpu"))
        self._here = torch.cuda.current_stream(self._device).record_event() if self._device.type == "cuda" else None
        self._arrived: Arrived | None = None
        self._messages = self._sent(collections, names, ids, padded)
        next(self._messages)

    def advance(self) -> None:
        """Wait for the last message and send the next, if there is one."""
        with self._stream():
            next(self._messages, None)

    def arrived(self) -> Arrived:
        """The ids of rows that this rank holds, by group, when the last message has come."""
        with self._stream():
            for _ in self._messages:
                pass
        assert self._arrived is not None
        if self._device.type == "cuda":
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(_side(self._device))
            for context, features in self._arrived.values():
                context.record_stream(current)
                features.record_stream(current)
        return self._arrived

    def _sent(
        self,
        collections: Mapping[str, trd.ShardedEmbeddingBagCollection],
        names: Mapping[str, Sequence[str]],
        ids: Mapping[str, Sequence[Tensor]],
        padded: Collection[str],
    ) -> Iterator[None]:
        """Pause after each message that is sent."""
        groups = [group for group in ids if group in padded]
        largest = world.largest_later([self.bags[group] for group in groups])
        yield
        strides = dict(zip(groups, largest(), strict=True))
        contexts = {group: of.create_context() for group, of in collections.items()}
        bags = {group: bags_of_one(names[group], of, stride=strides.get(group)) for group, of in ids.items()}
        lengths = {group: of.input_dist(contexts[group], bags[group]) for group, of in collections.items()}
        yield
        values = {group: sent.wait() for group, sent in lengths.items()}
        yield
        self._arrived = {group: (contexts[group], sent.wait()) for group, sent in values.items()}

    def _stream(self) -> AbstractContextManager[Any]:
        if self._here is None:
            return nullcontext()
        side = _side(self._device)
        side.wait_event(self._here)  # ids are there, and not all that was asked of the device since
        return torch.cuda.stream(side)


def ahead(items: Iterable[tuple[T, IdExchange]]) -> Iterator[tuple[T, IdExchange]]:
    """The same, in the same order; each is taken, and its first message sent, three items before it is given."""
    waiting: deque[tuple[T, IdExchange]] = deque()
    for item in items:
        for _, before in waiting:
            before.advance()
        waiting.append(item)
        if len(waiting) > _MESSAGES:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()
        for _, before in waiting:
            before.advance()


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
