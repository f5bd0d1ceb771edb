"""The HTTP endpoint as a plain ASGI app: any ASGI server can run it, no framework is in it.

    POST /v1/rank    one request ranked                 GET /livez     the process answers
    GET  /metrics    Prometheus                         GET /readyz    it is warm and not about to stop

Requests are read and ranked on the event loop, one after the other: a second thread would only wait for this one, and
every hand-over costs a wake-up. Before a request takes its turn, those that came with it are counted; beyond
`in_flight` they get 503 at once. Between two turns the loop looks at its sockets, so health is answered under load.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from rec.spec import Serve
from serving.online.problems import RequestError, problem
from serving.online.rank import Answer, Ranker
from serving.scorer import NonFiniteError
from serving.server.metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", b"application/problem+json")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_RETRY = (b"retry-after", b"1")
_CLOSE = (b"connection", b"close")
# bodies being received, for every request being ranked: slow senders must not keep others out
_RECEIVING = 4

_log = logging.getLogger("multigate.serving")


class _GoneError(Exception):
    """The client hung up before its request was whole."""


@dataclass(frozen=True, slots=True)
class _Reply:
    """What is sent back; `answer` when it is one."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    answer: Answer | None = None


class App:
    """An ASGI application around one Ranker."""

    def __init__(
        self, ranker: Ranker, metrics: Metrics, limits: Serve, *, make_id: Callable[[], str], ready: Callable[[], bool]
    ) -> None:
        """`ready` says whether new requests are welcome; `make_id` names requests in which our own mistake shows."""
        self._ranker = ranker
        self._metrics = metrics
        self._limits = limits
        self._make_id = make_id
        self._ready = ready
        self._receiving = 0
        self._in_flight = 0
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            raise RuntimeError(f"only http is served, not {scope['type']}")
        method, path = scope["method"], scope["path"]
        if path == "/v1/rank":
            if method == "POST":
                await self._rank(scope, receive, send)
            else:
                self._metrics.finished(405, 0.0)
                await _refuse(send, 405, "Method not allowed", (b"allow", b"POST"))
        elif path not in ("/livez", "/readyz", "/metrics"):
            await _refuse(send, 404, "No such page")
        elif method not in ("GET", "HEAD"):
            await _refuse(send, 405, "Method not allowed", (b"allow", b"GET, HEAD"))
        elif path == "/metrics":
            await _respond(send, 200, self._metrics.text(), _TEXT)
        elif path == "/livez" or self._ready():
            await _respond(send, 200, b"ok\n", _TEXT)
        else:
            await _refuse(send, 503, "Not ready", _RETRY)

    async def _rank(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        try:
            reply = await self._answer(scope["headers"], receive)
        except _GoneError:
            return
        try:
            await _respond(send, reply.status, reply.body, *reply.headers)
        finally:  # counted once the client has its answer, or has gone
            self._metrics.finished(reply.status, time.perf_counter() - began)
            if reply.answer is not None:
                self._metrics.answered(reply.answer)

    async def _answer(self, headers: list[tuple[bytes, bytes]], receive: Receive) -> _Reply:
        """An answer or a refusal."""
        try:
            body = await self._received(dict(headers), receive)
            answer = await self._ranked(body)
        except _GoneError:
            raise
        except _Refusal as refusal:
            return _Reply(refusal.status, problem(refusal.status, refusal.title, []), (_PROBLEM, *refusal.headers))
        except RequestError as error:
            return _Reply(error.status, problem(error.status, error.title, error.problems), (_PROBLEM,))
        except NonFiniteError as error:
            self._metrics.count("multigate_nonfinite", "refuse")
            return self._our_mistake(error)
        except Exception as error:  # noqa: BLE001  the boundary: a bug must not show its stack to a stranger
            return self._our_mistake(error)
        return _Reply(200, answer.body, (_JSON,), answer)

    def _our_mistake(self, error: Exception) -> _Reply:
        name = self._make_id()
        _log.error("request %s failed", name, exc_info=error)
        return _Reply(500, problem(500, "Internal error", [], instance=f"urn:request:{name}"), (_PROBLEM,))

    async def _received(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The body, within the limits on type, size and time."""
        kind = headers.get(b"content-type", b"application/json").split(b";")[0].strip().lower()
        if kind != b"application/json":
            raise _Refusal(415, "Body must be application/json", _CLOSE)
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise _Refusal(415, "Body must not be compressed", _CLOSE)
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._limits.max_body:
            raise self._too_large()
        if self._receiving >= self._limits.in_flight * _RECEIVING:
            raise self._busy("receiving")
        self._receiving += 1
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                return await self._whole(receive)
        except TimeoutError:
            raise _Refusal(408, f"Body was not received in {self._limits.body_seconds:g} s", _CLOSE) from None
        finally:
            self._receiving -= 1

    async def _whole(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            part = message.get("body", b"")
            size += len(part)
            if size > self._limits.max_body:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _ranked(self, body: bytes) -> Answer:
        if self._in_flight >= self._limits.in_flight:
            raise self._busy("queue")
        self._in_flight += 1
        try:
            await asyncio.sleep(0)  # let the others that are here be counted, or refused
            async with self._turn:
                answer = self._ranker.answer(body, time.time_ns() // 1000)
                if self._in_flight > 1:
                    await asyncio.sleep(0)
            return answer
        finally:
            self._in_flight -= 1

    def _too_large(self) -> _Refusal:
        return _Refusal(413, f"Body is larger than {self._limits.max_body} bytes", _CLOSE)

    def _busy(self, why: str) -> _Refusal:
        self._metrics.count("multigate_requests_shed", why)
        return _Refusal(503, "Too many requests at once", _RETRY)


class _Refusal(Exception):  # noqa: N818  not an error: a full answer
    """A request refused before it was looked into."""

    def __init__(self, status: int, title: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.headers = headers


async def _refuse(send: Send, status: int, title: str, *headers: tuple[bytes, bytes]) -> None:
    await _respond(send, status, problem(status, title, []), _PROBLEM, *headers)


async def _respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
