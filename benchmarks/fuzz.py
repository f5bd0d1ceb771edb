"""Hostile inputs over HTTP: bytes, structure, heads and the behaviour of connections. Nothing of it may be a 500.

    multigate bench fuzz --inputs 100000 --seed 7

A server in processes of its own is sent inputs, each on a connection of its own, by a seed. Every hundredth input a
good request must be answered. In the end no answer was a 500, no worker has died, and memory has not grown.
"""

from __future__ import annotations

import random
import socket
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil

from rec.errors import BundleError
from rec.progress import Progress
from serving.bundle import Bundle, load

EVERY = 100  # inputs between two good requests
_PATIENCE = 0.02  # seconds until an input that is not answered is given up
_VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 7, 2**31, 2**63, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e-310, 1e38, 1e308, "", "a", "\0",
    "\u202e", "a" * 5000, "2026-03-09T10:00:00Z", "2026-03-09T10:00:00", "9999-12-31T23:59:59Z", [], [[]], {}, {"a": 1},
    [1, "a", None], [0.5] * 3, list(range(2000)),
)  # fmt: skip
_LINES = (
    b"content-length: 0", b"content-length: 5", b"content-length: 99999999999", b"content-length: -1",
    b"content-length: 5, 5", b"transfer-encoding: chunked", b"transfer-encoding: gzip, chunked",
    b"transfer-encoding: identity", b"expect: 100-continue", b"connection: close", b"connection: keep-alive, x",
    b"connection: upgrade", b"upgrade: h2c", b"upgrade: websocket", b"content-encoding: gzip",
    b"content-type: text/plain", b"content-type: application/json; charset=utf-16", b"x-request-deadline-ms: 1",
    b"x-request-deadline-ms: -1",
    b"x: " + b"y" * 9000, b" folded: 1", b"no-colon", b": empty", b"x\0y: 1", b"host: a\r\nhost: b", b"te: trailers",
)  # fmt: skip
_CHUNKS = (
    b"", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"fffffffffffffffff\r\n", b"1;x\r\na\r\n0\r\nt: 1\r\n\r\n",
)  # fmt: skip
_KEYS = ("request_id", "time", "options", "deadline_ms", "x", "context", "candidates")
_METHODS = (b"POST", b"POST", b"POST", b"GET", b"HEAD", b"PUT", b"CONNECT", b"OPTIONS", b"PRI", b"post", b"")
_PATHS = (
    b"/v1/rank",
    b"/v1/rank",
    b"/livez",
    b"/metrics",
    b"/",
    b"*",
    b"//v1/rank",
    b"/v1/rank?x",
    b"/%00",
    b"http://a/",
)
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b"")


def good(bundle: Bundle) -> bytes:
    """The body of a request that is answered: stored ids, where the bundle has any."""
    ids: dict[str, Any] = {"context": {}, "candidates": []}
    users, items = bundle.store.context, bundle.store.candidates
    user, item = bundle.spec.key_feature("user"), bundle.spec.key_feature("item")
    if users is not None and len(users.rows):
        ids["context"] = {user: users.rows.field(str(user))[0].as_py()}
    if items is not None:
        ids["candidates"] = [{item: value} for value in items.rows.field(str(item)).slice(0, 20).to_pylist()]
    return msgspec.json.encode(ids)


