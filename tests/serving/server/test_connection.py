"""What strangers do with connections: every state has one deadline, and every size a bound."""

from __future__ import annotations

import itertools
import json
import socket
import time
from contextlib import ExitStack

import pytest

from serving.server import connection, http_server
from tests.serving.server.conftest import BODY, PATIENCE, Client, asked, head, rank, running

QUICK = {"head_seconds": 0.5, "body_seconds": 0.5, "write_seconds": 0.5, "idle_seconds": 0.5, "pipelined": 100_000}


@pytest.fixture(scope="module")
def hasty(service):
    """The tiny shop, with half a second for every state."""
    with running(service, **QUICK) as server:
        yield server


def drip(client, data, seconds):
    """Send something now and then, until it fails or the time is over."""
    late = time.monotonic() + seconds
    while time.monotonic() < late:
        try:
            client.send(data)
        except OSError:
            return
        time.sleep(0.005)


@pytest.mark.parametrize("piece", [b"", b"GET /", b"GET /livez HTTP/1.1\r\nhost: x\r\nx: "])
def test_a_head_that_does_not_come_costs_the_connection(hasty, piece):
    """Said nothing, or a byte now and then: closed at the deadline of the head, without a word."""
    began = time.monotonic()
    with Client(hasty.port) as client:
        client.send(piece)
        drip(client, b"y" if piece else b"", 1.5)
        assert client.ended()
    assert time.monotonic() - began < PATIENCE / 2


@pytest.mark.parametrize("after", [b"", b"\r\n", b"G"])
def test_a_connection_that_was_answered_is_not_kept_for_ever(hasty, after):
    """Silent, or with a byte after the answer: there is a deadline again."""
    with Client(hasty.port) as client:
        client.send(head("/livez", "GET"))
        assert client.answer()[0] == 200
        client.send(after)
        assert client.ended()


def test_a_slow_body_is_408(hasty):
    """A byte now and then does not keep it; a request beside it is answered at once."""
    with Client(hasty.port) as client:
        client.send(head(length=1000))
        drip(client, b"{", 0.2)
        assert asked(hasty.port, rank())[0] == 200
        drip(client, b"{", 1.0)
        status, headers, body = client.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert b"Body was not received in 0.5 s" in body


def test_a_client_that_does_not_read_is_dropped(hasty):
    """Answers pile up on its side, then on ours, and then it is closed."""
    dropped = 'connections_dropped_total{reason="timeout",state="write"}'
    count = hasty.series(dropped)
    with Client(hasty.port) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        late = time.monotonic() + PATIENCE
        while hasty.series(dropped) == count:
            assert time.monotonic() < late
            drip(client, head("/metrics", "GET"), 0.06)


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/livez", 405), ("/v1/rank?x=1", 408)])
def test_a_body_that_does_not_come_is_answered_all_the_same(hasty, path, status):
    """Whatever page it is for, and the connection ends."""
    with Client(hasty.port) as client:
        client.send(head(path, "POST", length=100))
        assert client.answer()[0] == status
        assert client.ended()


def test_a_body_that_says_it_is_too_large_is_not_received(shop):
    """The length in the head is enough, and the answer survives what the client sends meanwhile."""
    with Client(shop.port) as client:
        client.send(head(length=300_000) + b"x" * 300_000)
        status, headers, body = client.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert b"Body is larger than 20000 bytes" in body
        assert client.ended()


@pytest.mark.parametrize("chunk", [b"1000\r\n" + b" " * 4096 + b"\r\n", b"1;" + b"x" * 8000 + b"\r\n \r\n"])
def test_a_body_that_grows_too_large_is_cut(shop, chunk):
    """By its bytes, or by what its framing costs on the wire."""
    with Client(shop.port) as client:
        client.send(head("/v1/rank", "POST", "transfer-encoding: chunked"))
        for _ in range(12):
            client.send(chunk)
        assert client.answer()[0] == 413


