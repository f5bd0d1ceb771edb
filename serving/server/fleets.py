"""The fleets of a server: one for each label, those that are begun, and those that leave.

Where versions have labels, canary and shadow are generations of their own, in processes of their own. Whatever becomes
of those, the workers of stable go on; they are told whether there is a canary or a shadow to send anything to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import ceil
from multiprocessing.connection import wait
from typing import Any

from serving.server.counters import ROWS, SharedCounters
from serving.server.fleet import Fleet, FreeRows, Log, Spawn
from serving.server.generations import Generation
from serving.server.labels import LABELS, ROWS_OF, Label
from serving.server.metrics import Metrics
from serving.server.refusals import RefusalLog
from serving.server.routes import Routes
from serving.server.settings import ServerSettings

_POLL_SECONDS = 0.05  # how soon a signal, a dead worker or a request of the admin page is noticed


class Fleets:
    """All fleets of a server; `serving` has one for each label."""

    def __init__(
        self,
        spawn: Spawn,
        settings: ServerSettings,
        counters: SharedCounters,
        *,
        workers: int,
        log: Log,
        salt: str | None,
    ) -> None:
        """`spawn` starts a worker process; with the `salt` of a canary's users, generations have labels.

        The first row of the counters of each label is the supervisor's.
        """
        self.models: dict[str, str] = {}
        self.labelled = salt is not None
        rows = ROWS_OF if self.labelled else {"stable": range(ROWS)}
        routes = Routes(salt) if salt is not None else None
        self.metrics = {label: Metrics(counters, of.start, self.models, routes) for label, of in rows.items()}
        self.serving: dict[Label, Fleet] = {}
        self.begun: Fleet | None = None
        self.leaving: list[Fleet] = []
        self.share = 0.0
        self._salt = salt or ""
        self._spawn = spawn
        self._settings = settings
        self._counters = counters
        self._size = workers
        self._log = log
        self._rows = {label: FreeRows(list(of)[1:]) for label, of in rows.items()}
        self._refusals = RefusalLog(self.metrics["stable"], log)

    def new(self, generation: Generation, label: Label = "stable", share: float = 0.0) -> Fleet:
        """A fleet for a generation; `share` of users is a canary's."""
        self.models[generation.digest] = generation.name
        size = self.workers(label, share)
        return Fleet(generation, self._spawn, self._settings, size=size, rows=self._rows[label], label=label)

    def workers(self, label: Label, share: float) -> int:
        """How many serve with a label: of a canary in proportion to its users; a shadow drops what is too much."""
        return {"stable": self._size, "canary": max(1, ceil(self._size * share)), "shadow": 1}[label]

    def __iter__(self) -> Iterator[Fleet]:
        """All fleets, whatever they do."""
        return iter([*self.serving.values(), *([] if self.begun is None else [self.begun]), *self.leaving])

    def fill(self) -> None:
        """Start workers of those that serve, where some are missing."""
        self.serving["stable"].spare = self._settings.spare_workers
        for label, fleet in self.serving.items():
            fleet.fill(self.metrics[label], self._log)

    def tick(self, *, serving: bool) -> None:
        """Hear what workers say, bury the dead, and tell those of stable where requests go; waits for a moment."""
        workers = [worker for fleet in self for worker in fleet.workers]
        now = time.monotonic()
        self.metrics["stable"].beat(now)
        self._refusals.tick(now)
        ready = wait([w.process.sentinel for w in workers] + [w.pipe for w in workers], _POLL_SECONDS)
        self._route()
        for fleet in self:
            self.order_on(fleet, serving=serving and fleet is self.serving.get(fleet.label))
        if ready:
            time.sleep(0.001)  # the end of a pipe comes a moment before that of its process
        for fleet in [fleet for fleet in self.leaving if not fleet.workers]:
            self.leaving.remove(fleet)
            self.forget(fleet)

    def order_on(self, fleet: Fleet, *, serving: bool) -> None:
        """See to the workers of one fleet; with `serving`, those that are warm begin to accept."""
        fleet.tick(self.metrics[fleet.label], self._counters, self._log, serving=serving)

    def retire(self, fleet: Fleet) -> None:
        """Let a fleet's workers finish, and leave."""
        self._route()
        for other in self:
            other.tell()  # nobody is sent there any more
        fleet.order("stop")
        self.leaving.append(fleet)

    def forget(self, fleet: Fleet) -> None:
        """Name its generation no more, if no fleet serves it."""
        if fleet.generation.digest not in {other.generation.digest for other in self}:
            self.models.pop(fleet.generation.digest, None)

    def finish(self, late: float) -> None:
        """Let everybody who has come be answered, and all workers leave, until `late` of the monotonic clock."""
        for labels in (LABELS[:1], LABELS[1:]):  # who asks others leaves first
            fleets = [fleet for fleet in self if fleet.label in labels]
            for fleet in fleets:
                fleet.order("finish")
            while any(fleet.workers for fleet in fleets) and time.monotonic() < late:
                self.tick(serving=False)
        self._refusals.flush(time.monotonic())

    def status(self) -> dict[str, Any]:
        """What is served with each label."""
        fleets = {label: self.serving.get(label) for label in (LABELS if self.labelled else LABELS[:1])}
        return {label: None if fleet is None else fleet.status() for label, fleet in fleets.items()}

    def _route(self) -> None:
        """Say where requests go, to all workers of stable; said again only where it has changed."""
        if not self.labelled:
            return
        canary, shadow = self.serving.get("canary"), self.serving.get("shadow")
        served = {label: self.serving[label].generation for label in LABELS if label in self.serving}
        routes = Routes(
            salt=self._salt,
            share=self.share,
            canary=canary is not None and canary.count("serving") > 0,
            shadow=shadow is not None and shadow.count("serving") > 0,
            models=tuple({"label": label, **generation.named} for label, generation in served.items()),
            outputs=() if shadow is None else shadow.about.outputs,
        )
        self.metrics["stable"].routes = routes
        for fleet in self:
            if fleet.label == "stable":
                fleet.routes = routes
