from __future__ import annotations

import socket

import pytest

from serving.server.listener import bind, listen, place, refuse_new


def test_an_address_is_held_and_not_shared():
    """Taken by one, refused to the next; connections are refused until somebody listens."""
    with bind("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        held.listen()
        with pytest.raises(OSError, match=f"127.0.0.1:{port}: cannot listen here: Address already in use"):
            bind("127.0.0.1", port)


def test_who_has_come_is_let_in_and_nobody_else():
    """Connections that wait are accepted after new ones are shut out, and their bytes arrive."""
    with bind("127.0.0.1", 0) as listening:
        listening.listen(16)
        waiting = [socket.create_connection(listening.getsockname(), timeout=10) for _ in range(5)]
        if not refuse_new(listening):
            pytest.skip("this system has no socket filters")
        with pytest.raises(TimeoutError):
            socket.create_connection(listening.getsockname(), timeout=0.5)
        for client in waiting:
            client.sendall(b"x")
            accepted, _ = listening.accept()
            with accepted, client:
                assert accepted.recv(1) == b"x"


def test_who_listened_first_has_the_address():
    """Two may be bound to it while nobody listens; the second to listen is told which address it is."""
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port) as second:
            listen(first, 1)
            with pytest.raises(OSError, match=f"127.0.0.1:{port}: cannot listen here: Address already in use"):
                listen(second, 1)


def test_a_host_that_is_none_is_named():
    """Whatever is wrong with it; and an address of IPv6 has brackets."""
    for host in ("no host", "a" * 70 + ".b", "\0"):
        with pytest.raises((OSError, ValueError), match="no such address"):
            bind(host, 8000)
    assert (place("::1", 80), place("127.0.0.1", 80)) == ("[::1]:80", "127.0.0.1:80")
