"""A server of a bundle in a process of its own, as long as a measurement takes."""

from __future__ import annotations

import json
import multiprocessing
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psutil

from rec.errors import BundleError
from serving.server.settings import ServerSettings

TOKEN = "a token of this bench"  # noqa: S105  of a server that lives as long as the bench
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Ready:
    """Progress of a server that only wants to know when it is ready."""

    event: Event

    def start(self, what: str, total: int | None = None, unit: str = "") -> None:
        """Nothing is timed."""

    def advance(self, units: int, **figures: float) -> None:
        """Nothing is counted."""

    def say(self, line: str) -> None:
        """The ready line sets the event."""
        if line.startswith("ready"):
            self.event.set()


@contextmanager
def served(bundle: Path, *, settings: ServerSettings, workers: int = 1) -> Iterator[tuple[int, int, int]]:
    """The port, the admin port and the process id of a server, one thread a worker, which stops when the block ends."""
    context = multiprocessing.get_context("spawn")
    ready, ports = context.Event(), (free_port(), free_port())
    process = context.Process(target=_serve, args=(bundle, ports, ready, settings, workers))
    process.start()
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not ready.wait(0.1):
            if not process.is_alive() or time.monotonic() > deadline:
                raise BundleError(f"{bundle}: the server did not start; the reason is above")
        while spares_missing(ports[1], settings) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield *ports, int(process.pid or 0)
    finally:
        process.terminate()
        process.join()


def spares_missing(admin_port: int, settings: ServerSettings) -> bool:
    """Whether spare workers are still loading the bundle, which takes a core from whatever is measured."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{admin_port}/v1/status", headers={"authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  our own server
        return json.load(answer)["stable"]["workers"]["warm"] < settings.spare_workers


def held(process: int) -> tuple[int, int]:
    """MiB of memory and descriptors of a process and its descendants."""
    tree = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
    return sum(each.memory_info().rss for each in tree) >> 20, sum(each.num_fds() for each in tree)


def core_seconds(process: int) -> float:
    """What a process and its descendants have used of the cores so far."""
    tree = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in tree)


def _serve(bundle: Path, ports: tuple[int, int], ready: Event, settings: ServerSettings, workers: int) -> None:
    from serving.server import serve

    port, admin_port = ports
    options: dict[str, Any] = {"settings": settings, "progress": Ready(ready), "admin_port": admin_port, "token": TOKEN}
    serve.serve(bundle, host="127.0.0.1", port=port, workers=workers, threads=1, **options)


def free_port() -> int:
    """A port that nobody has, at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
