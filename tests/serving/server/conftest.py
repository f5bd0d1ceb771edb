"""A server in a thread, and a client that sends what it is told, byte by byte."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from serving.server.counters import SharedCounters
from serving.server.http_server import HttpServer
from serving.server.metric_series import COLUMNS
from serving.server.metrics import Metrics
from serving.server.router import Router
from serving.server.routes import Routes
from serving.server.settings import ServerSettings
from serving.server.shadow import outputs_of
from serving.server.worker import create_server
from tests.serving.conftest import IDS, items

BODY = json.dumps({**IDS, "candidates": items(3, 4)}).encode()
PATIENCE = 30.0  # seconds until a test gives up, on a machine that does other things too


@dataclass
class Running:
    """A server that listens."""

    server: HttpServer
    metrics: Metrics
    port: int

    def series(self, name: str) -> float:
        """The value of one exposed series."""
        lines = self.metrics.exposition().decode().splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"multigate_{name} "))

    def until(self, name: str, value: float) -> None:
        """Wait for a series to reach a value."""
        late = time.monotonic() + PATIENCE
        while self.series(name) < value:
            assert time.monotonic() < late, f"{name} is {self.series(name)}, not {value}"
            time.sleep(0.01)


@contextmanager
def running(
    service: Any, ready: Any = lambda: True, access: Any = None, sockets: Path | None = None, **settings: Any
) -> Iterator[Running]:
    """A server of a rank service in a thread; where other labels have `sockets`, all users are the canary's."""
    limits, counters, router = ServerSettings(**settings), SharedCounters(COLUMNS), None
    metrics = Metrics(counters, 0, {"d": "m"}, None if sockets is None else Routes())
    if sockets is not None:
        router = Router(sockets, service.bundle.spec, limits, metrics)
        router.update(Routes("salt", 1.0, canary=True, shadow=True, outputs=outputs_of(service)))
    server = create_server(
        service, metrics, limits, seconds_per_candidate=1e-5, ready=ready, access=access, router=router
    )
    with socket.create_server(("127.0.0.1", 0)) as address:
        port = address.getsockname()[1]
        listening, stop = threading.Event(), []

        async def main() -> None:
            stopped = asyncio.Event()
            stop.append((asyncio.get_running_loop(), stopped))
            await server.listen(address)
            watching = asyncio.create_task(server.watch(lambda: None))
            listening.set()
            await stopped.wait()
            watching.cancel()
            server.stop_accepting()
            for connection in server:
                connection.evict()

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        assert listening.wait(PATIENCE)
        try:
            yield Running(server, metrics, port)
        finally:
            stop[0][0].call_soon_threadsafe(stop[0][1].set)
            thread.join(PATIENCE)


class Client:
    """One connection, on which bytes are sent as they are."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send some bytes."""
        self.socket.sendall(data)

    def answer(self, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        while b"\r\n\r\n" not in self.rest:
            self._receive()
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0)) if body else 0
        while len(self.rest) < length:
            self._receive()
        content, self.rest = self.rest[:length], self.rest[length:]
        return int(first.split()[1]), headers, content

    def ended(self) -> bool:
        """Wait until the server hangs up; whether it did so without another word."""
        try:
            while data := self.socket.recv(65536):
                self.rest += data
        except ConnectionResetError:
            pass
        return self.rest == b""

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"hung up after {self.rest!r}"
        self.rest += data


def head(path: str = "/v1/rank", method: str = "POST", *lines: str, length: int | None = None) -> bytes:
    """The head of a request; of a POST, in JSON."""
    kind = ["content-type: application/json"] if method == "POST" else []
    size = [] if length is None else [f"content-length: {length}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: x", *kind, *size, *lines, "", ""]).encode()


def rank(body: bytes = BODY, *lines: str) -> bytes:
    """A whole request to the ranking page."""
    return head("/v1/rank", "POST", *lines, length=len(body)) + body


def asked(port: int, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """The answer to some bytes on a connection of their own."""
    with Client(port) as client:
        client.send(data)
        return client.answer(body=not data.startswith(b"HEAD"))


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest) -> Iterator[Running]:
    """The tiny shop behind narrow limits, but with time for everything."""
    with running(request.getfixturevalue("service"), max_body=20_000, pipelined=4) as server:
        yield server
