"""Accepts connections, and refuses at once those whose request would have to be refused anyway.

What is accepted is read before it becomes a connection. A whole request that the queue has no room for is answered and
closed there and then, without a transport, a parser and a deadline, which cost several times as much. Everything else,
health checks and whatever is not whole among it, becomes a connection, with the bytes that were read.

While the queue is crowded the door is opened every few milliseconds and not between any two requests: who has to wait
for so many others does not notice, and whoever came meanwhile is refused in one go.
"""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import suppress
from time import perf_counter
from typing import Protocol

from serving.server.connection import Connection, Host
from serving.server.messages import encoded, too_many

_PAUSE_SECONDS = 0.004  # of a crowded queue: between two looks, and for a client that has sent nothing yet
_BATCH, _CROWD = 16, 64  # accepted at one look; in a flood, the worker ranks in between
_MOST = 4096  # at the end: more than the system's backlog
_BYTES = 1 << 16  # read at once; a request that is longer gets a connection
_RETRY_SECONDS = 0.1  # after the system had no room for another connection
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)
# on Linux the answer waits for the end of the connection, and both go out in one segment
_SEND = getattr(socket, "MSG_MORE", 0) | socket.MSG_DONTWAIT


class AdmissionGate(Protocol):
    """What an acceptor asks about the queue that requests are for."""

    line: bytes  # the first line of those requests

    @property
    def crowded(self) -> bool:
        """Whether whoever comes has to wait for many others; never of a queue that is empty."""
        ...

    def full(self, body: bytes, *, before: int) -> bool:
        """Whether a request would be refused, behind `before` others like it that the queue does not know of yet."""
        ...

    def retry_after(self) -> int:
        """Whole seconds until a client that is refused should come again."""
        ...

    def refused_at_once(self, count: int) -> None:
        """So many requests were refused, each with 503."""
        ...


class Acceptor:
    """The connections of a listening TCP socket, for the server of one process."""

    def __init__(self, listening: socket.socket, server: Host, gate: AdmissionGate) -> None:
        """Accepts from now on, in the server's loop; the socket is the acceptor's own from now on."""
        self._listening = _Listener(listening)
        self._server = server
        self._gate = gate
        self._arriving: dict[asyncio.Task[None], None] = {}
        self._asking = 0  # of those, how many bring a request for the queue
        self._silent: list[socket.SocketType] = []
        self._refused = 0
        self._look = 0.0
        self._answers: dict[int, bytes] = {}  # by the seconds that they name
        self._date = b""
        self._listening.setblocking(False)
        self._open()

    @property
    def arriving(self) -> int:
        """Connections that were accepted, and whose first bytes the server has not seen yet."""
        return len(self._arriving)

    @property
    def unseen(self) -> int:
        """All that were accepted and are no connections of the server yet."""
        return len(self._arriving) + len(self._silent)

    def accept_all(self) -> None:
        """Accept whoever waits, at the end: closing the socket would reset them."""
        self._accept(_MOST)

    def close(self) -> None:
        """Accept no more."""
        if self._listening.fileno() >= 0:
            self._server.loop.remove_reader(self._listening.fileno())
            self._listening.close()

    def _open(self) -> None:
        if self._listening.fileno() >= 0:
            self._server.loop.add_reader(self._listening.fileno(), self._readable)

    def _readable(self) -> None:
        if not self._gate.crowded:
            self._accept(_BATCH)
        elif (now := perf_counter()) >= self._look:
            self._look = now + _PAUSE_SECONDS
            self._accept(_CROWD)

    def _accept(self, most: int) -> None:
        try:
            for _ in range(most):
                self._receive(self._listening.next(), patient=True)
        except BlockingIOError:
            pass
        except ConnectionError:
            pass  # one that has gone already; the others wait for the next look
        except OSError:
            self._server.loop.remove_reader(self._listening.fileno())
            self._server.loop.call_later(_RETRY_SECONDS, self._open)
        self._count()

    def _receive(self, client: socket.SocketType, *, patient: bool) -> None:
        try:
            data = client.recv(_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if patient and self._gate.crowded:
                self._wait_for(client)
            else:
                self._let_in(client, b"", asks=False)
            return
        except OSError:
            data = b""
        if not data:
            client.close()
            return
        body = _whole_body(data, self._gate.line)
        if body is None or not self._gate.full(body, before=self._asking):
            self._let_in(client, data, asks=body is not None)
        else:
            self._refuse(client)

    def _wait_for(self, client: socket.SocketType) -> None:
        """Look again when it has had time to send."""
        if not self._silent:
            self._server.loop.call_later(_PAUSE_SECONDS, self._look_again)
        self._silent.append(client)

    def _look_again(self) -> None:
        silent, self._silent = self._silent, []
        for client in silent:
            self._receive(client, patient=False)
        self._count()

    def _let_in(self, client: socket.SocketType, data: bytes, *, asks: bool) -> None:
        self._server.accepted += 1
        self._asking += asks
        task = self._server.loop.create_task(self._connect(client, data, asks=asks))
        self._arriving[task] = None
        task.add_done_callback(self._arriving.pop)

    async def _connect(self, client: socket.SocketType, data: bytes, *, asks: bool) -> None:
        connection, accepted = Connection(self._server, data), socket.socket(fileno=client.detach())
        try:
            await self._server.loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:
            accepted.close()
            return
        finally:
            self._asking -= asks
        connection.begin()

    def _refuse(self, client: socket.SocketType) -> None:
        """Answer and hang up; nothing is unread, so nothing resets the answer."""
        if self._date is not self._server.date:
            self._date = self._server.date
            self._answers.clear()
        after = self._gate.retry_after()
        if (answer := self._answers.get(after)) is None:
            answer = self._answers[after] = encoded(too_many(after), self._date, keep_alive=False, body=True)
        with suppress(OSError):  # the client may have gone
            client.send(answer, _SEND)
        client.close()
        self._refused += 1

    def _count(self) -> None:
        if self._refused:
            self._gate.refused_at_once(self._refused)
            self._refused = 0


class _Listener(socket.socket):
    """A listening socket. What `accept` does beside the system call costs as much as the rest of a refusal does."""

    def __init__(self, listening: socket.socket) -> None:
        """Takes the place of another."""
        self._kind = int(listening.family), int(listening.type), listening.proto
        super().__init__(*self._kind, fileno=listening.detach())

    def next(self) -> socket.SocketType:
        """The next connection; BlockingIOError where there is none."""
        accepted, _ = self._accept()  # pyright: ignore[reportAttributeAccessIssue]  the stubs leave it out
        return socket.SocketType(*self._kind, accepted)


def _whole_body(data: bytes, line: bytes) -> bytes | None:
    """The body of a request that begins with `line` and has come whole, with nothing behind it; or None.

    >>> end = bytes((13, 10))
    >>> _whole_body(b"GET" + end + b"Content-Length: 2" + end + end + b"{}", b"GET" + end)
    b'{}'
    """
    if not data.startswith(line):
        return None
    begin = data.find(b"\r\n\r\n") + 4
    length = _LENGTH.search(data, len(line) - 2, begin) if begin >= 4 else None
    whole = length is not None and len(data) == begin + int(length[1])
    return data[begin:] if whole else None
