"""Worker processes behind one socket: started, restarted when they die, stopped gracefully.

The parent binds the address and accepts no connections. Workers inherit its socket, so that an exiting worker does not
reset connections in the accept queue. A dead worker is restarted; if workers cannot start, the server stops.
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
from typing import cast

from rec.errors import BundleError
from serving.server.counters import SharedCounters

_POLL_SECONDS = 0.1  # how soon a signal or a dead worker is noticed
_KILL_SECONDS = 15  # how long a worker may take to finish the requests it has accepted
_EARLY_SECONDS = 10  # a worker that dies sooner than this after its start counts as failed
_EARLY_DEATHS = 3  # so many failed workers in a row stop the server


@dataclass(frozen=True)
class SharedState:
    """State shared by all processes of a server: the counters, the number of warm workers, the draining flag."""

    counters: SharedCounters
    warm: Semaphore
    draining: Event


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address; connections are accepted once a worker listens.

    Raises OSError when the address is in use.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise OSError(f"{host}:{port}: cannot listen here: {error.strerror}") from None
    return bound


def supervise(
    start: Callable[[int], SpawnProcess],
    *,
    workers: int,
    shared: SharedState,
    drain_seconds: float,
    announce: Callable[[], None],
) -> None:
    """Keep `workers` processes running until SIGTERM or SIGINT, then stop them; call `announce` once all are warm.

    SIGTERM sets `shared.draining` and stops `drain_seconds` later; SIGINT, or a second signal, stops at once. Raises
    BundleError when workers die as soon as they start.
    """
    stop = threading.Event()
    with _signals(shared.draining, stop, drain_seconds):
        processes = [start(row) for row in range(workers)]
        try:
            _wait_until_warm(processes, shared.warm, stop)
            if not stop.is_set():
                announce()
            _replace_dead(processes, start, stop)
        finally:
            _stop(processes)


def _wait_until_warm(processes: list[SpawnProcess], warm: Semaphore, stop: threading.Event) -> None:
    waiting = len(processes)
    while waiting and not stop.is_set():
        if any(worker.exitcode is not None for worker in processes):
            raise BundleError("the workers did not start; their own messages are above")
        waiting -= warm.acquire(timeout=_POLL_SECONDS)


def _replace_dead(processes: list[SpawnProcess], start: Callable[[int], SpawnProcess], stop: threading.Event) -> None:
    began, early = time.monotonic(), 0
    while not stop.is_set():
        for sentinel in cast("list[int]", wait([worker.sentinel for worker in processes], _POLL_SECONDS)):
            if stop.is_set():
                return
            early = early + 1 if time.monotonic() - began < _EARLY_SECONDS else 1
            if early > _EARLY_DEATHS:
                raise BundleError("the workers did not stay up; their own messages are above")
            index = next(index for index, worker in enumerate(processes) if worker.sentinel == sentinel)
            processes[index].join()
            processes[index], began = start(index), time.monotonic()


def _stop(processes: list[SpawnProcess]) -> None:
    for worker in processes:
        worker.terminate()
    deadline = time.monotonic() + _KILL_SECONDS
    for worker in processes:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.exitcode is None:
            worker.kill()
            worker.join()


@contextmanager
def _signals(draining: Event, stop: threading.Event, drain_seconds: float) -> Iterator[None]:
    """Signal handlers: SIGTERM drains, then stops; SIGINT, or a second signal, stops at once."""

    def handle(number: int, _frame: object) -> None:
        if draining.is_set() or number == signal.SIGINT:
            stop.set()
        else:
            threading.Timer(drain_seconds, stop.set).start()
        draining.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
