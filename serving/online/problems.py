"""Error responses: RFC 9457 problems, with a message and a JSON pointer for every mistake in a request.

    {"type": "about:blank", "status": 422, "title": "Request does not fit the spec",
     "detail": "context.user_id: expected an id, got 'bob'",
     "errors": [{"pointer": "/context/user_id", "message": "context.user_id: expected an id, got 'bob'"}]}

A problem never holds a path, a stack trace or a value of another request.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from rec.errors import DataError, nearest

Problem = tuple[str, str]  # (JSON pointer, message)
MAX_ERRORS = 10
_SHOWN = 60  # characters of a value or a name in an error
_NAME = 64  # characters of a name in a pointer, or compared with the names of a spec


class RequestError(DataError):
    """A request that cannot be ranked: its HTTP status, and the errors with their places."""

    def __init__(self, status: int, title: str, problems: Iterable[Problem]) -> None:
        """Every problem is (JSON pointer, message); the text of the error is their messages."""
        self.status = status
        self.title = title
        self.problems = list(problems)[:MAX_ERRORS]
        super().__init__("\n".join(message for _, message in self.problems) or title)


def problem(status: int, title: str, problems: Iterable[Problem], **extra: str) -> bytes:
    """An RFC 9457 body.

    >>> problem(404, "No such page", [])
    b'{"type":"about:blank","status":404,"title":"No such page","detail":"No such page","errors":[]}'
    """
    errors = [{"pointer": pointer, "message": message} for pointer, message in problems]
    detail = errors[0]["message"] if errors else title
    if len(errors) > 1:
        detail = f"{len(errors)} problems, the first: {detail}"
    body = {"type": "about:blank", "status": status, "title": title, "detail": detail, "errors": errors}
    return msgspec.json.encode(body | extra)


def display(value: Any) -> str:
    """A value as errors quote it: short, with control characters escaped, and as cheap as it is short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    if isinstance(value, str):
        return shorten(repr(value[:_SHOWN]))
    if isinstance(value, list):
        return f"a list of {len(value)}" if any(isinstance(inner, list | dict) for inner in value) else _list(value)
    return shorten(repr(value))


def _list(values: list[Any]) -> str:
    shown = ", ".join(display(value) for value in values[:_SHOWN])
    return shorten(f"[{shown}]")


def shorten(text: str) -> str:
    """At most 60 characters of a text, printable."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def suggestion(name: str, known: Iterable[str]) -> str:
    """`nearest`, but nothing for a name that is longer than names are: the comparison is quadratic."""
    return nearest(name, known) if len(name) <= _NAME else ""


def escape(name: str) -> str:
    """A name inside a JSON pointer (RFC 6901); of a long name, its beginning.

    >>> escape("a/b")
    'a~1b'
    """
    return name[:_NAME].replace("~", "~0").replace("/", "~1")
