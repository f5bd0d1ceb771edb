"""The processes that train together: how many there are, and sums over them. One process needs no process group.

Ranks see different candidates of one global batch, so a mean over the batch is a sum over ranks of numerators and of
denominators. Nothing here waits for other processes where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor


class OtherRankError(RuntimeError):
    """Another process of this training failed, and says why."""


def size() -> int:
    """How many processes train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def total(x: Tensor) -> Tensor:
    """The sum over ranks of a tensor of one shape, without a gradient; the tensor itself in one process."""
    if size() == 1:
        return x
    summed = x.detach().clone()
    dist.all_reduce(summed)
    return summed


def agreed(decision: bool) -> bool:  # noqa: FBT001
    """What rank 0 decided, on all ranks."""
    if size() == 1:
        return decision
    flag = torch.tensor(int(decision))
    dist.broadcast(flag, 0)
    return bool(flag)


def largest(numbers: Sequence[int]) -> list[int]:
    """The largest of all ranks, number by number, in one message; of no numbers none."""
    return largest_later(numbers)()


def largest_later(numbers: Sequence[int]) -> Callable[[], list[int]]:
    """The same: the message is sent here, and the function that is returned waits for it."""
    if size() == 1 or not numbers:
        return lambda: list(numbers)
    maximum = torch.tensor(numbers)
    work = dist.all_reduce(maximum, dist.ReduceOp.MAX, async_op=True)
    assert work is not None

    def wait() -> list[int]:
        work.wait()
        return maximum.tolist()

    return wait


def gloo() -> dist.ProcessGroup:
    """A new group over all ranks' CPUs, with the time-out of the one they were joined by; all ranks call together."""
    group = dist.new_group(backend="gloo", timeout=_timeout())
    assert isinstance(group, dist.ProcessGroup)
    return group


def limit_waits() -> None:
    """Give every group that a library made the time-out of the one that ranks were joined by, not half an hour."""
    for group in dist.distributed_c10d._world.pg_map:  # noqa: SLF001  TorchRec does not tell its groups
        dist.distributed_c10d._set_pg_timeout(_timeout(), group)  # noqa: SLF001


def _timeout() -> timedelta:
    own = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))  # noqa: SLF001
    return own.options._timeout  # noqa: SLF001


@cache
def hosts() -> dist.ProcessGroup | None:
    """A group of gloo over all ranks, beside one of NCCL; None in one process. The first call is of all ranks."""
    return gloo() if size() > 1 else None


def total_with_gradient(x: Tensor) -> Tensor:
    """The sum over ranks of a tensor of one shape; its gradient is the sum over ranks of gradients."""
    return x if size() == 1 else _Total.apply(x)  # pyright: ignore[reportReturnType]


class _Total(torch.autograd.Function):
    """All-reduce, forwards and backwards."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        """The sum over ranks."""
        del ctx
        return total(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The sum over ranks of the gradients."""
        del ctx
        return total(gradient)
