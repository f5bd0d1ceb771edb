"""`multigate serve --models` in processes of its own: labels given, taken away, killed, had again after a restart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
import urllib.error
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving.server.sticky_share import position
from tests.serving.conftest import IDS, items, shifted
from tests.serving.server.conftest import BODY, PATIENCE
from tests.serving.server.processes import control, free_port, get, running, workers_of


@pytest.fixture(scope="module")
def versions(bundle, tmp_path_factory):
    """Versions a and b, whose scores differ, and bad, whose golden scores are not its own."""
    folder = tmp_path_factory.mktemp("versions")
    shutil.copytree(bundle, folder / "a")
    shifted(bundle, folder / "b", 0.1)
    shifted(bundle, folder / "bad", 0.2)
    shutil.copy(bundle / "golden" / "scores.arrow", folder / "bad" / "golden" / "scores.arrow")
    manifest = json.loads((folder / "bad" / "manifest.json").read_text())
    manifest["files"]["golden/scores.arrow"] = json.loads((bundle / "manifest.json").read_text())["files"][
        "golden/scores.arrow"
    ]
    (folder / "bad" / "manifest.json").write_text(json.dumps(manifest))
    (folder / "labels.json").write_text('{"salt": "pepper", "stable": {"version": "a"}}')
    return folder


@pytest.fixture(scope="module")
def servers(versions, tmp_path_factory):
    """One server after the other of the same folder of models."""
    models = Path(shutil.copytree(versions, tmp_path_factory.mktemp("served") / "models"))
    with ExitStack() as stack:
        yield Servers(models, stack)


@pytest.fixture
def shop(servers):
    """The server that runs, with `a` as stable; other labels are taken away again."""
    shop = servers.shop()
    shop.until(lambda: len(workers_of(shop.process.pid)) == 1)
    yield shop
    for label in ("canary", "shadow"):
        servers.shop().change("rollback", label=label, clear=True)


REFUSED = [
    ("promote", {"version": "bda"}, "no version 'bda'; did you mean 'bad'? (there is: a, b, bad)"),
    ("promote", {"version": "../a"}, "expected the name of a version, got '../a'"),
    ("promote", {}, 'expected {"version": name}'),
    ("promote", {"version": "b", "label": "canry"}, "got 'canry'; did you mean 'canary'?"),
    ("promote", {"version": "b", "share": 0.5}, "share: only a canary has a share of users, not stable"),
    ("promote", {"version": "b", "label": "canary", "share": 5}, "share of users from 0% to 100% for a first canary"),
    ("rollback", {"label": "shadow", "clear": True}, "shadow: no version has this label"),
    ("rollback", {}, "stable: no change of this label to undo"),
]


class Shop:
    """A server that runs, and what a test does to it."""

    def __init__(self, models, process, port, admin_port):
        self.models, self.process, self.port, self.admin_port = models, process, port, admin_port

    def change(self, page, **wish):
        """The answer of the admin page, or its reason against it."""
        try:
            return control(self.admin_port, f"/v1/{page}", json.dumps(wish).encode())
        except urllib.error.HTTPError as error:
            with error:
                return json.loads(error.read())["detail"]

    def status(self, label):
        """What has a label."""
        return control(self.admin_port, "/v1/status", None)[label]

    def ask(self, user, **more):
        """Status and answer to a request of a user."""
        body = {**IDS, "context": {"user_id": user}, "candidates": items(3, 4), **more}
        status, answer = get(self.port, "/v1/rank", json.dumps(body).encode())
        return status, json.loads(answer)

    def labels(self, users):
        """The label that answers each user."""
        answers = {user: self.ask(user) for user in users}
        assert {status for status, _ in answers.values()} == {200}
        return {user: answer["model"]["label"] for user, (_, answer) in answers.items()}

    def until(self, holds):
        """Wait for something to hold."""
        late = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < late, control(self.admin_port, "/v1/status", None)
            time.sleep(0.02)

    def series(self, name):
        """A series of the admin page's metrics."""
        lines = get(self.admin_port, "/metrics")[1].splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"multigate_{name} "))


class Servers:
    """Starts a server where none runs."""

    def __init__(self, models, stack):
        self._models, self._stack, self._shop = models, stack, None

    def shop(self):
        """The server that runs."""
        if self._shop is None or self._shop.process.poll() is not None:
            admin_port = free_port()
            server = running(self._models, 1, admin_port, models=True, spare_workers=0)
            self._shop = Shop(self._models, *self._stack.enter_context(server), admin_port)
        return self._shop


def test_a_canary_has_the_users_of_its_share_and_a_rollback_gives_them_back(shop):
    """The same ones whoever asks, more as it grows; the answer says what made it, and metrics count it there."""
    users = range(40)
    assert "for a first canary" in shop.change("promote", version="b", label="canary")
    promoted = shop.change("promote", version="b", label="canary", share=0.2)
    assert (promoted["version"], promoted["share"]) == ("b", 0.2)
    for page, wish, message in REFUSED:
        assert message in shop.change(page, **wish)
    for share in (0.2, 0.5):
        shop.change("promote", version="b", label="canary", share=share)
        shop.until(lambda: shop.ask(7, label="canary")[0] == 200)
        late = time.monotonic() + PATIENCE
        expected = {user: "canary" if position("pepper", str(user)) < share else "stable" for user in users}
        while (labels := shop.labels(users)) != expected:  # a worker hears of another share within a moment
            assert time.monotonic() < late, (labels, expected)
    user = next(user for user, label in labels.items() if label == "canary")
    _, answer = shop.ask(user)
    assert answer["model"] == {"name": "tiny-shop", "version": "b", "label": "canary", "digest": promoted["digest"]}
    stable = shop.ask(user, label="stable")[1]
    assert stable["model"]["version"] == "a"
    assert stable["candidates"] != answer["candidates"]
    assert shop.ask(user, label="shadow")[0] == 422
    assert shop.series('rank_requests_total{label="canary",code="200"}') >= 20
    assert shop.change("rollback", label="canary")["share"] == 0.2
    assert shop.change("rollback", label="canary") == {"label": "canary"}
    shop.until(lambda: shop.ask(user)[1]["model"]["label"] == "stable")
    assert shop.ask(user, label="canary")[0] == 404


