"""HTTP/1.1 by uvicorn and httptools, with the limits on a request's head that they leave open.

A head that takes too long, or is too long, costs its sender the connection; a body's limits are the app's
(serving/server/app.py). One thread reads, ranks and writes: see docs/decisions/0006.
"""

from __future__ import annotations

import asyncio

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.server.app import App

HEAD_SECONDS = 5.0
HEAD_BYTES = 16 * 1024
IDLE_SECONDS = 30  # a kept-alive connection may say nothing this long


class Guarded(HttpToolsProtocol):
    """Connections whose heads must come whole within HEAD_SECONDS and HEAD_BYTES."""

    _late: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection that says nothing is as slow as one that says too little."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._head_begins()

    def on_message_begin(self) -> None:
        """The first bytes of a head have come."""
        super().on_message_begin()
        if self._late is None:
            self._head_begins()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_ends()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parse, and cut a head that is not whole yet and too long already."""
        if self._late is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._late is not None and self._head_bytes > HEAD_BYTES:
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for any longer."""
        self._head_ends()
        super().connection_lost(exc)

    def _head_begins(self) -> None:
        self._head_bytes = 0
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _head_ends(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def server(app: App, *, connections: int) -> uvicorn.Server:
    """A server of an app; more than `connections` at once get 503."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Guarded,
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
