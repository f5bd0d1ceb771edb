from __future__ import annotations

import json
import threading
import time

import numpy as np
import onnx
import pytest

from serving.bundle import load
from serving.online.rank import RankService
from serving.scorer import Scorer
from serving.server.admission import Admission
from tests.serving.conftest import signed
from tests.serving.server.conftest import BODY, PATIENCE, Client, asked, head, rank, running


def test_a_request_is_ranked(shop, service):
    """The body is what RankService answers, in however many pieces the request came."""
    with Client(shop.port) as client:
        for piece in (rank()[:30], rank()[30:-10], rank()[-10:]):
            client.send(piece)
            time.sleep(0.01)
        status, headers, body = client.answer()
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["candidates"] == json.loads(service.rank(BODY, 0).body)["candidates"]


@pytest.mark.parametrize("path", ["/", "/v1/rank/", "/admin", "/v1/rank%2f", "/" + "a" * 4000])
def test_other_pages_are_problems(shop, path):
    """In RFC 9457, and counted."""
    before = shop.series('http_requests_total{code="404"}')
    status, headers, body = asked(shop.port, head(path, "GET"))
    assert (status, json.loads(body)["title"]) == (404, "No such page")
    assert headers["content-type"] == "application/problem+json"
    shop.until('http_requests_total{code="404"}', before + 1)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", "/v1/rank", "POST"), ("POST", "/livez", "GET, HEAD"), ("OPTIONS", "/v1/rank", "POST")],
)
def test_other_methods_are_problems(shop, method, path, allow):
    """With those that are allowed; a web page's preflight is not."""
    status, headers, body = asked(shop.port, head(path, method))
    assert (status, json.loads(body)["title"], headers["allow"]) == (405, "Method not allowed", allow)


@pytest.mark.parametrize(
    ("lines", "title"),
    [
        (["content-type: text/plain"], "Body must be application/json"),
        ([], "Body must be application/json"),
        (["content-type: application/json", "content-encoding: gzip"], "Body must not be compressed"),
    ],
)
def test_only_plain_json_is_taken(shop, lines, title):
    """Another type, none, or a compressed body is 415: a web page may send others across origins without asking."""
    sent = "\r\n".join(["POST /v1/rank HTTP/1.1", "host: x", "content-length: 2", *lines, "", "{}"])
    taken = 'rank_request_duration_seconds_sum{code="415"}'
    before = shop.series(taken)
    status, _, body = asked(shop.port, sent.encode())
    assert (status, json.loads(body)["title"]) == (415, title)
    assert shop.series(taken) > before


def test_a_type_may_name_its_charset(shop):
    """That is ordinary JSON."""
    sent = rank().replace(b"application/json", b"Application/JSON; charset=utf-8")
    assert asked(shop.port, sent)[0] == 200


def test_a_mistake_in_a_request_is_told(shop):
    """With the status that RankService gives it."""
    status, _, body = asked(shop.port, rank(b'{"candidates": 3}'))
    assert (status, json.loads(body)["errors"][0]["pointer"]) == (422, "/candidates")
    assert asked(shop.port, rank(b"{"))[0] == 400


def test_health_is_plain(service):
    """Live as long as it answers, ready unless it is about to stop."""
    ready = [True]
    with running(service, lambda: ready[0]) as shop:
        pages = [head("/livez", "GET"), head("/readyz", "GET"), head("/readyz?verbose=1", "HEAD")]
        assert [asked(shop.port, page)[0] for page in pages] == [200, 200, 200]
        ready[0] = False
        assert asked(shop.port, pages[0])[0] == 200
        status, headers, body = asked(shop.port, pages[1])
        assert (status, headers["retry-after"], json.loads(body)["title"]) == (503, "1", "Not ready")


COUNTED = ("http_requests", "rank_requests")


class Slow:
    """A rank service that takes its time."""

    def __init__(self, service, seconds):
        self.service, self.bundle, self.seconds, self.ranked = service, service.bundle, seconds, 0

    def rank(self, body, now, **options):
        """As the service does, later."""
        time.sleep(self.seconds)
        self.ranked += 1
        return self.service.rank(body, now, **options)


