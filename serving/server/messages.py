"""Requests and answers of HTTP/1.1 as values, and the bytes of an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus

from serving.online.problems import Problem, problem

JSON, PROBLEM, TEXT = b"application/json", b"application/problem+json", b"text/plain; charset=utf-8"
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


@dataclass(slots=True)
class HttpRequest:
    """A request: `arrived` is the moment of its first byte (perf_counter); header names are in lower case.

    `gone` says whether its client has hung up, `answer` sends it a reply; each is called at most once, by the endpoint.
    """

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    arrived: float
    body: bytes = b""
    early: Reply | None = None
    keep_alive: bool = True
    gone: Callable[[], bool] = lambda: False
    answer: Callable[[Reply], None] = lambda _reply: None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a request; with `close` the connection ends after it."""

    status: int
    body: bytes
    kind: bytes = TEXT
    headers: tuple[tuple[bytes, bytes], ...] = ()
    close: bool = False


def problem_reply(
    status: int,
    title: str,
    problems: Iterable[Problem] = (),
    *,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    close: bool = False,
    **extra: str,
) -> Reply:
    """An RFC 9457 problem as an answer."""
    return Reply(status, problem(status, title, problems, **extra), PROBLEM, headers, close)


def too_many(after: int) -> Reply:
    """503: more requests than can be ranked in time; the client should come again in `after` seconds."""
    return problem_reply(503, "Too many requests at once", headers=((b"retry-after", b"%d" % after),))


def encoded(reply: Reply, date: bytes, *, keep_alive: bool, body: bool) -> bytes:
    """The bytes of an answer; without `body` those of its head, as HEAD asks for.

    >>> encoded(Reply(200, b"ok"), b"now", keep_alive=False, body=True).split(bytes((13, 10)))[0]
    b'HTTP/1.1 200 OK'
    """
    lines = [
        b"HTTP/1.1 %d %s" % (reply.status, _REASONS.get(reply.status, b"Unknown")),
        b"date: " + date,
        b"content-type: " + reply.kind,
        b"content-length: %d" % len(reply.body),
        *(b"%s: %s" % header for header in reply.headers),
    ]
    if not keep_alive:
        lines.append(b"connection: close")
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    return head + reply.body if body else head
