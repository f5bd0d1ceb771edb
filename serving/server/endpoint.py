"""The pages of the server.

    POST /v1/rank    rank a request                     GET /livez     liveness: the process responds
    GET  /metrics    Prometheus                         GET /readyz    readiness: warm and not draining

Requests are ranked on the event loop, one after the other: a second thread would only wait for this one, and every
hand-over costs a wake-up. Between two of them the loop accepts whoever has come, so that a queue is seen when it is
still short: who would wait too long gets 503 at once (serving/server/admission.py), and health checks are answered.
Just before the model runs, the request's deadline and its client's presence are checked: work for nobody is not done.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

from serving.online.problems import RequestError
from serving.online.rank import RankResponse, RankService
from serving.scorer import NonFiniteError
from serving.server.access_log import AccessLog
from serving.server.admission import Admission
from serving.server.event_log import log_failure
from serving.server.http_server import HttpServer
from serving.server.messages import JSON, HttpRequest, Reply, problem_reply, too_many
from serving.server.metrics import EXPOSITION, Metrics
from serving.server.router import Router
from serving.server.sticky_share import Asker

RANK = b"/v1/rank"
DEADLINE = b"x-request-deadline-ms"
_PAGES = {RANK: (b"POST",), b"/livez": (b"GET", b"HEAD"), b"/readyz": (b"GET", b"HEAD"), b"/metrics": (b"GET", b"HEAD")}
_WAITED = (200, 504)  # answers that tell how long a queue was
_DOOR_SECONDS = 0.004  # between two requests at most, while every turn of the loop brings somebody
_LONGEST_MS = 3_600_000
_SCRAPES, _SCRAPE_SECONDS = 4, 0.25


class _UnrankedError(Exception):
    """A request that is not ranked after all: its client has gone, or its deadline has passed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Queued(NamedTuple):
    """A request that was admitted at `since`; `within` is its deadline, `estimate` the time it was thought to take."""

    request: HttpRequest
    within: float | None
    since: float
    estimate: float


