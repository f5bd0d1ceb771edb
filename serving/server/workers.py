"""Worker processes behind one socket: started, replaced when they die, stopped without losing a request.

The parent owns the address and answers nothing. Workers inherit its socket, so that closing one worker resets nobody
who waits to be accepted by another. A worker that dies is replaced; one that cannot even start stops the whole.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event, Semaphore
from pathlib import Path
from typing import cast

from rec.errors import BundleError

_LOOK_SECONDS = 0.1  # how soon a signal or a dead worker is noticed
_KILL_SECONDS = 15  # a worker may take this long over the requests it still holds
_EARLY_SECONDS = 10  # a worker that dies sooner than this after its start was not well
_EARLY_DEATHS = 3  # of which so many in a row end the server


@dataclass(frozen=True)
class Shared:
    """What all processes of one server share: the folder of metrics, who is warm, and whether a stop was announced."""

    folder: Path
    warm: Semaphore
    draining: Event


def bound(host: str, port: int) -> socket.socket:
    """A socket that holds the address; it takes no connection before a worker listens on it.

    Raises OSError when the address is taken.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    held = socket.socket(family, kind, protocol)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind(address)
    except OSError as error:
        held.close()
        raise OSError(f"{host}:{port}: cannot listen here: {error.strerror}") from None
    return held


def supervise(
    start: Callable[[], SpawnProcess],
    *,
    workers: int,
    shared: Shared,
    drain_seconds: float,
    announce: Callable[[], None],
) -> None:
    """Keep `workers` processes running until SIGTERM or SIGINT, then stop them; `announce` once all are warm.

    SIGTERM sets `shared.draining` and stops `drain_seconds` later; SIGINT, or a second signal, stops at once. Raises
    BundleError when workers die as soon as they start.
    """
    stop = threading.Event()
    with _signals(shared.draining, stop, drain_seconds):
        crew = [start() for _ in range(workers)]
        try:
            _until_warm(crew, shared.warm, stop)
            if not stop.is_set():
                announce()
            _replace_the_dead(crew, start, stop)
        finally:
            _stop(crew)


def _until_warm(crew: list[SpawnProcess], warm: Semaphore, stop: threading.Event) -> None:
    waiting = len(crew)
    while waiting and not stop.is_set():
        if any(worker.exitcode is not None for worker in crew):
            raise BundleError("the workers did not start; their own messages are above")
        waiting -= warm.acquire(timeout=_LOOK_SECONDS)


def _replace_the_dead(crew: list[SpawnProcess], start: Callable[[], SpawnProcess], stop: threading.Event) -> None:
    began, early = time.monotonic(), 0
    while not stop.is_set():
        for dead in cast("list[int]", wait([worker.sentinel for worker in crew], _LOOK_SECONDS)):
            if stop.is_set():
                return
            early = early + 1 if time.monotonic() - began < _EARLY_SECONDS else 1
            if early > _EARLY_DEATHS:
                raise BundleError("the workers did not stay up; their own messages are above")
            place = next(index for index, worker in enumerate(crew) if worker.sentinel == dead)
            crew[place].join()
            crew[place], began = start(), time.monotonic()


def _stop(crew: list[SpawnProcess]) -> None:
    for worker in crew:
        worker.terminate()
    deadline = time.monotonic() + _KILL_SECONDS
    for worker in crew:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.exitcode is None:
            worker.kill()
            worker.join()


@contextmanager
def _signals(draining: Event, stop: threading.Event, drain_seconds: float) -> Iterator[None]:
    """SIGTERM announces the stop before it comes; SIGINT, or a second signal, stops at once."""

    def heard(number: int, _frame: object) -> None:
        if draining.is_set() or number == signal.SIGINT:
            stop.set()
        else:
            threading.Timer(drain_seconds, stop.set).start()
        draining.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, heard) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
