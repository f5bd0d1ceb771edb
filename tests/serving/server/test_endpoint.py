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
