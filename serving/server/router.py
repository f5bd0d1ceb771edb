"""Where a worker of stable sends requests: a canary's users to the canary, and what it has answered to the shadow.

Stable depends on neither. What the canary does not answer in time, or answers with a mistake of its own, stable answers
itself; what the shadow has no time for is dropped. With stable alone, no request is looked at here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from rec.spec import Spec
from serving.server.label_client import BusyError, LabelClient
from serving.server.messages import HttpRequest, Reply, problem_reply
from serving.server.metrics import Metrics
from serving.server.routes import Routes
from serving.server.settings import ServerSettings
from serving.server.shadow import NOW, PAGE, REQUEST_BYTES
from serving.server.sticky_share import Asker, asker_reader, position

_DEADLINE = b"x-request-deadline-ms"
_FAILURES = (500, 503)  # of the canary, where stable can do better
_PAUSE_SECONDS = 1.0  # without requests for a canary that does not answer
_SHADOW_SECONDS = 10.0
_SHADOW_BYTES = 16 << 20  # of requests and answers that wait for the shadow


class Router:
    """Sends requests of one worker to the workers of other labels."""

    def __init__(self, folder: Path, spec: Spec, settings: ServerSettings, metrics: Metrics) -> None:
        """The sockets of other labels lie in `folder`; users are told apart by the `spec` of stable."""
        self.routes = Routes()
        self._metrics = metrics
        self._seconds = settings.canary_seconds
        self._read = asker_reader(spec.key_feature("user"), spec.logs.missing)
        self._canary = LabelClient(str(folder / "canary"), most=settings.in_flight)
        self._shadow = LabelClient(str(folder / "shadow"), most=settings.shadow_queue)
        self._shadow_bytes = 0
        self._pause_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def update(self, routes: Routes) -> None:
        """Requests go there from now on."""
        if not routes.canary:
            self._canary.close()
        if not routes.shadow:
            self._shadow.close()
        self.routes = self._metrics.routes = routes
        self._pause_until = 0.0

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside whatever else the worker does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def asker(self, body: bytes) -> Asker | None:
        """Who asks, where the canary is to answer: one of its users, or who asks for it by `label`."""
        routes = self.routes
        if not routes.canary and not routes.share:
            return None
        asker = self._read(body)
        if asker is None or asker.label not in (None, "canary"):
            return None
        named = asker.label == "canary"
        if not named and (asker.user is None or position(routes.salt, asker.user) >= routes.share):
            return None
        if routes.canary and asyncio.get_running_loop().time() >= self._pause_until:
            return asker
        if not named:
            self._metrics.fell_back("down")
        return asker if named and routes.canary else None

    async def canary(self, request: HttpRequest, asker: Asker) -> Reply | None:
        """The canary's answer; None where stable is to answer, which nobody gets who asked for the canary by name."""
        headers = {_DEADLINE: request.headers[_DEADLINE]} if _DEADLINE in request.headers else {}
        reply = None
        try:
            reply = await self._canary.ask(request.path, headers, request.body, seconds=self._seconds)
            reason = "refused"
        except BusyError:
            reason = "busy"
        except (OSError, EOFError) as error:
            reason = "timeout" if isinstance(error, TimeoutError) else "down"
            self._pause_until = asyncio.get_running_loop().time() + _PAUSE_SECONDS
        if asker.label is not None:
            return reply or problem_reply(503, "This label is not available", headers=((b"retry-after", b"1"),))
        if reply is None or reply.status in _FAILURES:
            self._metrics.fell_back(reason)
            return None
        return reply

    def shadow(self, body: bytes, served: bytes, now_us: int) -> None:
        """Have the shadow compare its scores with those of an answer, if it has time; nobody waits for it."""
        if not self.routes.shadow:
            return
        size = len(body) + len(served)
        if self._shadow_bytes + size > _SHADOW_BYTES:
            self._metrics.shadowed("dropped")
            return
        self._shadow_bytes += size
        self.spawn(self._shadowed(body, served, now_us))

    async def _shadowed(self, body: bytes, served: bytes, now_us: int) -> None:
        headers = {REQUEST_BYTES: b"%d" % len(body), NOW: b"%d" % now_us}
        try:
            await self._shadow.ask(PAGE, headers, body + served, seconds=_SHADOW_SECONDS)
        except BusyError:
            self._metrics.shadowed("dropped")
        except (OSError, EOFError):
            self._metrics.shadowed("failed")
        finally:
            self._shadow_bytes -= len(body) + len(served)