def test_a_head_that_is_too_long_is_refused(shop):
    """At once or in pieces, as one field, as many, as a target, and before it is whole."""
    long = b"y" * 20_000
    for field in (b"x: " + long, b"".join(b"x%d: 1\r\n" % index for index in range(150)), b"x: " + b" " * 20_000):
        assert asked(shop.port, head("/livez", "GET")[:-2] + field + b"\r\n\r\n")[0] == 431
    assert asked(shop.port, b"GET /" + long + b" HTTP/1.1\r\nhost: x\r\n\r\n")[0] == 431
    with Client(shop.port) as client:
        client.send(head("/livez", "GET")[:-2] + b"x: ")
        for _ in range(20):
            client.send(b"y" * 1000)
        assert client.answer()[0] == 431


def test_trailers_are_bounded(shop):
    """After a body in chunks there may be as many as in a head, and no more."""
    chunked = head("/v1/rank", "POST", "transfer-encoding: chunked") + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n"
    assert asked(shop.port, chunked + b"x: 1\r\n\r\n")[0] == 200
    assert asked(shop.port, chunked + b"x: 1\r\n" * 150)[0] == 431
    assert asked(shop.port, chunked + b"x: " + b"y" * 20_000 + b"\r\nx: 1\r\n")[0] == 431


def test_requests_that_are_sent_ahead_are_answered_in_order(shop):
    """Up to a number; beyond it 429, after the answers to those before."""
    with Client(shop.port) as client:
        client.send(rank() + head("/livez", "GET") + rank(b"{") + head("/nothing", "GET"))
        assert [client.answer()[0] for _ in range(4)] == [200, 200, 400, 404]
        client.send(head("/livez", "GET") * 30)
        statuses = [client.answer()[0]]
        while statuses[-1] == 200:
            statuses.append(client.answer()[0])
        assert statuses[-1] == 429
        assert 4 <= len(statuses) <= 7
        assert client.ended()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost x\r\n\r\n",
        b"POST /v1/rank HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/rank HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /v1/rank HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        head("/v1/rank", "POST", "transfer-encoding: chunked") + b"zz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400(shop, sent):
    """In our format, and hung up on: what follows could be anybody's request."""
    with Client(shop.port) as client:
        client.send(sent)
        status, headers, _ = client.answer()
        assert (status, headers["content-type"]) == (400, "application/problem+json")
        assert client.ended()


def test_an_offer_to_upgrade_is_ignored(shop):
    """Java's client offers HTTP/2 with its first request; the request is answered, body and all, and so is the next."""
    offer = ["connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA"]
    with Client(shop.port) as client:
        client.send(rank(BODY, *offer) + head("/livez", "GET"))
        assert client.answer()[0] == 200
        assert client.answer()[0] == 200
        client.send(head("/livez", "GET", "connection: upgrade", "upgrade: websocket"))
        assert client.answer()[0] == 200


def test_a_client_that_waits_for_permission_gets_it(shop):
    """100 Continue, unless the head alone is refused."""
    with Client(shop.port) as client:
        client.send(head("/v1/rank", "POST", "expect: 100-continue", length=len(BODY)))
        assert client.answer()[0] == 100
        client.send(BODY)
        assert client.answer()[0] == 200
        client.send(head("/v1/rank", "POST", "expect: 100-continue", length=1_000_000))
        assert client.answer()[0] == 413


@pytest.mark.parametrize("hosts", [[], ["host: x", "host: x"], ["host: x", "Host: y"], ["host: x y"]])
def test_a_request_names_its_host_once(shop, hosts):
    """HTTP/1.1 asks for it; nothing after such a head is read. HTTP/1.0 may leave it out."""
    lines = "\r\n".join(["GET /livez HTTP/1.1", *hosts, "", ""]).encode()
    with Client(shop.port) as client:
        client.send(lines + head("/livez", "GET"))
        status, _, body = client.answer()
        assert (status, json.loads(body)["title"]) == (400, "Host must be given once")
        assert client.ended()
    for plain in (b"GET /livez HTTP/1.0\r\n\r\n", b"GET /livez HTTP/1.1\r\nhost:\r\n\r\n"):
        assert asked(shop.port, plain)[0] == 200


