"""A client of the endpoint on an event loop, on connections that it keeps or on new ones; it reads statuses alone."""

from __future__ import annotations

import asyncio
import select
from dataclasses import dataclass, field

OK = 200
KEPT = 4096  # connections that are kept, at the most: fewer would hold requests back, and spare the server
_PATIENCE = 30.0  # seconds until an answer is given up


class Exchange(asyncio.Protocol):
    """One connection: a request goes out, its answer's status comes back; 0 where the connection ended first."""

    def __init__(self) -> None:
        """Not connected yet."""
        self.transport: asyncio.Transport | None = None
        self.open = True
        self._data, self._answer = bytearray(), None
        self._waiting: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""
        self._data += data
        head = self._data.find(b"\r\n\r\n")
        if head < 0:
            return
        lines = bytes(self._data[:head]).lower()
        if self._whole(head + 4, lines):
            self.open = self.open and b"connection: close" not in lines
            self._done(int(lines[9:12]))

    def _whole(self, begin: int, lines: bytes) -> bool:
        """Whether a body that begins there is complete; in chunks, it ends with an empty one."""
        if b"transfer-encoding: chunked" in lines:
            return self._data.endswith(b"0\r\n\r\n")
        return len(self._data) >= begin + int(lines.split(b"content-length:")[1].split(b"\r\n")[0])

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The server hung up."""
        self.open = False
        self._done(0)

    @property
    def usable(self) -> bool:
        """Whether nobody has hung up, nor is about to be heard of having: an idle connection has nothing to read.

        HTTP clients look before they use a kept connection again, as urllib3 and httpcore do.
        """
        socket = None if self.transport is None else self.transport.get_extra_info("socket")
        if not self.open or socket is None or socket.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    async def ask(self, message: bytes) -> int:
        """The status of the answer to a whole HTTP request."""
        if self.transport is None or not self.open:
            return 0
        self._data.clear()
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        try:
            return await asyncio.wait_for(self._waiting, _PATIENCE)
        except TimeoutError:
            self.close()
            return 0

    def close(self) -> None:
        """Hang up."""
        self.open = False
        if self.transport is not None:
            self.transport.close()

    def _done(self, status: int) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(status)


@dataclass
class Client:
    """Asks a port, on connections it keeps or on new ones."""

    port: int
    kept: bool
    _idle: list[Exchange] = field(default_factory=list[Exchange])
    _free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(KEPT))

    async def ask(self, message: bytes) -> int:
        """The status of an answer; 0 where there was none."""
        if not self.kept:
            return await self._once(message)
        async with self._free:
            exchange = next((idle for idle in iter(self._popped, None) if idle.usable), None) or await self._connected()
            if exchange is None:
                return 0
            status = await exchange.ask(message)
            if exchange.open:
                self._idle.append(exchange)
            return status

    def close(self) -> None:
        """Hang up all."""
        for exchange in self._idle:
            exchange.close()

    def _popped(self) -> Exchange | None:
        return self._idle.pop() if self._idle else None

    async def _once(self, message: bytes) -> int:
        exchange = await self._connected()
        if exchange is None:
            return 0
        status = await exchange.ask(message)
        exchange.close()
        return status

    async def _connected(self) -> Exchange | None:
        try:
            loop = asyncio.get_running_loop()
            return (await loop.create_connection(Exchange, "127.0.0.1", self.port))[1]
        except OSError:
            return None
