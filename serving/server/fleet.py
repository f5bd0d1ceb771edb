"""The workers of one generation: started, told to serve, watched, and replaced when they die.

    starting -> warm -> serving -> leaving

Beyond those that serve, spare ones wait warm: when a worker dies, the next takes its place at once, while another is
started. Starts back off when deaths come often. A generation none of whose workers ever got warm is bad.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Literal

from serving.server.control import received, send
from serving.server.counters import SharedCounters
from serving.server.generations import Generation
from serving.server.labels import Label
from serving.server.metrics import Metrics, heartbeat, reset
from serving.server.routes import Routes
from serving.server.settings import ServerSettings

State = Literal["starting", "warm", "serving", "leaving"]
_COLD_DEATHS = 3  # so many workers that never got warm make a generation bad
_MINUTE = 60.0
_FIRST_BACKOFF, _MOST_BACKOFF = 0.1, 30.0
_CRASHED = "the workers did not start; their own messages are above"


@dataclass(eq=False)
class Worker:
    """A worker process, the supervisor's end of its pipe, and its row of the counters."""

    process: SpawnProcess
    pipe: Connection
    row: int
    started: float
    state: State = "starting"
    killed: str | None = None  # why
    closed: bool = False  # accepts no more
    sent_routes: Routes | None = None


Spawn = Callable[[Generation, int], tuple[SpawnProcess, Connection]]
Log = Callable[..., None]


@dataclass(frozen=True)
class About:
    """What a warm worker says of its bundle: whether requests name a user, and the outputs of its model."""

    keyed: bool = False
    outputs: tuple[str, ...] = ()


@dataclass
class FreeRows:
    """Rows of the counters that no worker has."""

    free: list[int] = field(default_factory=list)


