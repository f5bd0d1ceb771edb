"""The supervisor's own pages, on a listener of their own: health, metrics and control, however busy the workers are.

    GET /livez  /readyz  /metrics    GET /v1/status    POST /v1/promote  {"bundle": path}    POST /v1/rollback
                                     where versions have labels:
                                     POST /v1/promote  {"version": name, "label": "canary", "share": 0.05}
                                     POST /v1/rollback  {"label": "canary", "clear": false}

The three last need `Authorization: Bearer TOKEN`; without a token they do not exist.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from rec.errors import BundleError
from serving.server.event_log import log_failure
from serving.server.http_server import HttpServer
from serving.server.label_changes import Changes
from serving.server.messages import JSON, HttpRequest, Reply, problem_reply
from serving.server.metrics import EXPOSITION, Metrics
from serving.server.settings import ServerSettings

_HEALTH = {b"/livez": b"GET", b"/readyz": b"GET", b"/metrics": b"GET"}
_CONTROL = {b"/v1/status": b"GET", b"/v1/promote": b"POST", b"/v1/rollback": b"POST"}
_LIMITS = ServerSettings(max_body=64 * 1024, connections=256, idle_seconds=30.0)


class _Uncounted:
    """Answers of the supervisor are not those of the workers, and counted nowhere."""

    def answered(self, status: int) -> None:
        """Nothing."""

    def connection_dropped(self, reason: str, state: str) -> None:
        """Nothing."""

    def connections(self, count: int) -> None:
        """Nothing."""


class AdminEndpoint:
    """Answers the pages of the supervisor."""

    def __init__(
        self,
        metrics: Metrics,
        changes: Changes,
        *,
        ready: Callable[[], bool],
        token: str | None,
    ) -> None:
        """Whoever has the `token` can ask for `changes`."""
        self.loop: asyncio.AbstractEventLoop
        self._metrics = metrics
        self._ready = ready
        self._changes = changes
        self._token = token
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, request: HttpRequest) -> Reply | None:
        """The answer that a head deserves without its body."""
        pages = _HEALTH if self._token is None else _HEALTH | _CONTROL
        method = pages.get(request.path)
        if method is None:
            return problem_reply(404, "No such page")
        if request.method != method:
            return problem_reply(405, "Method not allowed", headers=((b"allow", method),))
        if request.path in _CONTROL and not self._authorized(request):
            return problem_reply(401, "Not authorized", headers=((b"www-authenticate", b"Bearer"),))
        return None

    def refused(self, request: HttpRequest, reply: Reply) -> None:
        """Nothing is counted."""

    def finish(self, request: HttpRequest) -> None:
        """Answer a page; a swap is answered when it is done."""
        if request.path == b"/livez":
            request.answer(Reply(200, b"ok\n"))
        elif request.path == b"/readyz":
            ready = problem_reply(503, "Not ready", headers=((b"retry-after", b"1"),))
            request.answer(Reply(200, b"ok\n") if self._ready() else ready)
        elif request.path == b"/metrics":
            request.answer(Reply(200, self._metrics.exposition(), EXPOSITION))
        elif request.path == b"/v1/status":
            request.answer(_json(self._changes.status()))
        else:
            task = self.loop.create_task(self._control(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _control(self, request: HttpRequest) -> None:
        try:
            change = self._changes.rollback if request.path == b"/v1/rollback" else self._changes.promote
            # in a thread, so that health is answered meanwhile
            request.answer(_json(await self.loop.run_in_executor(None, change, _wish(request.body))))
        except (BundleError, OSError) as error:
            # names of files and of bundles may hold what UTF-8 cannot
            reason = str(error).encode(errors="backslashreplace").decode()
            request.answer(problem_reply(409, "Not taken into service", [("", reason)]))
        except Exception as error:  # noqa: BLE001  the boundary: whoever asked is answered, whatever a bundle holds
            log_failure("control_failed", error, page=request.path.decode())
            request.answer(problem_reply(500, "Internal error"))

    def _authorized(self, request: HttpRequest) -> bool:
        sent = request.headers.get(b"authorization", b"")
        return self._token is not None and hmac.compare_digest(sent, b"Bearer " + self._token.encode())


def _wish(body: bytes) -> dict[str, Any]:
    try:
        wish = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        wish = None
    if not isinstance(wish, dict):
        raise BundleError("expected a JSON object")
    return wish


def _json(value: Any) -> Reply:
    return Reply(200, msgspec.json.encode(value), JSON)


@contextmanager
def admin_pages(endpoint: AdminEndpoint, address: socket.socket) -> Iterator[None]:
    """The pages on a bound socket, served by a thread while the block runs."""
    begun, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        endpoint.loop = asyncio.get_running_loop()
        server = HttpServer(endpoint, _LIMITS, _Uncounted())
        await server.listen(address)
        watching = asyncio.create_task(server.watch(lambda: None))
        begun.set()
        await stop.wait()
        watching.cancel()
        server.stop_accepting()
        for connection in server:
            connection.evict()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True, name="admin")
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        endpoint.loop.call_soon_threadsafe(stop.set)
        thread.join(5)
