from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import onnx
import pytest

from rec.spec import Serve
from serving.bundle import load
from serving.online.rank import RankService
from serving.scorer import Scorer
from serving.server.app import create_app
from serving.server.metrics import Metrics
from tests.serving.conftest import IDS, items, signed

LIMITS = Serve(max_body=10_000, body_seconds=0.2, in_flight=1)
BODY = json.dumps({**IDS, "candidates": items(3, 4)}).encode()
KIND = (b"content-type", b"application/json")


def app_of(service, *, ready=lambda: True):
    """The app of a rank service, behind narrow limits."""
    metrics = Metrics(None, model="m", digest="d")
    return create_app(service, metrics, LIMITS, new_id=lambda: "generated", ready=ready)


@pytest.fixture
def app(service):
    """The app of the tiny shop."""
    return app_of(service)


async def call(app, method, path, parts=(), headers=(KIND,)) -> Any:
    """Status, headers and body of an answer, or None; a float among the parts of the body is a pause in seconds."""
    waiting, sent = list(parts), []

    async def receive():
        if waiting and isinstance(waiting[0], float):
            await asyncio.sleep(waiting.pop(0))
        if not waiting:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": list(headers)}, receive, send)
    if not sent:
        return None
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def ask(app, method, path, *parts, headers=(KIND,)):
    """One request on a loop of its own."""
    return asyncio.run(call(app, method, path, parts, headers))


def test_a_request_is_ranked(app, service):
    """The body is what RankService answers, in however many pieces the request came."""
    status, headers, body = ask(app, "POST", "/v1/rank", BODY[:10], b"", BODY[10:])
    assert (status, headers[b"content-type"]) == (200, b"application/json")
    assert int(headers[b"content-length"]) == len(body)
    assert json.loads(body)["candidates"] == json.loads(service.rank(BODY, 0).body)["candidates"]


@pytest.mark.parametrize("path", ["/", "/v1/rank/", "/admin"])
def test_other_pages_are_problems(app, path):
    """In RFC 9457."""
    status, headers, body = ask(app, "GET", path, b"")
    assert (status, json.loads(body)["title"]) == (404, "No such page")
    assert headers[b"content-type"] == b"application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "allow"), [("GET", "/v1/rank", {"POST"}), ("POST", "/livez", {"GET", "HEAD"})]
)
def test_other_methods_are_problems(app, method, path, allow):
    """With those that are allowed."""
    status, headers, body = ask(app, method, path, b"")
    assert (status, json.loads(body)["title"]) == (405, "Method not allowed")
    assert set(headers[b"allow"].decode().split(", ")) == allow


def test_another_method_of_the_ranking_page_is_counted(app):
    """As every request to it is, and only of it."""
    ask(app, "GET", "/v1/rank", b"")
    ask(app, "POST", "/livez", b"")
    assert b'multigate_rank_requests_total{code="405"} 1.0' in ask(app, "GET", "/metrics")[2]


@pytest.mark.parametrize(
    ("headers", "title"),
    [
        ([(b"content-type", b"text/plain")], "Body must be application/json"),
        ([KIND, (b"content-encoding", b"gzip")], "Body must not be compressed"),
    ],
)
def test_only_plain_json_is_taken(app, headers, title):
    """Another type or a compressed body is 415."""
    status, _, body = ask(app, "POST", "/v1/rank", BODY, headers=headers)
    assert (status, json.loads(body)["title"]) == (415, title)


def test_a_type_may_name_its_charset(app):
    """That is ordinary JSON."""
    assert ask(app, "POST", "/v1/rank", BODY, headers=[(KIND[0], b"Application/JSON; charset=utf-8")])[0] == 200


def test_a_request_without_a_type_is_refused(app):
    """A web page may send one across origins without asking first."""
    assert ask(app, "POST", "/v1/rank", BODY, headers=[])[0] == 415


def test_a_body_that_says_it_is_too_large_is_not_received(app):
    """The length in the header is enough to refuse it."""
    status, headers, body = ask(app, "POST", "/v1/rank", 60.0, b"x", headers=[KIND, (b"content-length", b"10001")])
    assert (status, headers[b"connection"]) == (413, b"close")
    assert json.loads(body)["title"] == "Body is larger than 10000 bytes"