def test_who_would_wait_too_long_is_refused_at_once(service):
    """By the measured time: some are ranked, others get 503 with Retry-After, and all are counted."""
    with running(Slow(service, 0.2), queue_seconds=0.25, in_flight=3) as shop:
        clients = [Client(shop.port) for _ in range(12)]
        for client in clients:
            client.send(rank())
        answers = [client.answer() for client in clients]
        for client in clients:
            client.socket.close()
        refused = [headers for status, headers, _ in answers if status == 503]
        assert {status for status, _, _ in answers} == {200, 503}
        assert all(1 <= int(headers["retry-after"]) < 60 for headers in refused)
        shop.until('requests_shed_total{reason="queue"}', len(refused))
        shop.until('rank_requests_total{code="503"}', len(refused))


def test_the_queue_learns_from_who_was_ranked(service, monkeypatch):
    """How long each took since it was admitted, beside the estimate; who was refused says nothing."""
    told, honest = [], Admission.answered
    monkeypatch.setattr(Admission, "answered", lambda queue, **said: (told.append(said), honest(queue, **said)))
    with running(Slow(service, 0.05)) as shop:
        clients = [Client(shop.port) for _ in range(3)]
        for client in clients:
            client.send(rank())
        assert [client.answer()[0] for client in clients] == [200, 200, 200]
        assert asked(shop.port, rank(b"[]"))[0] == 422
        for client in clients:
            client.socket.close()
    assert len(told) == 3
    assert all(said["seconds"] >= 0.05 and said["estimate"] > 0 for said in told)


class SlowLog:
    """An access log that takes its time, after the answer."""

    def finished(self, *_):
        """A line was written."""
        time.sleep(0.1)


def test_what_is_done_between_two_answers_is_waited_for_too(service):
    """Ranking takes a millisecond and what follows a hundred: who would wait for that is refused."""
    with running(service, access=SlowLog(), queue_seconds=0.25) as shop:
        statuses = []
        for count in (12, 30):  # the estimate is learnt from those who wait for one another
            clients = [Client(shop.port) for _ in range(count)]
            for client in clients:
                client.send(rank())
            statuses.append({client.answer()[0] for client in clients})
            for client in clients:
                client.socket.close()
    assert statuses[1] == {200, 503}


def test_a_full_queue_refuses_new_connections_before_they_are_any(service):
    """They are counted as other refusals are; whoever has a connection keeps it."""
    with running(Slow(service, 0.5), in_flight=2) as shop, Client(shop.port) as kept:
        kept.send(rank())
        time.sleep(0.1)
        clients = [Client(shop.port) for _ in range(20)]
        for client in clients:
            client.send(rank())
        answers = [client.answer()[:2] for client in clients]
        for client in clients:
            client.socket.close()
        closed = [headers for status, headers in answers if status == 503 and headers.get("connection") == "close"]
        assert len(closed) > 0
        assert shop.server.accepted <= 21 - len(closed)
        refused = [status for status, _ in answers].count(503)
        for name in ('requests_shed_total{reason="queue"}', *(f'{what}_total{{code="503"}}' for what in COUNTED)):
            shop.until(name, refused)
            assert shop.series(name) == refused
        assert shop.series('rank_request_duration_seconds_count{code="503"}') == refused
        assert kept.answer()[0] == 200
        kept.send(head("/readyz", "GET"))
        assert kept.answer()[0] == 200


def test_health_answers_between_requests(service):
    """New connections are accepted between two requests, so a probe does not wait for the queue."""
    with running(Slow(service, 0.1), queue_seconds=60.0) as shop:
        clients = [Client(shop.port) for _ in range(30)]
        for client in clients:
            client.send(rank())
        shop.until('http_requests_total{code="200"}', 1)
        began = time.monotonic()
        assert asked(shop.port, head("/livez", "GET"))[0] == 200
        assert time.monotonic() - began < 1.5  # the queue is 3 s long
        for client in clients:
            client.socket.close()


