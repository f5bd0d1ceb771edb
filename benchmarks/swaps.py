"""Swaps under load: another bundle taken into service again and again while clients ask without pause.

    multigate bench swaps --bundle DIR --times 100

Two copies of a bundle, which differ in their digest alone, take turns. Clients on kept and on new connections go on
meanwhile; every answer that is not 200 and every connection that fails is a failure. Latencies are compared with those
before the first swap, memory and descriptors of all processes with those after the first.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.fuzz import good, post
from rec.errors import BundleError
from rec.progress import Progress
from serving.bundle import load

_TOKEN = "a token of this bench"  # noqa: S105  of a server that lives as long as the bench


@dataclass
class Clients:
    """Threads that ask without pause: half on kept connections, half on new ones."""

    port: int
    request: bytes
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def ask(self, *, keep: bool) -> None:
        """Ask until stopped."""
        connection: socket.socket | None = None
        while not self.stopped.is_set():
            began = time.perf_counter()
            try:
                connection = connection or socket.create_connection(("127.0.0.1", self.port), timeout=30)
                connection.sendall(self.request)
                answer = _answer(connection)
            except OSError as error:
                answer = str(error).encode()
            if not answer.startswith(b"HTTP/1.1 200 "):
                self.failures.append(answer[:100].decode("ascii", "replace"))
            self.seconds.append(time.perf_counter() - began)
            if connection is not None and (not keep or b"connection: close" in answer or not answer):
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    @contextmanager
    def asking(self, threads: int) -> Iterator[None]:
        """While the block runs."""
        workers = [threading.Thread(target=self.ask, kwargs={"keep": index % 2 == 0}) for index in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            self.stopped.set()
            for worker in workers:
                worker.join()


def bench(*, bundle: Path, times: int, clients: int, progress: Progress, calm_seconds: float = 3.0) -> dict[str, Any]:
    """Swap `times` times under the load of `clients`; BundleError with the first failure, if there was any."""
    request = post(good(load(bundle)))
    with tempfile.TemporaryDirectory(prefix="multigate-bench-") as folder:
        copies = [Path(shutil.copytree(bundle, Path(folder) / str(index))) for index in range(2)]
        with (copies[1] / "manifest.json").open("a") as manifest:
            manifest.write("\n")
        with _server(copies[0]) as (port, admin, process):
            load_of = Clients(port, request)
            with load_of.asking(clients):
                time.sleep(calm_seconds)
                calm = len(load_of.seconds)
                _promote(admin, copies[1])
                before = _held(process, calm_seconds)
                progress.start("swaps", times, "swaps")
                for index in range(times):
                    _promote(admin, copies[index % 2])
                    progress.advance(1)
                after = _held(process, calm_seconds)
    if load_of.failures:
        raise BundleError(f"swaps: {len(load_of.failures)} requests failed, the first: {load_of.failures[0]}")
    p99 = [round(1000 * float(np.quantile(part, 0.99)), 2) for part in (load_of.seconds[:calm], load_of.seconds[calm:])]
    figures = {"requests": len(load_of.seconds), "failures": 0, "p99_ms": p99}
    return {"swaps": times + 1, **figures, "memory_mib": [before[0], after[0]], "descriptors": [before[1], after[1]]}


def _answer(connection: socket.socket) -> bytes:
    """A whole answer, or what came of it."""
    data = b""
    while part := connection.recv(65536):
        data += part
        head, end, body = data.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            break
    return data


def _promote(port: int, bundle: Path) -> None:
    headers = {"authorization": f"Bearer {_TOKEN}"}
    body = json.dumps({"bundle": str(bundle)}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/promote", body, headers)
    with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310  our own server
        answer.read()


def _held(process: int, calm_seconds: float) -> tuple[int, int]:
    """MiB and descriptors of a process and its children, when those that leave have left."""
    time.sleep(calm_seconds)
    tree = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
    return sum(each.memory_info().rss for each in tree) >> 20, sum(each.num_fds() for each in tree)


@contextmanager
def _server(bundle: Path) -> Iterator[tuple[int, int, int]]:
    """The port, the admin port and the process id of a server of one worker."""
    context = multiprocessing.get_context("spawn")
    ready, ports = context.Event(), (_free_port(), _free_port())
    process = context.Process(target=_serve, args=(bundle, ports, ready))
    process.start()
    try:
        if not ready.wait(120):
            raise BundleError(f"{bundle}: the server did not start; the reason is above")
        yield *ports, int(process.pid or 0)
    finally:
        process.terminate()
        process.join()


def _serve(bundle: Path, ports: tuple[int, int], ready: Event) -> None:
    from benchmarks.speed.serve import Ready
    from serving.server import serve
    from serving.server.settings import ServerSettings

    port, admin_port = ports
    settings, progress = ServerSettings(queue_seconds=30.0), Ready(ready)
    options: dict[str, Any] = {"settings": settings, "progress": progress, "admin_port": admin_port, "token": _TOKEN}
    serve.serve(bundle, host="127.0.0.1", port=port, workers=1, threads=1, **options)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
