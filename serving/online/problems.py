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

from rec.errors import DataError

Problem = tuple[str, str]  # (JSON pointer, message)
_MAX_ERRORS = 10


class RequestError(DataError):
    """A request that cannot be ranked: its HTTP status, and the errors with their places."""

    def __init__(self, status: int, title: str, problems: Iterable[Problem]) -> None:
        """Every problem is (JSON pointer, message); the text of the error is their messages."""
        self.status = status
        self.title = title
        self.problems = list(problems)[:_MAX_ERRORS]
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
    """A value as errors quote it: short, and with control characters escaped."""
    return shorten(repr(value)) if not isinstance(value, dict) else "an object"


def shorten(text: str) -> str:
    """At most 60 characters of a text, printable."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:61])
    return text if len(text) <= 60 else f"{text[:57]}..."


def escape(name: str) -> str:
    """A name inside a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
