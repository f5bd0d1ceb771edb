"""The HTTP endpoint as an ASGI app with starlette routes, for any ASGI server.

    POST /v1/rank    rank a request                     GET /livez     liveness: the process responds
    GET  /metrics    Prometheus                         GET /readyz    readiness: warm and not draining

Requests are parsed and ranked on the event loop, sequentially: a second thread would only wait for this one, and every
hand-over costs a wake-up. Beyond `in_flight` queued requests new ones get 503 at once (load shedding). Between two
requests the loop polls its sockets, so health checks respond under load.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rec.spec import Serve
from serving.online.problems import Problem, RequestError, problem
from serving.online.rank import RankResponse, RankService
from serving.scorer import NonFiniteError
from serving.server.metrics import Metrics

_RANK = "/v1/rank"
_RETRY = {"retry-after": "1"}
_CLOSE = {"connection": "close"}
_TITLES = {404: "No such page", 405: "Method not allowed"}
# bodies being received, for every request being ranked: slow senders must not keep others out
_RECEIVING = 4

_log = logging.getLogger("multigate.serving")


def create_app(
    service: RankService, metrics: Metrics, limits: Serve, *, new_id: Callable[[], str], ready: Callable[[], bool]
) -> ASGIApp:
    """The whole endpoint; `ready` is the readiness check, `new_id` generates ids for failed requests."""
    rank = RankEndpoint(service, metrics, limits, new_id=new_id)
    pages = _pages(rank, metrics, ready)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # what is timed does not pass through middleware: see docs/decisions/0009
        if scope["type"] == "http" and scope["path"] == _RANK and scope["method"] == "POST":
            await rank(scope, receive, send)
        else:
            await pages(scope, receive, send)

    return app


def _pages(rank: RankEndpoint, metrics: Metrics, ready: Callable[[], bool]) -> Starlette:
    """Routes, allowed methods and their errors; `rank` is among them for its allowed method."""

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        if not ready():
            raise HTTPException(503, "Not ready", _RETRY)
        return PlainTextResponse("ok\n")

    async def exposition(_request: Request) -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if request.scope.get("endpoint") is rank:
            metrics.request_finished(error.status_code, 0.0)
        return _problem(error.status_code, _TITLES.get(error.status_code, error.detail), headers=error.headers)

    app = Starlette(
        routes=[
            Route(_RANK, rank, methods=["POST"]),
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", exposition),
        ],
        exception_handlers={HTTPException: refused},
    )
    app.router.redirect_slashes = False
    return app


class RankEndpoint:
    """`POST /v1/rank`: receives a request within its limits, ranks it in order, responds and counts it."""

    def __init__(self, service: RankService, metrics: Metrics, limits: Serve, *, new_id: Callable[[], str]) -> None:
        """`new_id` generates the id of a failed request in the response and the log."""
        self._service = service
        self._metrics = metrics
        self._limits = limits
        self._new_id = new_id
        self._receiving = 0
        self._in_flight = 0
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Plain ASGI without starlette's function wrapper, for latency."""
        began = time.perf_counter()
        ranked: RankResponse | None = None
        try:
            ranked = await self._ranked(await self._body(Request(scope, receive)))
            response = Response(ranked.body, media_type="application/json")
        except ClientDisconnect:
            return
        except HTTPException as error:
            response = _problem(error.status_code, error.detail, headers=error.headers)
        except RequestError as error:
            response = _problem(error.status, error.title, error.problems)
        except Exception as error:  # noqa: BLE001  the boundary: a bug must not show its stack to a stranger
            response = self._failed(error)
        try:
            await response(scope, receive, send)
        finally:  # counted once the client has its response, or has gone
            self._metrics.request_finished(response.status_code, time.perf_counter() - began)
            if ranked is not None:
                self._metrics.ranked(ranked)

    def _failed(self, error: Exception) -> Response:
        if isinstance(error, NonFiniteError):
            self._metrics.nonfinite_refused()
        name = self._new_id()
        _log.error("request %s failed", name, exc_info=error)
        return _problem(500, "Internal error", instance=f"urn:request:{name}")

    async def _body(self, request: Request) -> bytes:
        """The body, within the limits on type, size and time."""
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            raise HTTPException(415, "Body must be application/json", _CLOSE)
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPException(415, "Body must not be compressed", _CLOSE)
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._limits.max_body:
            raise self._too_large()
        if self._receiving >= self._limits.in_flight * _RECEIVING:
            raise self._busy("receiving")
        self._receiving += 1
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                return await self._received(request)
        except TimeoutError:
            raise HTTPException(408, f"Body was not received in {self._limits.body_seconds:g} s", _CLOSE) from None
        finally:
            self._receiving -= 1

    async def _received(self, request: Request) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > self._limits.max_body:
                raise self._too_large()
            parts.append(part)
        return b"".join(parts)

    async def _ranked(self, body: bytes) -> RankResponse:
        if self._in_flight >= self._limits.in_flight:
            raise self._busy("queue")
        self._in_flight += 1
        try:
            await asyncio.sleep(0)  # let the others that are here be counted, or refused
            async with self._turn:
                response = self._service.rank(body, time.time_ns() // 1000)
                if self._in_flight > 1:
                    await asyncio.sleep(0)
            return response
        finally:
            self._in_flight -= 1

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"Body is larger than {self._limits.max_body} bytes", _CLOSE)

    def _busy(self, reason: str) -> HTTPException:
        self._metrics.request_shed(reason)
        return HTTPException(503, "Too many requests at once", _RETRY)


def _problem(
    status: int,
    title: str,
    problems: list[Problem] | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    **extra: str,
) -> Response:
    content = problem(status, title, problems or [], **extra)
    return Response(content, status, headers, media_type="application/problem+json")
