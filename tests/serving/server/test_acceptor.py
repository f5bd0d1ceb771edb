"""Connections before they are connections: who is refused there, and that nobody else notices."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager

import pytest
import uvloop

from serving.server.counters import SharedCounters
from serving.server.http_server import HttpServer
from serving.server.listener import bind
from serving.server.messages import Reply
from serving.server.metric_series import COLUMNS
from serving.server.metrics import Metrics
from serving.server.settings import ServerSettings
from tests.serving.server.conftest import PATIENCE, Client, asked, head, rank

LARGE = b"[" + b" " * 200_000 + b"]"


class Queue:
    """A gate that is open or shut, before pages that answer with the body they get."""

    line = b"POST /v1/rank HTTP/1.1\r\n"

    def __init__(self, *, shut):
        self.crowded, self.count = shut, 0

    def full(self, body, *, before):
        """Always, or never."""
        assert before >= 0
        assert isinstance(body, bytes)
        return self.crowded

    def retry_after(self):
        """In a week."""
        return 7

    def refused_at_once(self, count):
        """Counted."""
        self.count += count

    def begin(self, _request):
        """Every body is received."""

    def refused(self, _request, _reply):
        """Nothing is counted."""

    def finish(self, request):
        """The body is the answer."""
        request.answer(Reply(200, request.body))


@contextmanager
def accepting(queue, new_event_loop=uvloop.new_event_loop):
    """A server with a gate, its port, and its loop."""
    server = HttpServer(queue, ServerSettings(), Metrics(SharedCounters(COLUMNS), 0, {}), queue)
    address = bind("127.0.0.1", 0)
    address.listen(256)
    port, listening, stop = address.getsockname()[1], threading.Event(), asyncio.Event()

    async def main():
        await server.listen(address)
        listening.set()
        await stop.wait()
        server.stop_accepting()
        for connection in server:
            connection.evict()

    def run():
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    assert listening.wait(PATIENCE)
    try:
        yield server, port
    finally:
        server.loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)


@contextmanager
def busy(server, *after):
    """The loop does nothing else while the block runs; what is to be called then, it calls."""
    ready = threading.Event()

    def rank_for_long():
        ready.wait(PATIENCE)
        for call in after:
            call()

    server.loop.call_soon_threadsafe(rank_for_long)
    yield
    ready.set()


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def shut(request):
    """A full queue behind either kind of loop."""
    queue = Queue(shut=True)
    with accepting(queue, request.param) as (server, port):
        yield queue, server, port


def test_whoever_is_refused_gets_an_answer_and_no_reset(shut):
    """503 with Retry-After on a connection that ends in order; no connection of the server was made for it."""
    queue, server, port = shut
    with busy(server):
        clients = [Client(port) for _ in range(100)]
        for client in clients:
            client.send(rank())
    for client in clients:
        status, headers, body = client.answer()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "7", "close")
        assert b"Too many requests at once" in body
        assert client.socket.recv(1) == b""  # a reset would raise ConnectionResetError
        client.socket.close()
    assert (queue.count, server.accepted) == (100, 0)


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (head("/livez", "GET"), b""),
        (head("/metrics", "POST", length=2) + b"{}", b"{}"),
        (rank().replace(b"/v1/rank ", b"/v1/rank?x=1 "), None),
        (rank(LARGE), LARGE),
        (head("/v1/rank", "POST", "transfer-encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n", b"{}"),
        (rank(b"{}") + head("/livez", "GET"), b"{}"),
    ],
    ids=["probe", "page", "query", "large", "chunked", "ahead"],
)
def test_whatever_is_no_whole_request_for_the_queue_gets_a_connection(shut, sent, body):
    """It is answered as ever, from its first byte on."""
    queue, server, port = shut
    status, headers, answer = asked(port, sent)
    assert status == 200
    assert "retry-after" not in headers
    assert body is None or answer == body
    assert (queue.count, server.accepted) == (0, 1)


def test_a_request_that_comes_in_pieces_is_read_whole(shut):
    """Whoever sends nothing at first, or only the beginning, is waited for."""
    _, server, port = shut
    with Client(port) as silent, Client(port) as slow:
        slow.send(rank(b"[1, 2]")[:40])
        late = time.monotonic() + PATIENCE
        while server.accepted < 2:
            assert time.monotonic() < late
            time.sleep(0.01)
        slow.send(rank(b"[1, 2]")[40:])
        silent.send(rank(b"[3]"))
        assert [client.answer()[::2] for client in (slow, silent)] == [(200, b"[1, 2]"), (200, b"[3]")]


def test_a_client_that_hangs_up_costs_nobody_else(shut):
    """Before it has sent anything, or right after a request."""
    _, _, port = shut
    Client(port).socket.close()
    with Client(port) as client:
        client.send(rank())
    assert asked(port, head("/livez", "GET"))[0] == 200


def test_an_open_gate_lets_everybody_in():
    """The connection is kept, and the next request on it is answered too."""
    queue = Queue(shut=False)
    with accepting(queue) as (server, port), Client(port) as client:
        for body in (b"[1]", b"[2]"):
            client.send(rank(body))
            assert client.answer()[::2] == (200, body)
        assert (queue.count, server.accepted) == (0, 1)


@pytest.mark.parametrize("full", [True, False])
def test_whoever_waits_at_the_end_is_accepted(full):
    """More than at one look: closing the socket would reset those who wait."""
    with accepting(Queue(shut=full)) as (server, port):
        with busy(server, server.accept_all, server.stop_accepting):
            clients = [Client(port) for _ in range(200)]
            for client in clients:
                client.send(rank(b"{}"))
        assert {client.answer()[0] for client in clients} == {503 if full else 200}
        for client in clients:
            client.socket.close()


@pytest.mark.parametrize(("seconds", "left"), [(1.0, 1), (3.0, 0)])
def test_who_has_asked_nothing_yet_gets_time_at_a_stop(seconds, left):
    """Its client may be about to ask; it is closed when it has been silent for two seconds."""
    with accepting(Queue(shut=False)) as (server, port), Client(port):
        late = time.monotonic() + PATIENCE
        while not (silent := list(server)):
            assert time.monotonic() < late
            time.sleep(0.01)
        closed = threading.Event()

        def stop():
            silent[0].since -= seconds
            server.retire()
            server.loop.call_later(0.1, closed.set)

        server.loop.call_soon_threadsafe(stop)
        assert closed.wait(PATIENCE)
        assert len(list(server)) == left
