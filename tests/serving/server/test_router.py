"""A worker of stable beside a canary and a shadow that misbehave in every way: its answers are its own."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from serving.online.rank import RankService
from serving.server.counters import SharedCounters
from serving.server.metric_series import COLUMNS
from serving.server.metrics import Metrics
from serving.server.router import Router
from serving.server.routes import Routes
from serving.server.settings import ServerSettings
from serving.server.shadow import ShadowEndpoint, outputs_of
from tests.serving.conftest import NOW
from tests.serving.server.conftest import BODY, asked, rank, running

CLOSE = b"connection: close\r\n\r\n"
ANSWERS = {
    "down": b"",
    "garbage": b"no HTTP\r\n\r\n",
    "503": b"HTTP/1.1 503 x\r\ncontent-length: 0\r\nretry-after: 1\r\n" + CLOSE,
    "500": b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n" + CLOSE,
    "half": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
    "200": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n" + CLOSE + b"{}",
    "422": b"HTTP/1.1 422 x\r\ncontent-length: 2\r\ncontent-type: application/problem+json\r\n" + CLOSE + b"{}",
}


@contextmanager
def label(folder, name, answer):
    """Whoever listens for a label, reads a request, and sends `answer`; None: says nothing."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / name))
        listening.listen()
        stopped = threading.Event()

        def accept():
            while True:
                connection, _ = listening.accept()
                with connection:
                    if stopped.is_set():
                        return
                    connection.recv(1 << 16)
                    if answer is None:
                        stopped.wait(5)
                    else:
                        connection.sendall(answer)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(folder / name))
            thread.join()


@pytest.fixture
def sockets(tmp_path_factory):
    """A folder with a path that is short enough for sockets."""
    return tmp_path_factory.mktemp("s")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("down", "down"),
        ("garbage", "down"),
        ("half", "down"),
        ("503", "refused"),
        ("500", "refused"),
        (None, "timeout"),
    ],
)
def test_what_the_canary_does_not_answer_stable_answers(service, sockets, answer, reason):
    """With its own scores, and it is counted; a canary that does not answer is left alone for a while."""
    with (
        label(sockets, "canary", None if answer is None else ANSWERS[answer]),
        running(service, sockets=sockets, canary_seconds=0.3) as shop,
    ):
        for _ in range(2):
            status, _, body = asked(shop.port, rank())
            assert status == 200
            assert json.loads(body)["candidates"] == json.loads(service.rank(BODY, NOW).body)["candidates"]
        second = reason if reason == "refused" else "down"
        shop.until(f'canary_fallbacks_total{{reason="{second}"}}', 2 if second == reason else 1)
        assert shop.series(f'canary_fallbacks_total{{reason="{reason}"}}') >= 1
        named = rank(json.dumps({**json.loads(BODY), "label": "canary"}).encode())
        assert asked(shop.port, named)[0] in (404, 500, 503)
        assert asked(shop.port, rank(json.dumps({**json.loads(BODY), "label": "stable"}).encode()))[0] == 200


@pytest.mark.parametrize("answer", ["200", "422"])
def test_what_the_canary_answers_is_passed_on(service, sockets, answer):
    """Its refusals too: they are what its users get; who sends no user is stable's."""
    with label(sockets, "canary", ANSWERS[answer]), running(service, sockets=sockets) as shop:
        status, headers, body = asked(shop.port, rank())
        assert (status, body) == (int(answer), b"{}")
        assert headers["content-type"].startswith("application/")
        assert asked(shop.port, rank(b'{"candidates": {"item_id": [3]}}'))[2] != b"{}"
        shop.until('rank_requests_total{label="stable",code="200"}', 1)
        assert shop.series('canary_fallbacks_total{reason="refused"}') == 0


def test_a_shadow_that_is_stuck_delays_nobody(service, sockets):
    """What it has no room for is dropped and counted, and no answer is another for it."""
    named = json.dumps({**json.loads(BODY), "label": "stable"}).encode()
    with label(sockets, "shadow", None), running(service, sockets=sockets, shadow_queue=2) as shop:
        began = time.monotonic()
        bodies = [json.loads(asked(shop.port, rank(named))[2]) for _ in range(10)]
        assert time.monotonic() - began < 4
        shop.until('shadow_requests_total{outcome="dropped"}', 8)
    expected = json.loads(service.rank(BODY, NOW).body)
    assert all(body["candidates"] == expected["candidates"] for body in bodies)
    assert all(set(body) == set(expected) for body in bodies)


@pytest.mark.parametrize("columnar", [False, True])
def test_a_shadow_compares_candidate_by_candidate(service, opened, scorer, columnar):
    """With the same bundle nothing differs, whatever the order and the top k; with other scores, what was added."""
    ids = list(range(1, 40))
    candidates = {"item_id": ids} if columnar else [{"item_id": item} for item in ids]
    body = json.dumps({"context": {"user_id": 7}, "candidates": candidates, "options": {"top_k": 9}}).encode()
    endpoint = ShadowEndpoint(service, Metrics(SharedCounters(COLUMNS), 0, {}, Routes()))
    served = json.loads(service.rank(body, NOW).body)
    same = endpoint.differences(body, json.dumps(served).encode(), NOW)
    assert {endpoint.outputs[index]: (len(d), d.max()) for index, d in same.items()} == dict.fromkeys(
        outputs_of(service), (9, 0.0)
    )
    rows = served["candidates"]
    if columnar:
        rows["tasks"]["click"] = [value + 0.25 for value in rows["tasks"]["click"]]
    else:
        for row in rows:
            row["tasks"]["click"] += 0.25
    other = endpoint.differences(body, json.dumps(served).encode(), NOW)
    assert np.allclose(other[endpoint.outputs.index("click")], 0.25)
    assert other[endpoint.outputs.index("buy")].max() == 0.0


def test_differences_are_a_histogram_by_output(service):
    """Named by the outputs of the shadow's bundle, and begun anew for another."""
    counters = SharedCounters(COLUMNS)
    metrics = Metrics(counters, 240, {}, Routes(outputs=("fused score", "click")))
    metrics.shadow_differed(1, np.array([0.0, 0.005, 500.0]))
    metrics.shadow_differed(99, np.array([1.0]))
    lines = metrics.exposition().decode().splitlines()
    mine = [line for line in lines if line.startswith("multigate_shadow_score_delta") and 'output="click"' in line]
    assert 'multigate_shadow_score_delta_bucket{output="click",le="0.01"} 2.0' in mine
    assert 'multigate_shadow_score_delta_count{output="click"} 3.0' in mine
    assert 'multigate_shadow_score_delta_sum{output="click"} 500.005' in mine
    metrics.forget_differences()
    assert 'multigate_shadow_score_delta_count{output="click"} 0.0' in metrics.exposition().decode()


def test_with_stable_alone_no_request_is_looked_at(service):
    """Not even its user is read."""
    metrics = Metrics(SharedCounters(COLUMNS), 0, {}, Routes())
    router = Router(Path("/none"), service.bundle.spec, ServerSettings(), metrics)
    router._read = None  # type: ignore[assignment]  reading would fail
    assert router.asker(BODY) is None
    assert isinstance(service, RankService)


def test_a_full_queue_keeps_no_user_of_the_canary_out(service, sockets):
    """The canary has a queue of its own, so with one nobody is refused before it is known who asks."""
    crowd = 10**6
    with running(service, sockets=sockets) as shop:
        assert not shop.server.endpoint.full(BODY, before=crowd)
    with running(service) as shop:
        assert shop.server.endpoint.full(BODY, before=crowd)