def test_connections_end_where_they_should(shop):
    """HTTP/1.0 and `connection: close` end after the answer; HEAD has a length and no body."""
    for data in (b"GET /livez HTTP/1.0\r\n\r\n", head("/livez", "GET", "connection: close")):
        with Client(shop.port) as client:
            client.send(data)
            assert client.answer()[1]["connection"] == "close"
            assert client.ended()
    with Client(shop.port) as client:
        client.send(head("/livez", "HEAD") + head("/livez", "GET"))
        assert client.answer(body=False)[1]["content-length"] == "3"
        assert client.answer()[2] == b"ok\n"


def test_strangers_do_not_keep_others_out(service):
    """When all room is taken, idle connections go first, the oldest of them; then slow heads; a probe is answered."""
    with running(service, connections=20) as shop:
        idle = [Client(shop.port) for _ in range(10)]
        for client in idle:
            client.send(head("/livez", "GET"))
            assert client.answer()[0] == 200
        slow = [Client(shop.port) for _ in range(10)]
        for client in slow:
            client.send(b"POST /v1/rank HTTP/1.1\r\n")
        shop.until("connections", 20)
        for _ in range(15):
            assert asked(shop.port, head("/livez", "GET"))[0] == 200
        assert all(client.ended() for client in idle[:1])
        shop.until('connections_dropped_total{reason="evicted",state="idle"}', 1)
        for client in idle + slow:
            client.socket.close()


def test_bodies_that_are_being_received_are_bounded_together(service):
    """A thousand slow senders hold no more memory than is allowed; the slowest goes first."""
    with running(service, receiving_bytes=100_000, max_body=50_000) as shop:
        slow = [Client(shop.port) for _ in range(3)]
        for client in slow:
            client.send(head(length=50_000) + b" " * 40_000)
            time.sleep(0.1)
        assert slow[0].ended()
        shop.until('connections_dropped_total{reason="evicted",state="body"}', 1)
        assert asked(shop.port, rank())[0] == 200
        for client in slow:
            client.socket.close()


def test_what_follows_the_last_request_is_not_answered(shop):
    """A request that ends its connection, then one that is none, then more: one answer, and an end."""
    with Client(shop.port) as client:
        client.send(head("/livez", "GET", "connection: close") + b"\x16\x03 no HTTP\r\n\r\n")
        client.send(b"x" * 100)
        assert client.answer()[0] == 200
        assert client.ended()


def test_many_deadlines_at_once_hold_nobody_up(service, monkeypatch):
    """They are closed a few in a turn of the loop, so that requests are ranked in between; each is counted once."""
    monkeypatch.setattr(http_server, "_EXPIRE_SECONDS", 0.0)
    with running(service) as shop, ExitStack() as stack:
        clients, left = [stack.enter_context(Client(shop.port)) for _ in range(60)], []
        for client in clients:
            client.send(head("/livez", "GET"))
            client.answer()

        def look():
            left.append(len(list(shop.server)))
            if left[-1]:
                shop.server.loop.call_soon(look)

        def late():
            for each in shop.server:
                each.deadline = 0.0
            look()

        shop.server.loop.call_soon_threadsafe(late)
        assert all(client.ended() for client in clients)
        assert (left[0], max(before - after for before, after in itertools.pairwise(left))) == (60, 1)
        assert shop.series('connections_dropped_total{reason="timeout",state="idle"}') == 60


@pytest.mark.parametrize("blocked", [False, True], ids=["reads", "does not read"])
def test_a_body_that_is_late_is_dropped_once(service, blocked):
    """With 408, or without a word where the client takes no answer; looked at twice, it counts once."""
    with running(service) as shop, Client(shop.port) as client:
        client.send(head(length=1000) + b"{")
        while [each.state for each in shop.server] != [connection.BODY]:
            time.sleep(0.01)

        def late():
            for each in shop.server:
                if blocked:
                    each.pause_writing()  # as the loop does when what it sent is not taken
                each.deadline = 0.0
            shop.server.tick()
            shop.server.tick()

        shop.server.loop.call_soon_threadsafe(late)
        assert client.ended() is blocked
        assert shop.series('connections_dropped_total{reason="timeout",state="body"}') == 1
