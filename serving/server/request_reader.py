"""Requests from the bytes of a connection, by httptools; what a client may send is bounded in every part.

A head and the trailers in bytes and fields, a body in bytes and in bytes on the wire, and requests that are sent ahead
of their answers in number. A request that breaks a bound is answered, in its turn, and nothing after it is read.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import Protocol

import httptools

from serving.server.messages import HttpRequest, Reply, problem_reply
from serving.server.settings import ServerSettings

_OFFER = (b"connection", b"upgrade", b"http2-settings")
_FIELDS = 100  # of a head, or of trailers
_FRAMING = 1 << 16  # bytes that the framing of a body in chunks may add, beside an eighth of the body's own limit


class Owner(Protocol):
    """The connection that a reader reads for."""

    def head_begins(self) -> None:
        """The first bytes of a request have come."""
        ...

    def body_begins(self, request: HttpRequest, *, expects: bool) -> Reply | None:
        """A head is whole: an answer that needs no body, or None; `expects` of a client that waits to send it."""
        ...

    def body_grows(self, size: int) -> None:
        """So many more bytes of bodies are held; fewer where it is negative."""
        ...


class RequestReader:
    """Reads the requests of one connection; whole ones wait in `waiting`, the one that is arriving is `arriving`."""

    def __init__(self, settings: ServerSettings, owner: Owner) -> None:
        """`owner` is told of every step."""
        self.waiting: deque[HttpRequest] = deque()
        self.arriving: HttpRequest | None = None
        self.in_head = True
        self.deaf = False  # nothing more is read
        self._settings = settings
        self._owner = owner
        self._parser = httptools.HttpRequestParser(self)
        self._offered = False  # the head that has come offers to upgrade
        self._clear()

    def feed(self, data: bytes) -> None:
        """Read what a client has sent."""
        self._count(len(data))
        before, most = self.arriving, self._settings.head_bytes
        if before is None and len(data) > most and data.find(b"\r\n\r\n", 0, most) < 0:
            self.refuse(self._head_too_large())
            return
        self._parse(data)
        if before is None and self.arriving is not None and not self.waiting:
            self._count(len(data))  # all of it belongs to the request that has begun
        self._bound()

    def refuse(self, reply: Reply) -> None:
        """Answer the request that is arriving, after those before it, and read nothing more."""
        if self.deaf:
            return
        request = self.arriving or HttpRequest(b"", b"", {}, perf_counter())
        self.stop()
        request.early, request.keep_alive = reply, False
        self.waiting.append(request)

    def stop(self) -> None:
        """Read nothing more, and forget what is arriving."""
        self.deaf = True
        self._forget_body()
        self.arriving = None

    def _parse(self, data: bytes) -> None:
        while data and not self.deaf:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                # the parser stops before the body; an offer of another protocol may be ignored (RFC 9110, 7.8)
                data = self._without_offer() + data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError:
                self.refuse(problem_reply(400, "Not an HTTP/1.1 request", close=True))
                return

    def _without_offer(self) -> bytes:
        """The head of a request that offered to upgrade, as it would be without the offer."""
        request, self._offered = self.arriving, False
        if request is None:
            return b""
        headers = [(name, value) for name, value in request.headers.items() if name not in _OFFER]
        if b"close" in request.headers.get(b"connection", b"").lower():
            headers.append((b"connection", b"close"))
        first = b"%s %s HTTP/%s" % (self._parser.get_method(), request.path, self._parser.get_http_version().encode())
        return b"\r\n".join([first, *(b"%s: %s" % header for header in headers), b"", b""])

    def _count(self, size: int) -> None:
        """Bytes on the wire, so that folding, framing and extensions of chunks count too."""
        if self.arriving is not None and self.in_head:
            self._head_bytes += size
        elif self.arriving is not None:
            self._wire_bytes += size

    def _bound(self) -> None:
        most = self._settings.max_body
        if self.deaf or self.arriving is None:
            return
        if self.in_head and self._head_bytes > self._settings.head_bytes:
            self.refuse(self._head_too_large())
        elif not self.in_head and self._wire_bytes > most + most // 8 + _FRAMING:
            self.refuse(self._body_too_large())

    def on_message_begin(self) -> None:
        """A request begins, on an idle connection or behind requests that wait."""
        if self.deaf:
            return
        if len(self.waiting) >= self._settings.pipelined:
            self.refuse(problem_reply(429, "Too many requests sent ahead on one connection", close=True))
            return
        self._clear()
        self.arriving = HttpRequest(b"", b"", {}, perf_counter())
        self._owner.head_begins()

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._field(len(url))
        if self.arriving is not None:
            self.arriving.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or, after the body, a trailer, which nobody reads."""
        self._fields += 1
        self._field(len(name) + len(value) + 4)
        if self.arriving is not None and self.in_head:
            headers, name, value = self.arriving.headers, name.lower(), value.rstrip(b" \t")
            headers[name] = value if name not in headers else headers[name] + b", " + value

    def on_headers_complete(self) -> None:
        """The head is whole: refused at once, or its body is received."""
        request = self.arriving
        if self.deaf or request is None:
            return
        if self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT":
            self._offered = True
            return
        request.method = self._parser.get_method()
        request.path = request.path.split(b"?", 1)[0]
        request.keep_alive = self._parser.should_keep_alive()
        host = request.headers.get(b"host", b" " if self._parser.get_http_version() == "1.1" else b"")
        if b" " in host:  # several are joined with one (RFC 9112, 3.2)
            self.refuse(problem_reply(400, "Host must be given once", close=True))
            return
        self.in_head = False
        self._field_bytes = self._fields = 0  # trailers are counted anew
        length = request.headers.get(b"content-length", b"0")
        encoding = request.headers.get(b"transfer-encoding")
        coming = encoding is not None or int(length) > 0
        expects = coming and request.headers.get(b"expect", b"").lower() == b"100-continue"
        early = self._early(length, encoding)
        if early is None:
            early = self._owner.body_begins(request, expects=expects)
        if early is not None and coming:
            self.refuse(early)
        else:
            request.early = early

    def _early(self, length: bytes, encoding: bytes | None) -> Reply | None:
        if encoding is not None and encoding.lower() != b"chunked":
            return problem_reply(501, "Transfer-Encoding must be chunked", close=True)
        return self._body_too_large() if int(length) > self._settings.max_body else None

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self.deaf:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._settings.max_body:
            self._body_bytes -= len(body)
            self.refuse(self._body_too_large())
            return
        self._parts.append(body)
        self._owner.body_grows(len(body))

    def on_message_complete(self) -> None:
        """The request is whole."""
        request = self.arriving
        if self.deaf or request is None or self._offered:
            return
        request.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._forget_body()
        self.arriving = None
        self.waiting.append(request)

    def _field(self, size: int) -> None:
        self._field_bytes += size
        if self._fields > _FIELDS or self._field_bytes > self._settings.head_bytes:
            self.refuse(self._head_too_large())

    def _clear(self) -> None:
        self._parts: list[bytes] = []
        self.in_head = True
        self._head_bytes = self._field_bytes = self._fields = self._wire_bytes = self._body_bytes = 0

    def _forget_body(self) -> None:
        if self._body_bytes:
            self._owner.body_grows(-self._body_bytes)
        self._parts, self._body_bytes = [], 0

    def _head_too_large(self) -> Reply:
        return problem_reply(431, f"Head is larger than {self._settings.head_bytes} bytes", close=True)

    def _body_too_large(self) -> Reply:
        return problem_reply(413, f"Body is larger than {self._settings.max_body} bytes", close=True)