class Fleet:
    """The workers of a generation."""

    def __init__(
        self,
        generation: Generation,
        spawn: Spawn,
        settings: ServerSettings,
        *,
        size: int,
        rows: FreeRows,
        label: Label = "stable",
    ) -> None:
        """`spawn` starts a process for a generation and a row; `size` workers serve."""
        self.generation = generation
        self.label: Label = label
        self.workers: list[Worker] = []
        self.golden = 0.0  # the largest difference of golden scores
        self.failure: str | None = None  # why the generation is bad
        self.size = size
        self.spare = 0
        self.deaths = 0
        self.about = About()
        self.routes: Routes | None = None  # what its workers are to know of other labels
        self._spawn = spawn
        self._settings = settings
        self._rows = rows
        self._deaths: list[float] = []
        self._cold_deaths = 0
        self._ever_warm = False
        self._next_start = 0.0

    def count(self, *states: State) -> int:
        """Workers in any of these states."""
        return sum(worker.state in states for worker in self.workers)

    @property
    def ready(self) -> bool:
        """Whether as many workers are warm, or serve already, as should serve."""
        return self.count("warm", "serving") >= self.size

    @property
    def closed(self) -> bool:
        """Whether no worker accepts connections any more."""
        return all(worker.closed for worker in self.workers)

    def order(self, order: str) -> None:
        """Send an order to all workers: drain, stop (others accept), or finish (whoever has come is let in)."""
        for worker in self.workers:
            send(worker.pipe, order)
            if order in ("stop", "finish"):
                worker.state = "leaving"

    def tick(self, metrics: Metrics, counters: SharedCounters, log: Log, *, serving: bool) -> None:
        """Read what workers say, bury the dead, kill the stuck; with `serving`, fill the gaps."""
        now = time.monotonic()
        for worker in list(self.workers):
            self._read(worker, log)
            if worker.process.exitcode is not None:
                self._bury(worker, metrics, counters, log, now)
            elif not worker.killed and (reason := self._overdue(worker, counters, now)):
                worker.killed = reason
                metrics.worker_died(reason)
                log("worker_killed", pid=worker.process.pid, reason=reason, digest=self.generation.digest)
                worker.process.kill()
        self.tell()
        if serving:
            for worker in self.workers:
                if worker.state == "warm" and self.count("serving") < self.size:
                    worker.state = "serving"
                    send(worker.pipe, "serve")

    def resize(self, size: int) -> None:
        """So many workers are to serve from now on; those that are too many leave, others are there for the rest."""
        self.size = size
        for worker in [worker for worker in self.workers if worker.state == "serving"][size:]:
            send(worker.pipe, "stop")
            worker.state = "leaving"

    def tell(self) -> None:
        """Tell every worker that is warm of the other labels, before it serves and when they change."""
        for worker in self.workers:
            if self.routes is not None and worker.state in ("warm", "serving") and worker.sent_routes != self.routes:
                worker.sent_routes = self.routes
                send(worker.pipe, self.routes)

    def fill(self, metrics: Metrics, log: Log) -> None:
        """Start workers that are missing, unless deaths came so often that it is too soon."""
        now = time.monotonic()
        while (
            self.failure is None
            and self.count("starting", "warm", "serving") < self.size + self.spare
            and now >= self._next_start
            and self._rows.free
        ):
            row = self._rows.free.pop()
            process, pipe = self._spawn(self.generation, row)
            self.workers.append(Worker(process, pipe, row, now))
            metrics.worker_started()
            log("worker_started", pid=process.pid, digest=self.generation.digest)

    def status(self) -> dict[str, Any]:
        """What is served, and by how many; deaths of workers since it began."""
        counts = {state: self.count(state) for state in ("starting", "warm", "serving")}
        healthy = self.count("serving") >= self.size
        version = {"version": self.generation.version} if self.generation.version else {}
        what = {"name": self.generation.name, **version, "digest": self.generation.digest}
        return {**what, "workers": counts, "deaths": self.deaths, "healthy": healthy}

    def kill(self) -> None:
        """End all workers now."""
        for worker in self.workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
            self._rows.free.append(worker.row)
        self.workers.clear()

    def _read(self, worker: Worker, log: Log) -> None:
        for news in received(worker.pipe):
            if "warm" in news and worker.state == "starting":
                worker.state, self._ever_warm = "warm", True
                self.golden = max(self.golden, news["warm"])
                self.about = About(news.get("keyed", False), tuple(news.get("outputs", ())))
                log("worker_warm", pid=worker.process.pid, digest=self.generation.digest)
            elif "closed" in news:
                worker.closed = True
            elif "failed" in news and not self._ever_warm:
                self.failure = news["failed"]

    def _bury(self, worker: Worker, metrics: Metrics, counters: SharedCounters, log: Log, now: float) -> None:
        worker.process.join()
        worker.pipe.close()
        self.workers.remove(worker)
        reset(counters, worker.row)
        self._rows.free.append(worker.row)
        if worker.state == "leaving":
            return
        self.deaths += 1
        if not worker.killed:
            metrics.worker_died("never_warm" if worker.state == "starting" else "died")
        exitcode = worker.process.exitcode
        cause = worker.killed or _cause(exitcode)
        log("worker_died", pid=worker.process.pid, exit=exitcode, cause=cause, digest=self.generation.digest)
        self._cold_deaths = self._cold_deaths + 1 if worker.state == "starting" else 0
        if not self._ever_warm and self._cold_deaths >= _COLD_DEATHS:
            self.failure = self.failure or _CRASHED
        self._deaths = [death for death in self._deaths if death > now - _MINUTE] + [now]
        if len(self._deaths) > 1:
            self._next_start = now + min(_MOST_BACKOFF, _FIRST_BACKOFF * 2 ** (len(self._deaths) - 2))

    def _overdue(self, worker: Worker, counters: SharedCounters, now: float) -> str | None:
        """Whether a worker has been starting for too long, or given no sign of life."""
        if worker.state == "starting":
            return "never_warm" if now - worker.started > self._settings.start_seconds else None
        beat = heartbeat(counters, worker.row)
        return "stuck" if beat and now - beat > self._settings.stuck_seconds else None


def _cause(exitcode: int | None) -> str:
    """What ended a process, of its exit code: a signal's name, or the code.

    >>> _cause(-9), _cause(3)
    ('SIGKILL', 'exit 3')
    """
    names = {-number.value: number.name for number in signal.Signals}
    return f"exit {exitcode}" if exitcode is None else names.get(exitcode, f"exit {exitcode}")
