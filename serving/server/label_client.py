"""Requests from a worker to the workers of another label, over kept connections of a socket in a private folder.

One request at a time on a connection, and a bound on how many at once: whoever asks has something else to do when the
other does not answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

import httptools

from serving.server.messages import TEXT, Reply

_RELAYED = (b"retry-after", b"allow")


class BusyError(Exception):
    """As many requests as may be are on their way already."""


class LabelClient:
    """The workers that accept on a socket."""

    def __init__(self, path: str, *, most: int) -> None:
        """`path` is that of the socket; at most `most` requests are on their way at once."""
        self.outstanding = 0
        self._path = path
        self._most = most
        self._idle: list[_Exchange] = []

    async def ask(self, page: bytes, headers: Mapping[bytes, bytes], body: bytes, *, seconds: float) -> Reply:
        """The answer to a POST. BusyError, TimeoutError, or another OSError where there is none."""
        if self.outstanding >= self._most:
            raise BusyError
        self.outstanding += 1
        exchange = None
        try:
            async with asyncio.timeout(seconds):
                exchange = self._kept() or await self._connected()
                reply = await exchange.ask(_head(page, headers, len(body)) + body)
            if exchange.open:
                self._idle.append(exchange)
            exchange = None
            return reply
        finally:
            self.outstanding -= 1
            if exchange is not None:
                exchange.close()

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop().close()

    def _kept(self) -> _Exchange | None:
        while self._idle:
            exchange = self._idle.pop()
            if exchange.open:
                return exchange
        return None

    async def _connected(self) -> _Exchange:
        _, exchange = await asyncio.get_running_loop().create_unix_connection(_Exchange, self._path)
        return exchange


class _Exchange(asyncio.Protocol):
    """One connection, and the answer that comes on it."""

    def __init__(self) -> None:
        self.open = True
        self._transport: asyncio.WriteTransport
        self._answer: asyncio.Future[Reply] | None = None
        self._clear()

    async def ask(self, data: bytes) -> Reply:
        """The answer to some bytes."""
        self._clear()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        self.open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody accepts, now or soon."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other has gone."""
        self.open = False
        self._fail(exc or ConnectionResetError("hung up"))

    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.close()
            self._fail(ConnectionAbortedError(str(error)))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self.open = self.open and self._parser.should_keep_alive()
        headers = tuple((name, self._headers[name]) for name in _RELAYED if name in self._headers)
        kind = self._headers.get(b"content-type", TEXT)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Reply(self._parser.get_status_code(), b"".join(self._parts), kind, headers))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _clear(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []


def _head(page: bytes, headers: Mapping[bytes, bytes], length: int) -> bytes:
    lines = [b"POST %s HTTP/1.1" % page, b"host: label", b"content-type: application/json"]
    lines += [b"%s: %s" % header for header in headers.items()]
    return b"\r\n".join([*lines, b"content-length: %d" % length, b"", b""])