class Sender:
    """Makes one input after another, by a seed."""

    def __init__(self, bundle: Bundle, seed: int) -> None:
        """Names are those of the bundle's spec, and others."""
        self._draw = random.Random(seed)  # noqa: S311  a seed makes it repeatable
        self._body = good(bundle)
        self._names = {side: [*features, "x", "", "a" * 300] for side, features in bundle.spec.sides()}

    def next(self) -> list[bytes]:
        """The pieces in which the next input is sent."""
        draw = self._draw
        data = draw.choice((self._bytes, self._head, self._request, self._tree, self._changed_body))()
        data *= draw.choice((1, 1, 1, 1, 2, 20))
        cut = draw.randrange(len(data) + 1) if draw.random() < 0.3 else len(data)
        return [data[:cut], data[cut:]]

    def _bytes(self) -> bytes:
        return self._draw.randbytes(self._draw.randrange(1, 200))

    def _head(self) -> bytes:
        draw = self._draw
        first = b" ".join((draw.choice(_METHODS), draw.choice(_PATHS), draw.choice(_VERSIONS)))
        lines = [first, b"host: x", *draw.sample(_LINES, draw.randrange(5)), b"", b""]
        return b"\r\n".join(lines) + draw.choice((*_CHUNKS, self._body, b"hello"))

    def _request(self) -> bytes:
        return self._mutated(post(self._body))

    def _changed_body(self) -> bytes:
        return post(self._mutated(self._body))

    def _tree(self) -> bytes:
        draw = self._draw
        if draw.random() < 0.1:
            return post(b"[" * draw.randrange(2000))
        context = {draw.choice(self._names["context"]): draw.choice(_VALUES) for _ in range(draw.randrange(4))}
        names = draw.choices(self._names["candidates"], k=draw.randrange(1, 5))
        rows: Any = [{name: draw.choice(_VALUES) for name in names} for _ in range(draw.randrange(6))]
        if draw.random() < 0.5:
            rows = {name: [draw.choice(_VALUES) for _ in range(draw.randrange(4))] for name in names}
        tree = {"context": context, "candidates": rows}
        if draw.random() < 0.3:
            tree[draw.choice(_KEYS)] = draw.choice(_VALUES)
        return post(msgspec.json.encode(tree))

    def _mutated(self, data: bytes) -> bytes:
        draw, changed = self._draw, bytearray(data)
        for _ in range(draw.randrange(1, 6)):
            place = draw.randrange(len(changed) + 1)
            removed = draw.choice((0, 0, 1, 1, 20, len(changed)))
            changed[place : place + removed] = draw.randbytes(draw.choice((0, 1, 1, 8)))
        return bytes(changed)


def post(body: bytes) -> bytes:
    """A whole request to the ranking page."""
    lines = [
        b"POST /v1/rank HTTP/1.1",
        b"host: x",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
    ]
    return b"\r\n".join([*lines, b"", body])


def send(port: int, pieces: Sequence[bytes], *, patience: float = _PATIENCE) -> bytes:
    """What comes back for an input on a connection of its own, within `patience` seconds or until it is closed."""
    answer = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.settimeout(patience)
        for piece in pieces:
            connection.sendall(piece)
        answer = connection.recv(65536)
    return answer


def fuzz(port: int, bundle: Bundle, *, inputs: int, seed: int, advance: Callable[[int], None]) -> dict[str, int]:
    """Send inputs to a server; how many were answered with which status. BundleError where a good request is not."""
    inputs_of_seed, request = Sender(bundle, seed), post(good(bundle))
    statuses: dict[str, int] = {}
    for index in range(inputs):
        answer = send(port, inputs_of_seed.next())
        status = answer[9:12].decode("ascii", "replace") if answer else "none"
        statuses[status] = statuses.get(status, 0) + 1
        if index % EVERY == 0:
            if not send(port, [request], patience=30.0).startswith(b"HTTP/1.1 200 "):
                raise BundleError(f"fuzz: after input {index} of seed {seed} a good request was not answered")
            advance(EVERY)
    return statuses


def bench(*, bundle: Path, inputs: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Fuzz a server of a bundle; BundleError when an input was a 500, ended a worker, or memory grew by half."""
    from benchmarks.speed.serve import server

    opened = load(bundle)
    with server(bundle) as connection:
        port = connection.getpeername()[1]
        progress.start("fuzz", inputs, "inputs")
        fuzz(port, opened, inputs=min(inputs, 5000), seed=seed + 1, advance=lambda _: None)
        before = _memory()
        statuses = fuzz(port, opened, inputs=inputs, seed=seed, advance=progress.advance)
        after, page = _memory(), metrics(port)
    errors = page['multigate_http_requests_total{code="500"}']
    deaths = sum(value for name, value in page.items() if name.startswith("multigate_worker_deaths_total"))
    if errors or deaths or after > 1.5 * before:
        raise BundleError(f"fuzz: {errors:g} answers of 500, {deaths:g} deaths, memory {before} -> {after} MiB")
    return {"inputs": inputs, "seed": seed, "statuses": statuses, "memory_mib": [before, after], "deaths": deaths}


def metrics(port: int) -> dict[str, float]:
    """The series that a server exposes."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def _memory() -> int:
    """MiB of all processes of the server, which are children of this one."""
    return sum(child.memory_info().rss for child in psutil.Process().children(recursive=True)) >> 20
