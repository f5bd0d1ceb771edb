"""The control pipe between supervisor and worker: orders one way, news the other, JSON in both.

    supervisor -> worker    "serve"  accept connections        "drain"  /readyz says 503, answers end their connection
                            "stop"   others accept: finish, leave
                            "finish" nobody else accepts: let in whoever has come, finish, leave
                            {"share": 0.05, ...}  where requests go, see routes.py
    worker -> supervisor    {"warm": golden difference, "keyed": ..., "outputs": [...]}  {"failed": reason}
                            {"serving": true}  {"closed": true}

The end of the pipe is an order too. When the supervisor dies, however it dies, the system closes its end; every worker
reads that and leaves, so there are no orphans. A thread reads, so that a busy or stuck event loop is no excuse.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import msgspec

ORPHAN_SECONDS = 1.0  # for a worker to finish what it is doing when its supervisor is gone
ORDERS = ("serve", "drain", "stop", "finish")


def send(pipe: Connection, message: Any) -> None:
    """Send a message; nothing happens if nobody is there to read it."""
    with suppress(OSError):
        pipe.send_bytes(msgspec.json.encode(message))


def received(pipe: Connection) -> list[Any]:
    """The messages that have come, without waiting for more; EOFError at the end of the pipe is no message."""
    messages = []
    with suppress(OSError, EOFError):
        while pipe.poll():
            messages.append(msgspec.json.decode(pipe.recv_bytes()))
    return messages


class Control:
    """The worker's end of the pipe, read by a thread from the first moment of the process."""

    def __init__(self, pipe: Connection) -> None:
        """Orders wait until somebody obeys."""
        self.pipe = pipe
        self._orders: list[Any] = []
        self._obey: Callable[[Any], object] | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True, name="control").start()

    def obeyed_by(self, obey: Callable[[Any], object]) -> None:
        """Call `obey`, from the reading thread, with every order, those of before first."""
        with self._lock:
            self._obey = obey
            orders, self._orders = self._orders, []
        for order in orders:
            obey(order)

    def _read(self) -> None:
        try:
            while True:
                self._order(msgspec.json.decode(self.pipe.recv_bytes()))
        except (EOFError, OSError):
            pass
        if self._obey is None:
            os._exit(1)
        threading.Timer(ORPHAN_SECONDS, os._exit, (1,)).start()
        self._order("stop")

    def _order(self, order: Any) -> None:
        with self._lock:
            if self._obey is None:
                self._orders.append(order)
                return
        self._obey(order)
