"""Several processes on one machine, joined by gloo, that each call a function of a test."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_ranks(size: int, work: Callable[..., None], *arguments: object) -> None:
    """Call `work(*arguments)` on every rank; what one raises is raised here. `work` is a function of a module."""
    begun_on_ranks(size, work, *arguments)()


def begun_on_ranks(size: int, work: Callable[..., None], *arguments: object) -> Callable[[], None]:
    """The same, and do not wait for it; the function that is returned does."""
    folder = tempfile.TemporaryDirectory()
    processes = mp.spawn(_rank, (size, Path(folder.name) / "meeting", work, arguments), nprocs=size, join=False)
    assert processes is not None

    def wait() -> None:
        with folder:
            while not processes.join():
                pass

    return wait


def _rank(rank: int, size: int, meeting: Path, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=timedelta(seconds=300)
    )
    work(*arguments)
    dist.destroy_process_group()
