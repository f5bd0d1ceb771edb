"""The connections of one process: accepted, watched over, and dropped slowest first when there are too many."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterator
from email.utils import formatdate
from time import perf_counter
from typing import Protocol

from serving.server.acceptor import Acceptor, AdmissionGate
from serving.server.connection import BODY, HEAD, IDLE, STATES, WORK, WRITE, Connection, Endpoint
from serving.server.settings import ServerSettings

_TICK_SECONDS = 0.25
_EXPIRE_SECONDS, _PAUSE_SECONDS = 0.002, 0.01  # of a turn at most, and between two, so that others are served
# whoever waits for nothing goes first, then whoever is slow to take, to begin, to send; never one that is being ranked
_EXPENDABLE = (IDLE, WRITE, HEAD, BODY)


class Observer(Protocol):
    """What counts answers and connections."""

    def answered(self, status: int) -> None:
        """An answer was written."""
        ...

    def connection_dropped(self, reason: str, state: str) -> None:
        """A connection was closed: its deadline passed (`timeout`), or others needed its room (`evicted`)."""
        ...

    def connections(self, count: int) -> None:
        """So many connections are open."""
        ...


class HttpServer:
    """Serves an endpoint on listening sockets, in one event loop."""

    def __init__(
        self, endpoint: Endpoint, settings: ServerSettings, observer: Observer, gate: AdmissionGate | None = None
    ) -> None:
        """Nothing is accepted before `listen`; a `gate` refuses requests of new TCP connections before the endpoint."""
        self.endpoint = endpoint
        self.settings = settings
        self.draining = False  # every answer ends its connection
        self.accepted = 0  # connections so far
        self.date = b""
        self.loop: asyncio.AbstractEventLoop
        self._observer = observer
        self._connections: dict[Connection, None] = {}  # in the order in which they came
        self._expired = deque[Connection]()
        self._received = 0
        self._gate = gate
        self._server: asyncio.Server | None = None
        self._acceptor: Acceptor | None = None

    async def listen(self, address: socket.socket) -> None:
        """Accept connections on a bound socket."""
        self.loop = asyncio.get_running_loop()
        self.tick()
        if self._gate is not None and address.family != socket.AF_UNIX:
            self._acceptor = Acceptor(address, self, self._gate)
            return
        create = self.loop.create_unix_server if address.family == socket.AF_UNIX else self.loop.create_server
        self._server = await create(self._accepted, sock=address, backlog=2048)

    def tick(self) -> None:
        """Every _TICK_SECONDS: whose deadline has passed is closed, a few at a time."""
        self.date = formatdate(usegmt=True).encode()
        if not self._expired:
            now = perf_counter()
            self._expired.extend(connection for connection in self._connections if connection.deadline < now)
            self._expire()

    def _expire(self) -> None:
        end = perf_counter() + _EXPIRE_SECONDS
        try:
            while self._expired:
                connection, now = self._expired.popleft(), perf_counter()
                if connection in self._connections and connection.deadline < now:  # as it was when it was found
                    self._observer.connection_dropped("timeout", STATES[connection.state])
                    connection.expire()
                    if connection.deadline < now:  # it lingers no more
                        self._connections.pop(connection, None)
                if now >= end:
                    break
        finally:
            if self._expired:
                self.loop.call_later(_PAUSE_SECONDS, self._expire)

    async def watch(self, beat: Callable[[], None]) -> None:
        """Look after the connections for as long as the process lives; `beat` is called every time."""
        while True:
            beat()
            self.tick()
            await asyncio.sleep(_TICK_SECONDS)

    @property
    def arriving(self) -> int:
        """Connections that were accepted, and whose first bytes have not been seen yet."""
        return 0 if self._acceptor is None else self._acceptor.arriving

    def opened(self, connection: Connection) -> None:
        """A connection was accepted; beyond the limit, it takes the place of the slowest."""
        self._connections[connection] = None
        if len(self._connections) > self.settings.connections:
            self._evict(self._slowest(_EXPENDABLE, besides=connection) or connection)
        self._observer.connections(len(self._connections))

    def closed(self, connection: Connection) -> None:
        """A connection is no more."""
        self._connections.pop(connection, None)
        self._observer.connections(len(self._connections))

    def receiving(self, size: int, connection: Connection) -> None:
        """A body has grown by `size` bytes, or is none of ours any more."""
        self._received += size
        if self._received > self.settings.receiving_bytes:
            slowest = self._slowest((BODY,), besides=connection)
            self._evict(slowest or connection)

    def answered(self, status: int) -> None:
        """An answer was written."""
        self._observer.answered(status)

    def accept_all(self) -> None:
        """Accept whoever waits to be, where nobody else will."""
        if self._acceptor is not None:
            self._acceptor.accept_all()

    def stop_accepting(self) -> None:
        """Accept no more; connections that are open stay, and each ends with its next answer."""
        self.draining = True
        for listener in (self._server, self._acceptor):
            if listener is not None:
                listener.close()

    def retire(self) -> int:
        """Close connections that are idle; how many are left."""
        for connection in list(self._connections):
            connection.retire()
        return len(self._connections) + (0 if self._acceptor is None else self._acceptor.unseen)

    def _accepted(self) -> Connection:
        self.accepted += 1
        return Connection(self)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._connections))

    def _slowest(self, states: tuple[int, ...], *, besides: Connection) -> Connection | None:
        for state in states:
            candidates = [c for c in self._connections if c.state == state and c is not besides]
            if candidates:
                return min(candidates, key=lambda c: c.since)
        return None

    def _evict(self, connection: Connection) -> None:
        if connection.state != WORK:
            self._observer.connection_dropped("evicted", STATES[connection.state])
            self._connections.pop(connection, None)
            connection.evict()