def test_a_canary_that_is_killed_takes_nothing_with_it(shop):
    """Under load every request is answered, by stable where the canary cannot; it comes back, its deaths counted."""
    stable = set(workers_of(shop.process.pid))
    shop.change("promote", version="b", label="canary", share=1.0)
    statuses, stopped = [], threading.Event()
    ranked = shop.series('rank_requests_total{label="canary",code="200"}')

    def load():
        while not stopped.is_set():
            statuses.append(get(shop.port, "/v1/rank", BODY)[0])

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        shop.until(lambda: shop.series('rank_requests_total{label="canary",code="200"}') > ranked + 5)
        for pid in set(workers_of(shop.process.pid)) - stable:
            os.kill(pid, signal.SIGSEGV)
        shop.until(lambda: shop.status("canary")["deaths"] == 1)
        shop.until(lambda: shop.status("canary")["healthy"])
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}
    assert stable <= set(workers_of(shop.process.pid))
    assert shop.series('worker_deaths_total{label="canary",reason="died"}') == 1
    assert shop.series('worker_deaths_total{label="stable",reason="died"}') == 0
    assert shop.status("stable")["deaths"] == 0


def test_a_version_that_cannot_be_served_is_bad_and_changes_nothing(shop):
    """Nor does a shadow change an answer: with the same bytes but for the times that were measured."""
    before = shop.ask(7, request_id="r")[1]
    for label, share in (("stable", None), ("canary", 0.5), ("shadow", None)):
        assert "golden scores of" in shop.change("promote", version="bad", label=label, share=share)
        assert "golden scores of" in shop.status(label)["bad"]["reason"]
    assert json.loads((shop.models / "labels.json").read_text()).keys() == {"format", "salt", "stable", "before"}
    shop.change("promote", version="b", label="shadow")
    shop.until(lambda: shop.ask(7)[0] == 200 and shop.series('shadow_requests_total{outcome="compared"}') > 0)
    after = shop.ask(7, request_id="r")[1]
    assert (before.pop("timing_ms").keys(), before) == (after.pop("timing_ms").keys(), after)
    counted, compared = 'shadow_score_delta_count{output="click"}', 'shadow_requests_total{outcome="compared"}'
    shop.until(lambda: shop.series(counted) == 2 * shop.series(compared))
    assert shop.series('shadow_score_delta_sum{output="click"}') > 1e-4 * shop.series(counted)
    assert "cannot be taken away" in shop.change("rollback", label="stable", clear=True)
    file = shop.models / "labels.json"
    written = file.read_bytes()
    file.unlink()
    file.mkdir()
    assert "Is a directory" in shop.change("rollback", label="shadow", clear=True)  # what cannot be written is not done
    assert shop.status("shadow")["version"] == "b"
    file.rmdir()
    file.write_bytes(written)
    assert shop.ask(7)[1]["model"]["version"] == "a"


def test_labels_outlive_the_server_and_two_changes_at_once(shop, servers, versions):
    """Both are done, one after the other; after a kill -9 nothing is left running, and a restart serves the same."""
    wishes = [{"version": "b"}, {"version": "b", "label": "shadow"}, {"version": "a", "label": "shadow"}]
    threads = [threading.Thread(target=shop.change, args=("promote",), kwargs=wish) for wish in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = {label: shop.status(label) for label in ("stable", "shadow")}
    assert status["stable"]["version"] == "b"
    changes = [*status["shadow"]["before"], status["shadow"]["version"]][-3:]
    assert sorted(map(str, changes)) == ["None", "a", "b"]
    shop.change("promote", version="a", label="canary", share=0.5)
    shutil.rmtree(shop.models / "b")  # deleted while it has a label
    assert shop.status("stable")["on_disk"] is False
    workers = workers_of(shop.process.pid)
    assert len(workers) >= 3
    shop.process.kill()
    shop.process.wait()
    late = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < late
        time.sleep(0.05)
    shop = servers.shop()
    shop.until(lambda: all((shop.status(label) or {}).get("healthy") for label in ("stable", "canary", "shadow")))
    again = {label: shop.status(label) for label in ("stable", "shadow")}
    for label in again:
        assert (again[label]["version"], again[label]["digest"]) == (
            status[label]["version"],
            status[label]["digest"],
        )
    assert set(shop.labels(range(20)).values()) == {"stable", "canary"}
    assert shop.change("rollback")["version"] == "a"
    assert shop.ask(next(u for u in range(99) if position("pepper", str(u)) > 0.5))[1]["model"]["version"] == "a"
    shutil.copytree(versions / "b", shop.models / "b")