@pytest.mark.parametrize("how", ["header", "body"])
def test_work_past_its_deadline_is_not_done(service, how):
    """504, and the model has not run; who has time is answered."""
    body = json.dumps({**json.loads(BODY), "deadline_ms": 50}).encode() if how == "body" else BODY
    lines = ["x-request-deadline-ms: 50"] if how == "header" else []
    with running(Slow(service, 0.2)) as shop:
        status, _, answer = asked(shop.port, rank(body, *lines))
        assert (status, json.loads(answer)["title"]) == (504, "The request's deadline has passed")
        assert asked(shop.port, rank(BODY, "x-request-deadline-ms: 60000"))[0] == 200
        shop.until("rank_candidates_count", 1)
        assert shop.series('requests_shed_total{reason="deadline"}') == 1
        assert shop.series("rank_candidates_count") == 1


@pytest.mark.parametrize("deadline", ["0", "-5", "soon", "99999999999", "1.5", ""])
def test_a_deadline_that_is_none_is_refused(shop, deadline):
    """422, in the header as in the body."""
    assert asked(shop.port, rank(BODY, f"x-request-deadline-ms: {deadline}"))[0] == 422


def test_nobody_is_ranked_for_a_client_that_has_gone(service):
    """It is looked for just before the model runs; the work is saved and counted."""
    slow = Slow(service, 0.3)
    with running(slow, queue_seconds=60.0) as shop:
        with Client(shop.port) as first, Client(shop.port) as second:
            first.send(rank())
            time.sleep(0.1)
            second.send(rank())
            time.sleep(0.05)
            second.socket.close()
            assert first.answer()[0] == 200
        shop.until('requests_shed_total{reason="gone"}', 1)
        shop.until("rank_candidates_count", 1)
        assert shop.series("rank_candidates_count") == 1


def test_a_mistake_of_ours_is_500_and_shows_nothing(spoilt, caplog):
    """A model that gives NaN: the client learns an id, the log learns the rest, the metrics count it."""
    model = onnx.load(str(spoilt / "model.onnx"))
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
    onnx.save(model, str(spoilt / "model.onnx"))
    (spoilt / "model.onnx.data").unlink(missing_ok=True)
    opened = load(signed(spoilt))
    with running(RankService(opened, Scorer(opened, threads=1), new_id=lambda: "generated")) as shop:
        status, _, body = asked(shop.port, rank())
        problem = json.loads(body)
        assert (status, problem["detail"]) == (500, "Internal error")
        assert problem["instance"].startswith("urn:request:")
        [record] = [record for record in caplog.records if record.getMessage() == "request_failed"]
        assert record.fields == {"request": problem["instance"].removeprefix("urn:request:")}
        assert "NonFiniteError" in caplog.text
        shop.until('nonfinite_total{action="refuse"}', 1)


def test_a_flood_of_scrapes_costs_a_few(service):
    """Each answer is counted, so metrics that are computed anew differ; most of a flood do not."""
    with running(service) as server, Client(server.port) as client:
        client.send(head("/metrics", "GET") * 12)
        pages = [client.answer()[2] for _ in range(12)]
    assert 1 < len(set(pages)) <= 8


def test_a_flood_of_scrapes_does_not_starve_ranking(service):
    """While four scrapers ask without a pause, every ranking is answered inside its deadline."""
    over, scraped = threading.Event(), []

    def scrape(port):
        with Client(port) as client:
            while not over.is_set():
                client.send(head("/metrics", "GET") * 4)
                scraped.extend(client.answer()[0] for _ in range(4))

    with running(service) as server:
        scrapers = [threading.Thread(target=scrape, args=(server.port,)) for _ in range(4)]
        for scraper in scrapers:
            scraper.start()
        try:
            answers = [asked(server.port, rank(BODY, "x-request-deadline-ms: 2000"))[0] for _ in range(30)]
        finally:
            over.set()
            for scraper in scrapers:
                scraper.join(PATIENCE)
    assert answers == [200] * 30
    assert len(scraped) > 30
    assert set(scraped) == {200}