def test_a_body_that_grows_too_large_is_cut(app):
    """Whatever its header said, and before the rest has come."""
    assert ask(app, "POST", "/v1/rank", *[b" " * 4000] * 3, 60.0, b"x")[0] == 413


def test_a_slow_body_is_cut_and_holds_nobody_up(app):
    """A client that sends a byte now and then gets 408; a request beside it is answered at once."""

    async def both():
        slow = asyncio.create_task(call(app, "POST", "/v1/rank", [b"{", 0.15] * 20 + [b"}"]))
        await asyncio.sleep(0.05)
        quick = await call(app, "POST", "/v1/rank", [BODY])
        return quick, slow.done(), await slow

    quick, was_done, slow = asyncio.run(both())
    assert (quick[0], was_done, slow[0]) == (200, False, 408)
    assert json.loads(slow[2])["title"] == "Body was not received in 0.2 s"


def test_too_many_requests_at_once_are_told_to_come_again(app):
    """One is ranked, the others get 503 with Retry-After and cost nothing."""

    async def several():
        return await asyncio.gather(*(call(app, "POST", "/v1/rank", [BODY]) for _ in range(4)))

    answers = asyncio.run(several())
    assert sorted(answer[0] for answer in answers) == [200, 503, 503, 503]
    refused = next(answer for answer in answers if answer[0] == 503)
    assert refused[1][b"retry-after"] == b"1"
    assert b'multigate_requests_shed_total{reason="queue"} 3.0' in ask(app, "GET", "/metrics")[2]


def test_too_many_bodies_at_once_are_refused(app):
    """Slow senders are bounded too, though there may be more of them than requests being ranked."""

    async def several():
        return await asyncio.gather(*(call(app, "POST", "/v1/rank", [1.0, b"{}"]) for _ in range(6)))

    assert sorted(answer[0] for answer in asyncio.run(several())) == [408, 408, 408, 408, 503, 503]


def test_a_client_that_hangs_up_is_not_answered(app):
    """Nor counted."""
    assert ask(app, "POST", "/v1/rank") is None
    assert b'multigate_rank_requests_total{code="200"} 0.0' in ask(app, "GET", "/metrics")[2]


def test_a_mistake_in_a_request_is_told(app):
    """With the status that RankService gives it."""
    status, _, body = ask(app, "POST", "/v1/rank", b'{"candidates": 3}')
    assert (status, json.loads(body)["errors"][0]["pointer"]) == (422, "/candidates")
    assert ask(app, "POST", "/v1/rank", b"{")[0] == 400


def test_a_mistake_of_ours_is_500_and_shows_nothing(spoilt, tmp_path, caplog):
    """A model that gives NaN: the client learns an id, the log learns the rest, the metrics count it."""
    model = onnx.load(str(spoilt / "model.onnx"))
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
    onnx.save(model, str(spoilt / "model.onnx"))
    (spoilt / "model.onnx.data").unlink(missing_ok=True)
    opened = load(signed(spoilt))
    service = RankService(opened, Scorer(opened, threads=1), new_id=lambda: "generated")
    app = app_of(service)
    status, _, body = ask(app, "POST", "/v1/rank", BODY)
    assert (status, json.loads(body)["detail"]) == (500, "Internal error")
    assert json.loads(body)["instance"] == "urn:request:generated"
    assert "request generated failed" in caplog.text
    assert b'multigate_nonfinite_total{action="refuse"} 1.0' in ask(app, "GET", "/metrics")[2]


def test_health_is_plain(service):
    """Live as long as it answers, ready unless it is about to stop."""
    ready = [True]
    app = app_of(service, ready=lambda: ready[0])
    assert ask(app, "GET", "/livez")[0] == ask(app, "GET", "/readyz")[0] == ask(app, "HEAD", "/readyz")[0] == 200
    ready[0] = False
    assert ask(app, "GET", "/livez")[0] == 200
    status, headers, body = ask(app, "GET", "/readyz")
    assert (status, headers[b"retry-after"], json.loads(body)["title"]) == (503, b"1", "Not ready")


def test_a_websocket_is_closed(app):
    """Only HTTP is served."""
    messages = []

    async def send(message):
        messages.append(message)

    asyncio.run(app({"type": "websocket", "path": "/v1/rank", "headers": []}, None, send))
    assert [message["type"] for message in messages] == ["websocket.close"]
