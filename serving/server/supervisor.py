"""The supervisor: keeps the workers of one generation serving, and swaps in another without losing a request.

A swap starts the workers of the new generation beside those of the old, waits until all are warm and agree with their
golden scores, tells them to accept on the socket that all share, and only then tells the old ones to stop. If the new
ones fail, the old ones have never noticed. A stop says 503 on /readyz first, then lets no new connection begin, lets
the workers accept every connection that has begun, and waits until they have answered.
"""

from __future__ import annotations

import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from rec.errors import BundleError
from serving.server.counters import ROWS, SharedCounters
from serving.server.fleet import Fleet, FreeRows, Log, Spawn
from serving.server.generations import Generation
from serving.server.listener import listen, refuse_new
from serving.server.metrics import Metrics
from serving.server.refusals import RefusalLog
from serving.server.settings import ServerSettings

_POLL_SECONDS = 0.05  # how soon a signal, a dead worker or a request of the admin page is noticed
_BACKLOG = 2048  # connections that the system accepts for the workers
_HANDSHAKE_SECONDS = 0.1  # for connections that have begun when no new ones are let in


@dataclass
class Swap:
    """A generation that is to be served, and whoever waits to hear how it went."""

    generation: Generation
    outcome: Future[str]


class Supervisor:
    """Runs in the main thread of the server; other threads ask for a swap, or look at `status`."""

    def __init__(
        self,
        spawn: Spawn,
        address: socket.socket,
        settings: ServerSettings,
        counters: SharedCounters,
        *,
        workers: int,
        log: Log,
    ) -> None:
        """`spawn` starts a worker process; row 0 of the counters is the supervisor's."""
        self.models: dict[str, str] = {}
        self.metrics = Metrics(counters, 0, self.models)
        self.draining = False
        self._refusals = RefusalLog(self.metrics, log)
        self._spawn = spawn
        self._address = address
        self._settings = settings
        self._counters = counters
        self._size = workers
        self._log = log
        self._rows = FreeRows(list(range(1, ROWS)))
        self._fleet: Fleet | None = None
        self._next: tuple[Fleet, Swap] | None = None
        self._leaving: list[Fleet] = []
        self._handed_over: tuple[Fleet, Swap] | None = None
        self._before: Generation | None = None
        self._swaps: deque[Swap] = deque()
        self._stop_at: float | None = None

    def run(self, generation: Generation, announce: Callable[[float], None]) -> None:
        """Serve a generation until SIGTERM or SIGINT; `announce` the golden difference once all workers are warm.

        Raises BundleError when the generation cannot be served.
        """
        self._fleet = fleet = self._new_fleet(generation)
        with self._signals():
            try:
                while not self._stopping() and not fleet.ready:
                    fleet.fill(self.metrics, self._log)
                    self._tick(serving=False)
                    if fleet.failure is not None:
                        raise BundleError(fleet.failure)
                if not self._stopping():
                    listen(self._address, _BACKLOG)
                    self._tick(serving=True)
                    announce(fleet.golden)
                while not self._stopping():
                    self._tick(serving=True)
                    self._fleet.spare = self._settings.spare_workers
                    self._fleet.fill(self.metrics, self._log)
                    self._swap()
                self._drain()
            finally:
                for each in self._fleets():
                    each.kill()

    def swap(self, generation: Generation) -> Future[str]:
        """Ask for a generation to be served; the future holds what came of it, or BundleError why not."""
        swap = Swap(generation, Future())
        self._swaps.append(swap)
        return swap.outcome

    @property
    def previous(self) -> Generation | None:
        """What was served before, which a rollback serves again."""
        return self._before

    @property
    def needed(self) -> set[str]:
        """Digests of all that is served, about to be, or can be rolled back to: their copies must stay."""
        waiting = [swap.generation for swap in (*self._swaps, *([] if self._next is None else [self._next[1]]))]
        before = [] if self._before is None else [self._before]
        return {generation.digest for generation in (*waiting, *before, *(f.generation for f in self._fleets()))}

    @property
    def ready(self) -> bool:
        """Whether requests are welcome: somebody serves, and nobody is about to stop."""
        return not self.draining and self._fleet is not None and self._fleet.count("serving") > 0

    def status(self) -> dict[str, Any]:
        """What is served, what is about to be, and by how many."""
        fleet, before = self._fleet, self._before
        if fleet is None:
            return {"stable": None}
        counts = {state: fleet.count(state) for state in ("starting", "warm", "serving")}
        return {
            "stable": {"name": fleet.generation.name, "digest": fleet.generation.digest, "workers": counts},
            "swapping_to": None if self._next is None else self._next[0].generation.digest,
            "previous": None if before is None else before.digest,
            "draining": self.draining,
        }

    def _new_fleet(self, generation: Generation) -> Fleet:
        self.models[generation.digest] = generation.name
        return Fleet(generation, self._spawn, self._settings, size=self._size, rows=self._rows)

    def _fleets(self) -> list[Fleet]:
        begun = [] if self._next is None else [self._next[0]]
        return [*([] if self._fleet is None else [self._fleet]), *begun, *self._leaving]

    def _tick(self, *, serving: bool) -> None:
        fleets = self._fleets()
        workers = [worker for fleet in fleets for worker in fleet.workers]
        now = time.monotonic()
        self.metrics.beat(now)
        self._refusals.tick(now)
        ready = wait([w.process.sentinel for w in workers] + [w.pipe for w in workers], _POLL_SECONDS)
        for fleet in fleets:
            fleet.tick(self.metrics, self._counters, self._log, serving=serving and fleet is self._fleet)
        if ready:
            time.sleep(0.001)  # the end of a pipe comes a moment before that of its process
        for fleet in [fleet for fleet in self._leaving if not fleet.workers]:
            self._leaving.remove(fleet)
            self._forget(fleet.generation)

    def _forget(self, generation: Generation) -> None:
        """Name a generation no more, if no fleet serves it."""
        if generation.digest not in {fleet.generation.digest for fleet in self._fleets()}:
            self.models.pop(generation.digest, None)

    def _swap(self) -> None:
        """Begin the next swap, or see how the last gets on, which is done when the old workers accept no more."""
        if self._handed_over is not None:
            old, swap = self._handed_over
            if old.closed:
                self._handed_over = None
                self._log("swap_done", digest=swap.generation.digest)
                swap.outcome.set_result(swap.generation.digest)
            return
        if self._next is None:
            if not self._swaps:
                return
            swap = self._swaps[0]
            self._log("swap_started", digest=swap.generation.digest)
            self._next = (self._new_fleet(swap.generation), swap)
            self._swaps.popleft()  # only now, so that it is needed at every moment
        fleet, swap = self._next
        fleet.fill(self.metrics, self._log)
        if fleet.failure is not None:
            self._next = None
            fleet.kill()
            self._forget(fleet.generation)
            self.metrics.swapped("failed")
            self._log("swap_failed", digest=swap.generation.digest, reason=fleet.failure)
            swap.outcome.set_exception(BundleError(fleet.failure))
        elif fleet.ready:
            old = self._fleet
            assert old is not None, "a swap begins when something is served"
            if old.generation.digest != fleet.generation.digest:  # else what a rollback serves would be lost
                self._before = old.generation
            self._next, self._fleet = None, fleet
            fleet.tick(self.metrics, self._counters, self._log, serving=True)
            old.order("stop")
            self._leaving.append(old)
            self.metrics.swapped("done")
            self._log("swapped", digest=swap.generation.digest, before=old.generation.digest)
            self._handed_over = old, swap

    def _stopping(self) -> bool:
        return self._stop_at is not None and time.monotonic() >= self._stop_at

    def _drain(self) -> None:
        """Let everybody who has come be answered, and the workers leave."""
        if self._next is not None:
            self._next[0].kill()
            self._next[1].outcome.set_exception(BundleError("the server stops"))
            self._next = None
        if self._handed_over is not None:
            self._handed_over[1].outcome.set_result(self._handed_over[1].generation.digest)
        if refuse_new(self._address):
            time.sleep(_HANDSHAKE_SECONDS)
        for fleet in self._fleets():
            fleet.order("finish")
        late = time.monotonic() + self._settings.grace_seconds + 1.0
        while any(fleet.workers for fleet in self._fleets()) and time.monotonic() < late:
            self._tick(serving=False)
        self._refusals.flush(time.monotonic())

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGHUP drain, then stop; SIGINT, or a second signal, stops at once."""

        def handle(number: int, _frame: object) -> None:
            at_once = self.draining or number == signal.SIGINT
            self._stop_at = time.monotonic() + (0.0 if at_once else self._settings.drain_seconds)
            self.draining = True
            self._log("draining", signal=signal.Signals(number).name, at_once=at_once)
            for fleet in self._fleets():
                fleet.order("drain")

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
