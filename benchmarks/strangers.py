"""Clients that hold connections and want nothing: idle, with slow heads or bodies, or deaf to the answer.

They live in a process of their own, so that what they cost is not charged to the clients that are measured. Whoever is
dropped comes back within a second.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rec.errors import BundleError

_BATCH = 64  # connections begun at once: less than a backlog
_DRIP_SECONDS = 1.0
_TURNS = 50  # in which all of them drip
_DEAF_BYTES = 4096  # that the system receives for a client that does not read
_POST = b"POST /v1/rank HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
_GET = b"GET %s HTTP/1.1\r\nhost: bench\r\n\r\n"


@dataclass(frozen=True)
class Habit:
    """What a stranger sends first, what it sends again every second, and whether it reads."""

    first: bytes
    drip: bytes = b""
    reads: bool = True


HABITS: Mapping[str, Habit] = {
    "idle": Habit(_GET % b"/livez"),
    "slow heads": Habit(_POST + b"x-slow: ", b"a"),
    "slow bodies": Habit(_POST + b"content-length: 100000\r\n\r\n", b" "),
    "unread": Habit(_GET % b"/metrics" * 8, b"\r\n", reads=False),
}


class Stranger(asyncio.Protocol):
    """One connection."""

    def __init__(self, habit: Habit) -> None:
        """Not connected yet."""
        self.habit = habit
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: say the first thing."""
        self.transport = transport  # pyright: ignore[reportAttributeAccessIssue]
        assert self.transport is not None
        if not self.habit.reads:
            self.transport.pause_reading()
        self.transport.write(self.habit.first)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The server hung up."""
        self.transport = None

    def drip(self) -> None:
        """Send a little more, where there is more."""
        if self.transport is not None and self.habit.drip:
            self.transport.write(self.habit.drip)


@contextmanager
def gathered(port: int, crowd: Mapping[str, int], *, patience: float = 120.0) -> Iterator[Any]:
    """While the block runs, so many strangers of every habit hold connections; `value` says how often one came back.

    BundleError where they are not all connected within `patience` seconds.
    """
    context = multiprocessing.get_context("spawn")
    whole, returned = context.Event(), context.Value("q", 0)
    process = context.Process(target=_live, args=(port, dict(crowd), whole, returned), daemon=True)
    process.start()
    try:
        deadline = time.monotonic() + patience
        while not whole.wait(0.1):
            if not process.is_alive() or time.monotonic() > deadline:
                raise BundleError(f"{sum(crowd.values())} strangers could not connect to port {port}")
        yield returned
    finally:
        process.terminate()
        process.join()


def _live(port: int, crowd: Mapping[str, int], whole: Any, returned: Any) -> None:
    import uvloop

    uvloop.run(_hold(port, crowd, whole, returned))


async def _hold(port: int, crowd: Mapping[str, int], whole: Any, returned: Any) -> None:
    strangers = [Stranger(HABITS[name]) for name, count in crowd.items() for _ in range(count)]
    await _join(strangers, port)
    while any(stranger.transport is None for stranger in strangers):
        await asyncio.sleep(_DRIP_SECONDS)
        await _join(strangers, port)
    whole.set()
    while True:
        for turn in range(_TURNS):  # all at once would be a burst, which strangers are not
            few = strangers[turn::_TURNS]
            returned.value += await _join(few, port)
            for stranger in few:
                stranger.drip()
            await asyncio.sleep(_DRIP_SECONDS / _TURNS)


async def _join(strangers: Sequence[Stranger], port: int) -> int:
    """Connect those who are away, or try again a second later; how many were."""
    away = [stranger for stranger in strangers if stranger.transport is None]
    for begin in range(0, len(away), _BATCH):
        await asyncio.gather(*(_connect(stranger, port) for stranger in away[begin : begin + _BATCH]))
    return len(away)


async def _connect(stranger: Stranger, port: int) -> None:
    """Connect, where the server lets it."""
    loop, client = asyncio.get_running_loop(), socket.socket()
    client.setblocking(False)
    if not stranger.habit.reads:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _DEAF_BYTES)
    try:
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.create_connection(lambda: stranger, sock=client)
    except OSError:
        client.close()
