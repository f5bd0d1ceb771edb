from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from rec.errors import BundleError
from serving.server.control import Control, send
from serving.server.counters import SharedCounters
from serving.server.generations import Generation
from serving.server.listener import bind
from serving.server.metric_series import COLUMNS
from serving.server.metrics import Metrics
from serving.server.settings import ServerSettings
from serving.server.supervisor import Supervisor
from tests.serving.server.conftest import PATIENCE

SPAWN = multiprocessing.get_context("spawn")
FIRST, SECOND = (Generation(name, name * 8, Path(name)) for name in ("a", "b"))


def good(pipe, counters, row, generation, *, beats=True):
    """A worker that is warm at once, does as it is told, and notes that it served."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    orders, came = [], threading.Event()
    control = Control(pipe)
    control.obeyed_by(lambda order: (orders.append(order), came.set()))
    metrics = Metrics(counters, row, {})
    metrics.beat(time.monotonic())
    send(pipe, {"warm": 0.0})
    while not {"stop", "finish"} & {*orders}:
        came.wait(0.1)
        if beats:
            metrics.beat(time.monotonic())


def mute(pipe, counters, row, generation):
    """A worker that gives one sign of life, and no more."""
    good(pipe, counters, row, generation, beats=False)


def broken(pipe, counters, row, generation):
    """A worker that crashes as it loads the second generation, or any."""
    raise SystemExit(3)


def refusing(pipe, counters, row, generation):
    """A worker that says why it cannot load a bundle."""
    send(pipe, {"failed": "golden scores differ"})


def good_first(pipe, counters, row, generation):
    """Good with the first generation; the second it refuses."""
    (good if generation == FIRST else refusing)(pipe, counters, row, generation)


class Watched:
    """A supervisor of workers of one kind, which a thread looks at while it runs."""

    def __init__(self, target, **settings):
        self.log = []
        self.counters = SharedCounters(COLUMNS)
        self.address = bind("127.0.0.1", 0)

        def spawn(generation, row):
            ours, theirs = SPAWN.Pipe()
            process = SPAWN.Process(target=target, args=(theirs, self.counters, row, generation))
            process.start()
            theirs.close()
            return process, ours

        def log(event, **fields):
            self.log.append({"event": event, **fields})

        settings = ServerSettings(**{"drain_seconds": 0.1, "grace_seconds": 5.0, **settings})
        self.supervisor = Supervisor(spawn, self.address, settings, self.counters, workers=2, log=log)
        self.seen = None

    def run(self, look=lambda _: None):
        """Run until `look` has seen enough; then stop, as SIGTERM does."""

        def watch():
            try:
                self.seen = look(self)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        def announce(_worst):
            threading.Thread(target=watch).start()

        with self.address:
            self.supervisor.run(FIRST, announce)
        return self.seen

    def until(self, holds):
        """Wait for something to hold."""
        late = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < late, (self.log, self.supervisor.status())
            time.sleep(0.02)

    def events(self, name):
        """The fields of all events of a name."""
        return [event for event in self.log if event["event"] == name]

    def workers(self):
        """How many workers are in which state."""
        return self.supervisor.status()["stable"]["workers"]


def whole(watched):
    """Wait until two serve and one is spare."""
    watched.until(lambda: watched.workers() == {"starting": 0, "warm": 1, "serving": 2})


def test_a_stop_is_announced_before_it_comes():
    """SIGTERM: draining first, then the workers end, and the handlers of before are back."""
    before = signal.getsignal(signal.SIGTERM)
    watched = Watched(good)
    watched.run(whole)
    assert watched.supervisor.draining
    assert signal.getsignal(signal.SIGTERM) is before
    assert not multiprocessing.active_children()
    assert not watched.events("worker_died")


def test_a_worker_that_dies_is_replaced_by_the_spare_one():
    """At once, whichever it is, and however often; each death is logged and counted, and none ends the service."""

    def look(watched):
        for deaths in range(1, 6):
            whole(watched)
            fleet = watched.supervisor.fleets.serving["stable"]
            victim = next(worker for worker in fleet.workers if worker.state == "serving")
            os.kill(victim.process.pid, signal.SIGKILL)
            watched.until(lambda deaths=deaths: len(watched.events("worker_died")) == deaths)
            watched.until(lambda: watched.workers()["serving"] == 2)

    watched = Watched(good)
    watched.run(look)
    assert {event["exit"] for event in watched.events("worker_died")} == {-9}
    assert b'multigate_worker_deaths_total{reason="died"} 5.0' in watched.supervisor.metrics.exposition()


def test_a_worker_that_is_stuck_is_killed():
    """No sign of life for a while: killed, counted, replaced."""

    def look(watched):
        watched.until(lambda: len(watched.events("worker_killed")) >= 1)

    watched = Watched(mute, stuck_seconds=1.0)
    watched.run(look)
    assert {event["reason"] for event in watched.events("worker_killed")} == {"stuck"}


def test_workers_that_cannot_start_end_it():
    """With an error, and without saying ready."""
    with pytest.raises(BundleError, match="the workers did not start"):
        Watched(broken).run()
    with pytest.raises(BundleError, match="golden scores differ"):
        Watched(refusing).run()


def test_another_generation_takes_over():
    """The old one leaves when the new one serves; a rollback is the same the other way."""

    def look(watched):
        supervisor = watched.supervisor
        assert supervisor.swap(SECOND).result(PATIENCE) == SECOND.digest
        assert supervisor.previous == FIRST
        assert supervisor.swap(FIRST).result(PATIENCE) == FIRST.digest
        again = [supervisor.swap(FIRST) for _ in range(2)]
        assert {swap.result(PATIENCE) for swap in again} == {FIRST.digest}
        assert supervisor.previous == SECOND  # what a rollback serves is not lost by asking twice
        watched.until(lambda: not supervisor.fleets.leaving)
        return supervisor.status()["stable"]["digest"], dict(supervisor.fleets.models)

    watched = Watched(good)
    assert watched.run(look) == (FIRST.digest, {FIRST.digest: FIRST.name})
    assert not watched.events("worker_died")


def test_a_generation_that_fails_leaves_the_other_alone():
    """Its reason is told to who asked for it."""

    def look(watched):
        whole(watched)
        pids = {worker.process.pid for worker in watched.supervisor.fleets.serving["stable"].workers}
        swap = watched.supervisor.swap(SECOND)
        assert watched.supervisor.needed == {FIRST.digest, SECOND.digest}
        error = swap.exception(PATIENCE)
        assert watched.supervisor.needed == {FIRST.digest}
        assert watched.supervisor.fleets.models == {FIRST.digest: FIRST.name}
        return str(error), pids == {
            worker.process.pid for worker in watched.supervisor.fleets.serving["stable"].workers
        }

    watched = Watched(good_first)
    assert watched.run(look) == ("golden scores differ", True)
    assert b'multigate_swaps_total{outcome="failed"} 1.0' in watched.supervisor.metrics.exposition()


def orphan(place):
    """A supervisor whose worker tells its pid, and which is then killed."""
    watched = Watched(good)

    def look(watched):
        whole(watched)
        place.write_text(
            json.dumps([worker.process.pid for worker in watched.supervisor.fleets.serving["stable"].workers])
        )
        os.kill(os.getpid(), signal.SIGKILL)

    watched.run(look)


def test_workers_do_not_outlive_their_supervisor(tmp_path):
    """Killed as it may be: the end of the pipe is an order to leave."""
    process = SPAWN.Process(target=partial(orphan, tmp_path / "pids"))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    pids = json.loads((tmp_path / "pids").read_text())
    late = time.monotonic() + PATIENCE
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < late
        time.sleep(0.05)


def _lives(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
