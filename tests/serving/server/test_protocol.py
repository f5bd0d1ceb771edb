from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from rec.spec import Serve
from serving.server import protocol
from serving.server.app import create_app
from serving.server.metrics import Metrics


@pytest.fixture
def port(service, monkeypatch):
    """The tiny shop on a socket, in a thread; a head has half a second to come."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    metrics = Metrics(None, model="m", digest="d")
    app = create_app(service, metrics, Serve(), new_id=lambda: "generated", ready=lambda: True)
    server = protocol.create_server(app, connections=3)
    with socket.create_server(("127.0.0.1", 0)) as address:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([address])))
        thread.start()
        deadline = time.monotonic() + 10
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield address.getsockname()[1]
        server.should_exit = True
        thread.join(10)


def heard(port, *pieces):
    """What comes back for pieces sent as they are, until the server hangs up; and how long that took."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
        answer = b""
        while got := connection.recv(65536):
            answer += got
            if answer.startswith(b"HTTP/1.1 200"):
                break
    return answer, time.monotonic() - began


@pytest.mark.parametrize("piece", [b"", b"GET /livez HTTP/1.1\r\nhost:"])
def test_a_head_that_does_not_come_costs_the_connection(port, piece):
    """Said nothing, or stopped in the middle: closed at the deadline, without a word."""
    answer, seconds = heard(port, piece)
    assert answer == b""
    assert 0.4 < seconds < 5


def test_a_head_that_is_too_long_is_refused(port):
    """Before it is whole: nobody keeps us collecting headers."""
    answer, _ = heard(port, b"GET /livez HTTP/1.1\r\nhost: x\r\nx: ", b"y" * (protocol.HEAD_BYTES + 1))
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_what_is_not_http_is_refused(port):
    """With 400, and hung up on."""
    assert heard(port, b"\x16\x03\x01 hello\r\n\r\n")[0].startswith(b"HTTP/1.1 400 ")


def test_a_head_in_pieces_is_whole_when_it_is(port):
    """And a kept-alive connection may think between two requests longer than a head may take."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for pause in (0.0, 0.7):
            time.sleep(pause)
            connection.sendall(b"GET /livez HTTP/1.1\r\n")
            time.sleep(0.05)
            connection.sendall(b"host: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"ok\n"):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")


def test_too_many_connections_are_told_so(port):
    """The one too many gets 503; the others are as they were."""
    held = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(2)]
    try:
        time.sleep(0.1)
        assert heard(port, b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")[0].startswith(
            b"HTTP/1.1 503 "
        )
    finally:
        for connection in held:
            connection.close()
