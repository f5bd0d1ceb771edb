"""HTTP/1.1 by uvicorn and httptools, plus limits on the time and size of a request head.

A connection whose head is too slow or too long is closed; the limits on a body are the app's
(serving/server/app.py). One thread reads, ranks and writes: see docs/decisions/0006.
"""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 5.0
HEAD_BYTES = 16 * 1024
IDLE_SECONDS = 30  # how long a kept-alive connection may be silent


class HeadLimitProtocol(HttpToolsProtocol):
    """Connections whose request heads must be complete within HEAD_SECONDS and HEAD_BYTES."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timeout of the first request head."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._head_begins()

    def on_message_begin(self) -> None:
        """Start the timeout of the next request head."""
        super().on_message_begin()
        if self._head_timer is None:
            self._head_begins()

    def on_headers_complete(self) -> None:
        """Stop the timeout: the head is complete."""
        self._head_ends()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse an incomplete head that is too long."""
        if self._head_timer is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > HEAD_BYTES:
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timeout."""
        self._head_ends()
        super().connection_lost(exc)

    def _head_begins(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _head_ends(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def create_server(app: ASGIApp, *, connections: int) -> uvicorn.Server:
    """A server of an ASGI app; connections beyond `connections` at once get 503."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=HeadLimitProtocol,
            ws="none",
            lifespan="off",
            loop="auto",  # uvloop where it is installed
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            limit_concurrency=connections,
        )
    )
