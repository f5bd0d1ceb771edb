"""What happens to a server, a line per event on stderr: text for people, or JSON for machines.

    {"time": "2026-01-31T12:00:00.000Z", "level": "warning", "event": "worker_died", "pid": 7, "cause": "SIGKILL", ...}

Every line is ASCII without control characters, whatever strings it holds, and is written at once, by any process. What
reads the lines never stops the server: a line that would have to wait, or that no disk has room for, is dropped.
"""

from __future__ import annotations

import json
import logging
import os
import select
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]
LOGGER = logging.getLogger("multigate.serving")
_WARNINGS = ("worker_died", "worker_killed", "swap_failed", "label_failed", "labels_not_written")
_CUTS = (2000, 200, 20)  # characters of a string, until the line is short enough


def log_event(event: str, **fields: object) -> None:
    """Log an event; `level` is warning where a person should look."""
    LOGGER.log(logging.WARNING if event in _WARNINGS else logging.INFO, event, extra={"fields": fields})


def log_failure(event: str, error: Exception, **fields: object) -> None:
    """Log a mistake of ours, with its traceback."""
    LOGGER.error(event, exc_info=error, extra={"fields": fields})


@contextmanager
def event_lines(form: LogFormat, descriptor: int = 2) -> Iterator[None]:
    """Write events to a file descriptor while the block runs: all as JSON, or warnings and errors as text.

    They are written there alone: handlers of the root logger would write strangers' strings as they came.
    """
    handler = _LineHandler(form, descriptor)
    level, LOGGER.propagate = LOGGER.level, False
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO if form == "json" else logging.WARNING)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = True


class _LineHandler(logging.Handler):
    """Writes a line with one call, as soon as the descriptor takes it without a wait."""

    def __init__(self, form: LogFormat, descriptor: int) -> None:
        super().__init__()
        self._json = form == "json"
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or drop it."""
        line = _json_line(record) if self._json else _text_line(record)
        try:
            if self._poll.poll(0):
                os.write(self._descriptor, line)
        except OSError:
            pass  # nobody reads, or the disk is full


def _json_line(record: logging.LogRecord) -> bytes:
    """A record as JSON in at most PIPE_BUF bytes, which the system writes in one piece."""
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = {"time": moment, "level": record.levelname.lower(), "event": record.getMessage()}
    head |= {"monotonic": round(time.monotonic(), 3)}
    fields, line = _fields(record), b""
    for most in _CUTS:
        line = _ascii(head | _cut(fields, most)) + b"\n"
        if len(line) <= select.PIPE_BUF:
            break
    return line


def _text_line(record: logging.LogRecord) -> bytes:
    """A record as `multigate: event name=value ...`; a traceback follows it on lines of its own."""
    fields = _fields(record)
    traceback = str(fields.pop("traceback", ""))
    values = b"".join(b" " + name.encode() + b"=" + _ascii(_cut(value, _CUTS[0])) for name, value in fields.items())
    lines = [line.encode("unicode_escape") for line in traceback.splitlines()]
    return b"\n".join([b"multigate: " + record.getMessage().encode() + values, *lines]) + b"\n"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = dict(getattr(record, "fields", {}))
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _cut(value: Any, most: int) -> Any:
    """A string's end, where a traceback says what it is about."""
    if isinstance(value, Mapping):
        return {name: _cut(inner, most) for name, inner in value.items()}
    return value[-most:] if isinstance(value, str) else value


def _ascii(value: Any) -> bytes:
    return json.dumps(value, default=str).replace("\x7f", "\\u007f").encode()
