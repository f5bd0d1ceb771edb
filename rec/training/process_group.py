"""The ranks of an evaluation (rec/evaluation/ranks.py) over a torch.distributed process group, on the CPU.

The group must be one of gloo: beside NCCL make one with `torch.distributed.new_group(backend="gloo")`, once, on every
rank. A rank that dies makes the others raise after the group's time-out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.distributed as dist

from rec.evaluation.ranks import Owner


class ProcessGroupRanks:
    """`Ranks` over a process group; None is the default group."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        backend = dist.get_backend(group)
        if "gloo" not in backend:
            raise ValueError(f"metrics are exchanged between CPUs: expected a process group of gloo, got {backend}")
        self._group = group
        self.size, self.rank = dist.get_world_size(group), dist.get_rank(group)

    def gathered(self, values: np.ndarray) -> list[np.ndarray]:
        """The array of every rank, in order of ranks; lengths may differ, the other axes and the type may not."""
        width = values.dtype.itemsize * int(np.prod(values.shape[1:]))
        lengths = self._of_each_rank(len(values))
        padded = np.zeros(max(lengths) * width, np.uint8)
        padded[: values.nbytes] = np.frombuffer(values.tobytes(), np.uint8)
        parts = [torch.empty(len(padded), dtype=torch.uint8) for _ in lengths]
        dist.all_gather(parts, torch.from_numpy(padded), group=self._group)
        return [
            part.numpy()[: length * width].view(values.dtype).reshape(-1, *values.shape[1:])
            for part, length in zip(parts, lengths, strict=True)
        ]

    def exchanged(self, blocks: Iterable[np.ndarray], owner: Owner, columns: int) -> Iterator[np.ndarray]:
        """The rows of all ranks that `owner` gives to this one; each round sends a block of every rank's."""
        left = iter(blocks)
        while True:
            block = next(left, None)
            if not any(self._of_each_rank(int(block is not None))):
                return
            yield self._round(np.empty((0, columns), np.uint64) if block is None else block, owner)

    def _round(self, block: np.ndarray, owner: Owner) -> np.ndarray:
        """Send the rows of a block [n, columns] where they belong, and receive those of other ranks."""
        rank = owner(block)
        sent = torch.from_numpy(block[np.argsort(rank, kind="stable")].view(np.int64))
        sending = torch.from_numpy(np.bincount(rank, minlength=self.size))
        receiving = torch.empty_like(sending)
        dist.all_to_all_single(receiving, sending, group=self._group)
        received = torch.empty((int(receiving.sum()), block.shape[1]), dtype=torch.int64)
        dist.all_to_all_single(received, sent, receiving.tolist(), sending.tolist(), group=self._group)
        return received.numpy().view(np.uint64)

    def _of_each_rank(self, value: int) -> list[int]:
        """A whole number of every rank."""
        own = torch.tensor([value])
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own, group=self._group)
        return [int(part) for part in parts]