class RankEndpoint:
    """Answers the requests of one process."""

    server: HttpServer
    line = b"POST " + RANK + b" HTTP/1.1\r\n"  # of the requests that are queued

    def __init__(
        self,
        service: RankService,
        metrics: Metrics,
        admission: Admission,
        *,
        new_id: Callable[[], str],
        ready: Callable[[], bool],
        access: AccessLog | None,
        router: Router | None,
    ) -> None:
        """`new_id` generates the id of a failed request in the answer and the log; `ready` is the readiness check.

        A `router` sends requests to other labels, where versions have labels.
        """
        self._access = access
        self._router = router
        self._service = service
        self._metrics = metrics
        self._admission = admission
        self._new_id = new_id
        self._ready = ready
        self._queue = deque[_Queued]()
        self._seen = -1
        self._opened: float | None = None  # when the door was opened, between two requests
        self._running = False
        self._answered: float | None = None  # when the last request left, if others waited then
        self._scraped, self._scrapes, self._page = 0.0, 0, b""

    def begin(self, request: HttpRequest) -> Reply | None:
        """The answer that a head deserves without its body."""
        methods = _PAGES.get(request.path)
        if methods is None:
            return problem_reply(404, "No such page")
        if request.method not in methods:
            return problem_reply(405, "Method not allowed", headers=((b"allow", b", ".join(methods)),))
        if request.path != RANK:
            return None
        kind = request.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            return problem_reply(415, "Body must be application/json")
        if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            return problem_reply(415, "Body must not be compressed")
        return None

    @property
    def crowded(self) -> bool:
        """Whether whoever comes has to wait for many others."""
        return self._admission.crowded

    def full(self, body: bytes, *, before: int) -> bool:
        """Whether a request would be refused because of the queue; users of a canary are let in, it has its own."""
        canary = self._router is not None and self._router.routes.canary
        return not canary and self._admission.full(body, before=before)

    def retry_after(self) -> int:
        """Whole seconds until a client that is refused should come again."""
        return self._admission.retry_after()

    def refused_at_once(self, count: int) -> None:
        """So many requests were refused on new connections, before they were parsed."""
        self._metrics.refused_at_once(count)
        if self._access is not None:
            for _ in range(count):
                self._access.finished(503, 0.0, None)

    def refused(self, request: HttpRequest, reply: Reply) -> None:
        """Requests to the ranking page are counted, answered or not."""
        if request.path == RANK:
            seconds = perf_counter() - request.arrived
            self._metrics.request_finished(reply.status, seconds)
            if self._access is not None:
                self._access.finished(reply.status, seconds, None)

    def finish(self, request: HttpRequest) -> None:
        """Queue a request to be ranked; answer any other."""
        if request.path == RANK:
            self._route(request)
        elif request.path == b"/livez":
            request.answer(Reply(200, b"ok\n"))
        elif request.path == b"/metrics":
            request.answer(Reply(200, self._exposition(), EXPOSITION))
        elif self._ready():
            request.answer(Reply(200, b"ok\n"))
        else:
            request.answer(problem_reply(503, "Not ready", headers=((b"retry-after", b"1"),)))

    def _exposition(self) -> bytes:
        """The metrics; in a flood of scrapes most get the last ones, so that health is not behind all of them."""
        now = perf_counter()
        if now - self._scraped > _SCRAPE_SECONDS:
            self._scraped, self._scrapes = now, 0
        if self._scrapes < _SCRAPES:
            self._scrapes += 1
            self._page = self._metrics.exposition()
        return self._page

    def _route(self, request: HttpRequest) -> None:
        asker = None if self._router is None else self._router.asker(request.body)
        if self._router is None or asker is None:
            self._admit(request)
        else:
            self._router.spawn(self._canary(self._router, request, asker))

    async def _canary(self, router: Router, request: HttpRequest, asker: Asker) -> None:
        try:
            reply = await router.canary(request, asker)
        except Exception as error:  # noqa: BLE001  the boundary: whoever asked is answered
            log_failure("canary_failed", error)
            reply = None
        if reply is None:
            self._admit(request)
        else:
            request.answer(reply)  # the worker that made it has counted it

    def _admit(self, request: HttpRequest) -> None:
        try:
            within = _deadline(request.headers.get(DEADLINE))
        except ValueError:
            self._close(request, _bad_deadline())
            return
        reason = self._admission.admit(request.body, within=within)
        if reason is not None:
            self._close(request, self._busy(reason))
            return
        self._queue.append(_Queued(request, within, perf_counter(), self._admission.estimate()))
        if not self._running:
            self._running = True
            self.server.loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Let in whoever has come; when nobody comes any more, rank the next request."""
        came, now = self.server.accepted, perf_counter()
        self._opened = self._opened or now
        if (came != self._seen or self.server.arriving) and now - self._opened < _DOOR_SECONDS:
            self._seen = came
            self.server.loop.call_soon(self._turn)
            return
        self._opened = None
        self._rank(self._queue.popleft())
        self._running = bool(self._queue)
        if self._running:
            self.server.loop.call_soon(self._turn)

    def _rank(self, queued: _Queued) -> None:
        request, within = queued.request, queued.within
        # where others waited, all that was done since the last answer counts, refusals too: it is what they waited for
        began = perf_counter() if self._answered is None else self._answered
        ranked, seconds = None, None

        def check(deadline_ms: int | None) -> None:
            limits = [limit for limit in (within, None if deadline_ms is None else deadline_ms / 1000) if limit]
            if limits and perf_counter() - request.arrived >= min(limits):
                raise _UnrankedError("deadline")
            if request.gone():
                raise _UnrankedError("gone")

        now_us = time.time_ns() // 1000
        try:
            ranked = self._service.rank(request.body, now_us, check=check)
            seconds = perf_counter() - began
            reply = Reply(200, ranked.body, JSON)
        except _UnrankedError as error:
            reply = None if error.reason == "gone" else problem_reply(504, "The request's deadline has passed")
            self._metrics.request_shed(error.reason)
        except RequestError as error:
            reply = problem_reply(error.status, error.title, error.problems)
        except Exception as error:  # noqa: BLE001  the boundary: a bug must not show its stack to a stranger
            reply = self._failed(error)
        self._admission.leave(request.body, seconds=seconds, candidates=ranked.candidates if ranked else 0)
        self._measure(queued, reply)
        if reply is None:
            request.answer(problem_reply(503, "Client has gone", close=True))
            return
        self._close(request, reply, ranked)
        if ranked is not None:
            self._metrics.ranked(ranked)
            if self._router is not None:
                self._router.shadow(request.body, ranked.body, now_us)

    def _measure(self, queued: _Queued, reply: Reply | None) -> None:
        """What is waited for from now on, and how long a request took, where its answer tells."""
        now = perf_counter()
        self._answered = now if self._queue else None
        if reply is not None and reply.status in _WAITED:
            self._admission.answered(estimate=queued.estimate, seconds=now - queued.since)

    def _close(self, request: HttpRequest, reply: Reply, ranked: RankResponse | None = None) -> None:
        request.answer(reply)
        seconds = perf_counter() - request.arrived
        self._metrics.request_finished(reply.status, seconds)
        if self._access is not None:
            self._access.finished(reply.status, seconds, ranked)

    def _busy(self, reason: str) -> Reply:
        self._metrics.request_shed(reason)
        return too_many(self._admission.retry_after())

    def _failed(self, error: Exception) -> Reply:
        if isinstance(error, NonFiniteError):
            self._metrics.nonfinite_refused()
        name = self._new_id()
        log_failure("request_failed", error, request=name)
        return problem_reply(500, "Internal error", instance=f"urn:request:{name}")


def _deadline(header: bytes | None) -> float | None:
    """Seconds from the arrival of a request; ValueError where the header is not 1 to _LONGEST_MS."""
    if header is None:
        return None
    if not header.isdigit() or len(header) > 7 or not 1 <= int(header) <= _LONGEST_MS:
        raise ValueError
    return int(header) / 1000


def _bad_deadline() -> Reply:
    message = f"X-Request-Deadline-Ms: expected a whole number of milliseconds from 1 to {_LONGEST_MS}"
    return problem_reply(422, "Request does not fit the spec", [("", message)])
