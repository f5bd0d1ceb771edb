"""One HTTP/1.1 connection: a state, and one deadline for it.

    IDLE -> HEAD -> BODY -> WORK -> WRITE -> IDLE        LINGER: answered before the body came, about to close

No byte of a client moves a deadline: only the step to another state does. Requests are answered in their order.
"""

from __future__ import annotations

import asyncio
import select
from contextlib import suppress
from time import perf_counter
from typing import Protocol, cast

from serving.server.messages import HttpRequest, Reply, encoded, problem_reply
from serving.server.request_reader import RequestReader
from serving.server.settings import ServerSettings

IDLE, HEAD, BODY, WORK, WRITE, LINGER = range(6)
STATES = ("idle", "head", "body", "work", "write", "linger")
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 1 << 20
# of a connection that is closed because the server stops: after an answer, and of one that has asked nothing yet, whose
# client may be about to
_SILENT_SECONDS, _FRESH_SECONDS = 0.5, 2.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Endpoint(Protocol):
    """What answers requests."""

    def begin(self, request: HttpRequest) -> Reply | None:
        """The answer that a head deserves without its body, or None to receive that."""
        ...

    def finish(self, request: HttpRequest) -> None:
        """Answer a whole request, now or later, with `request.answer`."""
        ...

    def refused(self, request: HttpRequest, reply: Reply) -> None:
        """A request was answered before it was whole."""
        ...


class Host(Protocol):
    """The server that a connection belongs to; with `draining` every connection ends after its answer."""

    endpoint: Endpoint
    settings: ServerSettings
    loop: asyncio.AbstractEventLoop
    draining: bool
    date: bytes
    accepted: int  # connections so far

    def opened(self, connection: Connection) -> None:
        """A connection was accepted."""
        ...

    def closed(self, connection: Connection) -> None:
        """A connection is no more."""
        ...

    def receiving(self, size: int, connection: Connection) -> None:
        """A body has grown by `size` bytes, or is held no more."""
        ...

    def answered(self, status: int) -> None:
        """An answer was written."""
        ...


