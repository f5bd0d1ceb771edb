"""The supervisor: keeps the workers of a generation serving, and swaps in another without losing a request.

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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from rec.errors import BundleError
from serving.server.counters import SharedCounters
from serving.server.fleet import Fleet, Log, Spawn
from serving.server.fleets import Fleets
from serving.server.generations import Generation
from serving.server.labels import Label
from serving.server.listener import listen, refuse_new
from serving.server.settings import ServerSettings

_BACKLOG = 2048  # connections that the system accepts for the workers
_HANDSHAKE_SECONDS = 0.1  # for connections that have begun when no new ones are let in


@dataclass
class Swap:
    """A generation that is to be served with a label, or none any more, and whoever waits to hear how it went.

    `share` of users is a canary's. `commit` is called when the generation is warm, before it serves; what it raises,
    BundleError or OSError, leaves all as it is.
    """

    generation: Generation | None
    outcome: Future[str]
    label: Label = "stable"
    share: float = 0.0
    commit: Callable[[], object] = lambda: None

    @property
    def digest(self) -> str:
        """What is served then; empty for nothing."""
        return "" if self.generation is None else self.generation.digest


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
        salt: str | None = None,
    ) -> None:
        """`spawn` starts a worker process; with the `salt` of a canary's users, generations have labels."""
        self.fleets = Fleets(spawn, settings, counters, workers=workers, log=log, salt=salt)
        self.metrics = self.fleets.metrics["stable"]
        self.draining = False
        self._address = address
        self._settings = settings
        self._log = log
        self._next: Swap | None = None
        self._handed_over: tuple[Fleet, Swap] | None = None
        self._before: Generation | None = None
        self._swaps: deque[Swap] = deque()
        self._stop_at: float | None = None
        self._stopped = False

    def run(self, generation: Generation, announce: Callable[[float], None]) -> None:
        """Serve a generation until SIGTERM or SIGINT; `announce` the golden difference once all workers are warm.

        Raises BundleError when the generation cannot be served.
        """
        self.fleets.serving["stable"] = fleet = self.fleets.new(generation)
        with self._signals():
            try:
                while not self._stopping() and not fleet.ready:
                    fleet.fill(self.metrics, self._log)
                    self.fleets.tick(serving=False)
                    if fleet.failure is not None:
                        raise BundleError(fleet.failure)
                if not self._stopping():
                    listen(self._address, _BACKLOG)
                    self.fleets.tick(serving=True)
                    announce(fleet.golden)
                while not self._stopping():
                    self.fleets.tick(serving=True)
                    self.fleets.fill()
                    self._swap()
                self._drain()
            finally:
                self._refuse_waiting()
                for each in self.fleets:
                    each.kill()

    def swap(self, generation: Generation | None, label: Label = "stable", **how: Any) -> Future[str]:
        """Ask for a generation to be served; the future holds what came of it, or BundleError why not.

        `how` are fields of Swap.
        """
        swap = Swap(generation, Future(), label, **how)
        self._swaps.append(swap)
        if self._stopped:
            self._refuse_waiting()
        return swap.outcome

    @property
    def previous(self) -> Generation | None:
        """What was served before, which a rollback serves again."""
        return self._before

    @property
    def needed(self) -> set[str]:
        """Digests of all that is served, about to be, or can be rolled back to: their copies must stay."""
        waiting = [swap.digest for swap in (*self._swaps, *([] if self._next is None else [self._next]))]
        before = [] if self._before is None else [self._before.digest]
        return {*waiting, *before, *(fleet.generation.digest for fleet in self.fleets)}

    @property
    def ready(self) -> bool:
        """Whether requests are welcome: somebody serves, and nobody is about to stop."""
        stable = self.fleets.serving.get("stable")
        return not self.draining and stable is not None and stable.count("serving") > 0

    def status(self) -> dict[str, Any]:
        """What is served, what is about to be, and by how many."""
        before, swap = self._before, self._next
        return {
            **self.fleets.status(),
            "swapping_to": None if swap is None else swap.digest,
            "previous": None if before is None else before.digest,
            "draining": self.draining,
        }

    def _swap(self) -> None:
        """Begin the next swap, or see how the last gets on, which is done when the old workers accept no more."""
        if self._handed_over is not None:
            old, swap = self._handed_over
            if old.closed:
                self._handed_over = None
                self._done(swap)
            return
        if self._next is None:
            if not self._swaps:
                return
            swap = self._swaps[0]
            self._log("swap_started", **self._named(swap))
            if swap.generation is None or self._served(swap):
                self._swaps.popleft()
                self._change(swap)
                return
            self._next = swap
            self.fleets.begun = self.fleets.new(swap.generation, swap.label, swap.share)
            self._swaps.popleft()  # only now, so that it is needed at every moment
        fleet, swap = self.fleets.begun, self._next
        assert fleet is not None, "it was begun with the swap"
        fleet.fill(self.fleets.metrics[swap.label], self._log)
        failure = fleet.failure
        if failure is None and fleet.ready:
            failure = self._uncommitted(swap)
            if failure is None:
                self._hand_over(fleet, swap)
        if failure is not None:
            self._next = self.fleets.begun = None
            fleet.kill()
            self.fleets.forget(fleet)
            self._failed(swap, failure)

    def _hand_over(self, fleet: Fleet, swap: Swap) -> None:
        """The new workers of a label begin to accept, and only then the old ones stop."""
        fleets, label = self.fleets, swap.label
        old = fleets.serving.get(label)
        if label == "stable" and old is not None and old.generation.digest != fleet.generation.digest:
            self._before = old.generation  # of the same digest, what a rollback serves would be lost
        self._next = fleets.begun = None
        fleets.serving[label] = fleet
        if label == "canary":
            fleets.share = swap.share
        if label == "shadow":
            self.metrics.forget_differences()
        fleets.order_on(fleet, serving=True)
        self.metrics.swapped("done")
        self._log("swapped", before=None if old is None else old.generation.digest, **self._named(swap))
        if old is None:
            self._done(swap)
        else:
            fleets.retire(old)
            self._handed_over = old, swap

    def _change(self, swap: Swap) -> None:
        """A change that needs no new workers: another share of users, or a label that is taken away."""
        failure, fleets = self._uncommitted(swap), self.fleets
        if failure is not None:
            self._failed(swap, failure)
            return
        if swap.label == "canary":
            fleets.share = swap.share
        if swap.generation is not None:
            fleets.serving[swap.label].resize(fleets.workers(swap.label, swap.share))
        elif swap.label in fleets.serving:
            fleets.retire(fleets.serving.pop(swap.label))
        self._done(swap)

    def _served(self, swap: Swap) -> bool:
        """Whether a generation has its label already; workers of stable are started anew all the same."""
        fleet = self.fleets.serving.get(swap.label)
        return swap.label != "stable" and fleet is not None and fleet.generation == swap.generation

    def _uncommitted(self, swap: Swap) -> str | None:
        """Why a swap cannot be done after all, though its generation is warm."""
        if swap.label == "canary" and swap.generation is not None and not self.fleets.serving["stable"].about.keyed:
            return "canary: the bundle of stable has no [keys] user, and so no users to share out"
        try:
            swap.commit()
        except (OSError, BundleError) as error:
            return str(error)
        return None

    def _named(self, swap: Swap) -> dict[str, str]:
        return {"digest": swap.digest, **({"label": swap.label} if self.fleets.labelled else {})}

    def _done(self, swap: Swap) -> None:
        self._log("swap_done", **self._named(swap))
        swap.outcome.set_result(swap.digest)

    def _failed(self, swap: Swap, reason: str) -> None:
        self.metrics.swapped("failed")
        self._log("swap_failed", reason=reason, **self._named(swap))
        swap.outcome.set_exception(BundleError(reason))

    def _refuse_waiting(self) -> None:
        """Tell whoever waits for a swap that there will be none, now and from now on."""
        self._stopped = True
        with suppress(IndexError):  # of two threads that do this, each refuses some
            while True:
                self._swaps.popleft().outcome.set_exception(BundleError("the server stops"))

    def _stopping(self) -> bool:
        return self._stop_at is not None and time.monotonic() >= self._stop_at

    def _drain(self) -> None:
        """Let everybody who has come be answered, and the workers leave."""
        if self._next is not None and self.fleets.begun is not None:
            self.fleets.begun.kill()
            self._next.outcome.set_exception(BundleError("the server stops"))
            self._next = self.fleets.begun = None
        if self._handed_over is not None:
            self._handed_over[1].outcome.set_result(self._handed_over[1].digest)
        self._refuse_waiting()
        if refuse_new(self._address):
            time.sleep(_HANDSHAKE_SECONDS)
        self.fleets.finish(time.monotonic() + self._settings.grace_seconds + 1.0)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGHUP drain, then stop; SIGINT, or a second signal, stops at once."""

        def handle(number: int, _frame: object) -> None:
            at_once = self.draining or number == signal.SIGINT
            self._stop_at = time.monotonic() + (0.0 if at_once else self._settings.drain_seconds)
            self.draining = True
            self._log("draining", signal=signal.Signals(number).name, at_once=at_once)
            for fleet in self.fleets:
                if fleet.label == "stable":
                    fleet.order("drain")

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
