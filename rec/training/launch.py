"""The processes that train together: starting them on one machine, and joining those that a launcher started.

`multigate train --procs N` and `torchrun -m pipelines.cli train ...` run the same code; torchrun's environment
(RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) says which process this is, on one machine or on several.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from rec import world
from rec.spec import Train

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

_LAUNCHER = "MULTIGATE_LAUNCHER"  # the pid of `train --procs`, which a rank that starts late asks for
_PATIENCE = 30  # seconds from SIGTERM to the end of a rank whose launcher is no more
_TIMED_OUT = ("Timed out waiting", "timed out", "Timeout", "Application timeout")
# how gloo names itself: by its source files, or in a word on the connection that it closed
_GLOO = ("/gloo/", "Application timeout caused pair closure")


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

    gloo joins CPUs, NCCL CUDA devices. Raises TimeoutError where this process waited longer than `train.timeout` for
    another, and OtherRankError where another ended.
    """
    if world_size() == 1:
        yield
        return
    cuda = train.device != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    threading.Thread(target=_leave_with, args=(int(os.environ.get(_LAUNCHER, os.getppid())),), daemon=True).start()
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=train.timeout)
    try:
        yield
    except RuntimeError as error:
        raise _of_others(error, train) from error
    # after an error the others may never arrive: the process ends without them
    dist.destroy_process_group()


def _leave_with(launcher: int) -> None:
    """End this rank, as SIGTERM does, when the launcher that started it is no more: nobody would watch over it."""
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE)  # in which a rank that waits for another, in code that hears no signal, would go on waiting
    os._exit(128 + signal.SIGTERM)


def _of_others(error: RuntimeError, train: Train) -> Exception:
    """What a failed exchange between ranks says of the others; any other error as it is."""
    if not isinstance(error, dist.DistError) and not any(word in str(error) for word in _GLOO):
        return error
    if any(words in str(error) for words in _TIMED_OUT):
        waited = f"{train.timeout.total_seconds():g} s (train.timeout)"
        return TimeoutError(
            f"waited for another rank longer than {waited}: it hangs, or is that much slower; every whole checkpoint "
            "is kept, and the same command goes on after the last"
        )
    return world.OtherRankError("another rank ended")


def spawn(procs: int, arguments: Sequence[str]) -> int:
    """Run a command line in `procs` processes of this machine, and stop all when one fails; the exit code.

    Each process has its share of the cores, unless OMP_NUM_THREADS says otherwise. One that does not end when it is
    told to is killed 30 seconds later.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ[_LAUNCHER] = str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // procs)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the ranks say what went wrong
    config = LaunchConfig(
        run_id=uuid.uuid4().hex,
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
        return _failed(error)
    except SignalException as error:
        raise KeyboardInterrupt from error
    return 0


def _failed(error: ChildFailedError) -> int:
    """The exit code of a rank that said what went wrong, or a word on one that was killed and could not."""
    codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
    own_codes = [code for code in codes.values() if 1 < code < 128]  # 1: it lost another rank, and says nothing
    if own_codes:
        return own_codes[0]
    for rank, code in codes.items():
        if code < 0:
            name = signal.Signals(-code).name
            sys.stderr.write(
                f"multigate: rank {rank} was ended by {name}; the other ranks were stopped; every whole checkpoint is "
                "kept in MODEL, and the same command goes on after the last\n"
            )
            break
    return 1