class Connection(asyncio.Protocol):
    """One connection of a server."""

    def __init__(self, server: Host, received: bytes = b"") -> None:
        """`server` holds settings, the endpoint, and all connections; `received` are bytes that have come already."""
        self.state = HEAD
        self.since = self.deadline = 0.0  # of the state
        self._server = server
        self._received = received
        self._reader = RequestReader(server.settings, self)
        self._current: HttpRequest | None = None
        self._blocked = False
        self._paused = False
        self._ignored = 0  # bytes that came after the last that was read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come: its first head must arrive in time."""
        self._transport = cast("asyncio.Transport", transport)
        self._enter(HEAD)
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was sent away."""
        del exc
        self._reader.stop()
        self._reader.waiting.clear()
        self._server.closed(self)

    def begin(self) -> None:
        """Read what had come before there was a connection, unless that was read before what came later."""
        if self._received and not self._transport.is_closing():
            self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        """Read; begin the first request that is whole, if none is being ranked."""
        reader = self._reader
        if self._received:
            data, self._received = self._received + data, b""
        if reader.deaf:
            self._ignored += len(data)
            if self._ignored > _LINGER_BYTES:
                self._transport.abort()
            return
        reader.feed(data)
        if self._current is None and not self._blocked:
            self._next()
        elif reader.waiting or reader.arriving is not None:
            self._pause()

    def head_begins(self) -> None:
        """A request has begun; its deadline too, unless it has to wait for others anyway."""
        if self._current is None and self.state not in (HEAD, WRITE):
            self._enter(HEAD)

    def body_begins(self, request: HttpRequest, *, expects: bool) -> Reply | None:
        """The endpoint's answer to a head, if it needs no body."""
        first = self._current is None and not self._reader.waiting
        if self._current is None and self.state != WRITE:
            self._enter(BODY)
        early = self._server.endpoint.begin(request)
        if early is None and expects and first:
            self._transport.write(_CONTINUE)
        return early

    def body_grows(self, size: int) -> None:
        """All bodies together are bounded too."""
        self._server.receiving(size, self)

    def _next(self) -> None:
        """The next request in order: to be ranked, or answered at once."""
        waiting = self._reader.waiting
        while waiting and self._current is None and not self._blocked and not self._transport.is_closing():
            request = self._current = waiting.popleft()
            request.gone, request.answer = self.gone, self._answer
            self._enter(WORK)
            if request.early is not None:
                self._server.endpoint.refused(request, request.early)
                self._answer(request.early)
            else:
                self._server.endpoint.finish(request)

    def _answer(self, reply: Reply) -> None:
        """Write the answer to the current request."""
        request, self._current = self._current, None
        if request is None or self._transport.is_closing():
            return
        last = self._server.draining and not self._reader.waiting and self._reader.arriving is None
        keep_alive = request.keep_alive and not reply.close and not last
        self._transport.write(encoded(reply, self._server.date, keep_alive=keep_alive, body=request.method != b"HEAD"))
        self._server.answered(reply.status)
        if not keep_alive:
            self._finish()
        elif self._blocked:
            self._enter(WRITE)
        else:
            self._rest()

    def _rest(self) -> None:
        """After an answer that the client takes: the next request, the rest of one, or nothing."""
        if self._reader.waiting:
            self._server.loop.call_soon(self._next)
            return
        if self._reader.arriving is None:
            self._enter(IDLE)
        else:
            self._enter(HEAD if self._reader.in_head else BODY)
        self._resume()

    def _finish(self) -> None:
        """Close when the answer is out. A client that still sends gets time to read it: a reset would destroy it."""
        unread = self._reader.deaf
        self._reader.stop()
        self._reader.waiting.clear()  # what was sent behind it is answered on another connection
        if unread and self._transport.can_write_eof():
            with suppress(OSError):  # the client may have gone
                self._transport.write_eof()
            self._enter(LINGER)
            self._resume()
        else:
            self._enter(WRITE)
            self._transport.close()

    def pause_writing(self) -> None:
        """The client does not take what it asked for."""
        self._blocked = True

    def resume_writing(self) -> None:
        """The client has taken its answer."""
        self._blocked = False
        if self.state == WRITE and not self._transport.is_closing():
            self._rest()

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _enter(self, state: int) -> None:
        settings = self._server.settings
        self.state = state
        self.since = perf_counter()
        seconds = (
            settings.idle_seconds,
            settings.head_seconds,
            settings.body_seconds,
            float("inf"),
            settings.write_seconds,
            _LINGER_SECONDS,
        )[state]
        self.deadline = self.since + seconds

    def expire(self) -> None:
        """The deadline has passed: 408 for a body, nothing for anything else, nor for a client that reads no answer."""
        if self.state == BODY and not self._blocked:
            seconds = self._server.settings.body_seconds
            self._reader.refuse(problem_reply(408, f"Body was not received in {seconds:g} s", close=True))
            self._next()
        else:
            self._transport.abort()

    def evict(self) -> None:
        """Others need the room."""
        self._reader.stop()
        self._transport.abort()

    def retire(self) -> None:
        """The server stops: close if nothing has been asked, and nothing lies unread."""
        silent = self.state == IDLE or (self.state == HEAD and self._reader.arriving is None)
        seconds = _SILENT_SECONDS if self.state == IDLE else _FRESH_SECONDS
        if silent and perf_counter() - self.since > seconds and not self._polled(select.POLLIN):
            self._transport.close()

    def gone(self) -> bool:
        """Whether the client has hung up, which the event loop may not know yet."""
        return self._transport.is_closing() or self._polled(select.POLLRDHUP | select.POLLHUP | select.POLLERR)

    def _polled(self, events: int) -> bool:
        socket = self._transport.get_extra_info("socket")
        if socket is None or socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(socket.fileno(), events)
        return bool(poll.poll(0))
