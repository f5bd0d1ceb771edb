"""Stops, swaps and deaths of a whole server under load: no request is lost that need not be."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time
import urllib.error
from pathlib import Path

import pytest

from tests.serving.server.conftest import BODY
from tests.serving.server.processes import control, free_port, get, running, workers_of


class Load:
    """Clients that ask without pause, each answer counted; those on kept connections go where they are sent away."""

    def __init__(self, port, *, keep):
        self.port, self.keep, self.statuses, self.failures = port, keep, [], []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._ask) for _ in range(3)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def _ask(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self.stopped.is_set():
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError:
                return  # nobody listens any more
            try:
                connection.request("POST", "/v1/rank", BODY, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
                if not self.keep:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                connection.close()
        connection.close()


@pytest.mark.parametrize("keep", [True, False])
def test_a_stop_loses_no_request(bundle, keep):
    """Under load, on kept connections and on new ones: every request that was sent is answered, the last ones too."""
    with running(bundle, 2) as (process, port), Load(port, keep=keep) as load:
        time.sleep(0.5)
        process.terminate()
        assert process.wait(30) == 0
    assert load.failures == []
    assert set(load.statuses) == {200}


def test_another_bundle_is_served_without_a_lost_request(bundle, opened, tmp_path):
    """Under load: promoted, rolled back; what happens to the file at the old path changes nothing."""
    first = shutil.copytree(bundle, tmp_path / "first")
    second = shutil.copytree(bundle, tmp_path / "second")
    (second / "manifest.json").write_text((second / "manifest.json").read_text() + " ")
    admin_port = free_port()
    with running(first, 1, admin_port) as (_, port):
        shutil.rmtree(first)
        with Load(port, keep=True) as kept, Load(port, keep=False) as new:
            promoted = control(admin_port, "/v1/promote", json.dumps({"bundle": str(second)}).encode())
            served = json.loads(get(port, "/v1/rank", BODY)[1])["model"]["digest"]
            rolled_back = control(admin_port, "/v1/rollback", b"{}")
        status = control(admin_port, "/v1/status", None)
        assert get(admin_port, "/readyz") == (200, "ok\n")
        assert 'multigate_swaps_total{outcome="done"} 2.0' in get(admin_port, "/metrics")[1]
        assert get(admin_port, "/v1/status")[0] == 401
        for page, wish in [("promote", {"bundle": str(second), "label": "canary"}), ("rollback", {"clear": True})]:
            with pytest.raises(urllib.error.HTTPError) as refused:
                control(admin_port, f"/v1/{page}", json.dumps(wish).encode())
            with refused.value as answer:
                assert "labels" in json.loads(answer.read())["detail"]
    assert kept.failures + new.failures == []
    assert set(kept.statuses + new.statuses) == {200}
    assert promoted["digest"] == served != opened.digest
    assert rolled_back["digest"] == status["stable"]["digest"] == opened.digest


def test_one_worker_that_dies_is_replaced_by_a_spare_one(bundle):
    """Only what it was answering is lost; the port answers again at once."""
    admin_port = free_port()
    with running(bundle, 1, admin_port) as (process, port):
        late = time.monotonic() + 60
        while control(admin_port, "/v1/status", None)["stable"]["workers"]["warm"] < 1:
            assert time.monotonic() < late
            time.sleep(0.05)
        os.kill(min(workers_of(process.pid)), signal.SIGKILL)
        began = time.monotonic()
        assert get(port, "/v1/rank", BODY)[0] == 200
        assert time.monotonic() - began < 10


def test_a_supervisor_that_is_killed_leaves_nothing(bundle):
    """No worker outlives it, and the port is free for the next."""
    with running(bundle, 2) as (process, port):
        workers = workers_of(process.pid)
        process.kill()
        process.wait()
        late = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < late
            time.sleep(0.05)
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))
