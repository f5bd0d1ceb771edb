from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from functools import partial

import pytest

from rec.errors import BundleError
from serving.server.counters import SharedCounters
from serving.server.workers import SharedState, bind, supervise

SPAWN = multiprocessing.get_context("spawn")


def sleeper(shared, path):
    """A worker that is warm at once, notes that it lives, and sleeps."""
    shared.warm.release()
    with path.open("a") as file:
        file.write("x")
    signal.pause()


def leaver(shared, _path):
    """A worker that is warm and leaves."""
    shared.warm.release()


def broken(_shared, _path):
    """A worker that cannot start."""
    raise SystemExit(3)


@pytest.fixture
def shared():
    return SharedState(SharedCounters(1), SPAWN.Semaphore(0), SPAWN.Event())


def supervise_in_process(target, shared, path, announced):
    """Supervise two workers of a kind until told to stop."""

    def start(_row):
        process = SPAWN.Process(target=target, args=(shared, path))
        process.start()
        return process

    supervise(start, workers=2, shared=shared, drain_seconds=0.2, announce=partial(announced.append, "ready"))


def test_a_stop_is_announced_before_it_comes(shared, tmp_path):
    """SIGTERM: draining first, then the workers end, and the handlers of before are back."""
    announced, before = [], signal.getsignal(signal.SIGTERM)
    threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    supervise_in_process(sleeper, shared, tmp_path / "alive", announced)
    assert announced == ["ready"]
    assert (tmp_path / "alive").read_text() == "xx"
    assert shared.draining.is_set()
    assert signal.getsignal(signal.SIGTERM) is before
    assert not multiprocessing.active_children()


def test_workers_that_cannot_start_end_it(shared, tmp_path):
    """With an error, and without saying ready."""
    announced = []
    with pytest.raises(BundleError, match="the workers did not start"):
        supervise_in_process(broken, shared, tmp_path / "x", announced)
    assert announced == []


def test_workers_that_do_not_stay_end_it(shared, tmp_path):
    """No loop of deaths and births."""
    with pytest.raises(BundleError, match="the workers did not"):
        supervise_in_process(leaver, shared, tmp_path / "x", [])


def test_an_address_is_held_and_not_shared():
    """Taken by one, refused to the next; connections are refused until somebody listens."""
    with bind("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        held.listen()
        with pytest.raises(OSError, match=f"127.0.0.1:{port}: cannot listen here: Address already in use"):
            bind("127.0.0.1", port)
