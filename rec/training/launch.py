"""The processes that train together: starting them on one machine, and joining those that a launcher started.

`multigate train --procs N` and `torchrun -m pipelines.cli train ...` run the same code; torchrun's environment
(RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) says which process this is, on one machine or on several.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist

from rec.spec import Train


def world_size() -> int:
    """How many processes a launcher started to train together; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is, before they are joined too."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def local_world_size(size: int) -> int:
    """How many of `size` processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size))


@contextmanager
def process_group(train: Train) -> Iterator[None]:
    """Inside the block the processes that a launcher started are one group; nothing happens where there is one.

    gloo joins CPUs, NCCL CUDA devices. Whoever waits longer than `train.timeout` for another gives up.
    """
    if world_size() == 1:
        yield
        return
    cuda = train.device != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=train.timeout)
    yield
    # after an error the others may never arrive: the process ends without them
    dist.destroy_process_group()


def spawn(procs: int, arguments: Sequence[str]) -> int:
    """Run a command line in `procs` processes of this machine, and stop all when one fails; the exit code.

    Each process has its share of the cores, unless OMP_NUM_THREADS says otherwise.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // procs)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=procs,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "pipelines.cli", *arguments)
    except ChildFailedError as error:
        failed, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            sys.stderr.write(f"multigate: rank {failed} was ended by {name}; the other ranks were stopped\n")
            return 1
        return failure.exitcode
    except SignalException as error:
        raise KeyboardInterrupt from error
    return 0
