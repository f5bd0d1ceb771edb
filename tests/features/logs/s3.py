"""A server that speaks as much of S3 as readers ask for: objects of buckets, whole or in ranges, and lists of them.

It refuses requests without credentials for a bucket that is not public, and may be told to misbehave.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 3  # keys of a page of a list, so that there are several


class Server(ThreadingHTTPServer):
    """Buckets of objects, `{bucket: {key: (bytes, time)}}`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.buckets: dict[str, dict[str, tuple[bytes, datetime]]] = {}
        self.public: set[str] = set()
        self.asked: list[str] = []
        self.before: Callable[[str, str], None] = lambda verb, key: None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """An object, written now."""
        self.buckets.setdefault(bucket, {})[key] = data, datetime.now(UTC)

    def upload(self, folder: Path, bucket: str, prefix: str = "") -> None:
        """Every file of a folder."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(bucket, f"{prefix}{file.relative_to(folder).as_posix()}", file.read_bytes())


class Handler(BaseHTTPRequestHandler):
    """One request of a client of S3."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format, *args):  # noqa: A002
        """Nothing: tests look at `asked`."""

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.before(self.command, key)
        if bucket not in self.server.buckets:
            return self._refuse(404, "NoSuchBucket")
        if bucket not in self.server.public and "Authorization" not in self.headers:
            return self._refuse(403, "AccessDenied")
        if not key:
            return self._list(bucket, {name: value[0] for name, value in parse_qs(url.query).items()})
        if key not in self.server.buckets[bucket]:
            return self._refuse(404, "NoSuchKey")
        return self._object(*self.server.buckets[bucket][key])

    def _object(self, data: bytes, at: datetime):
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(span[1]), int(span[2] or len(data) - 1)) if span else (0, len(data) - 1)
        body = data[first : last + 1]
        more = {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{len(data)}"} if span else {}
        tag = hashlib.md5(data).hexdigest()
        self._send(
            206 if span else 200, body, {**more, "Last-Modified": format_datetime(at, usegmt=True), "ETag": f'"{tag}"'}
        )

    def _list(self, bucket: str, options: dict[str, str]):
        prefix, mark = options.get("prefix", ""), options.get("delimiter")
        after = options.get("continuation-token", options.get("start-after", ""))
        entries: dict[str, str] = {}
        for key, (data, at) in sorted(self.server.buckets[bucket].items()):
            if not key.startswith(prefix):
                continue
            rest = key.removeprefix(prefix)
            if mark and mark in rest:
                folder = prefix + rest.partition(mark)[0] + mark
                entries[folder] = f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            else:
                entries[key] = (
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size>"
                    f"<LastModified>{at:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
                    f"<ETag>&quot;{hashlib.md5(data).hexdigest()}&quot;</ETag></Contents>"
                )
        names = [name for name in sorted(entries) if name > after]
        page = names[: min(PAGE, int(options.get("max-keys", PAGE)))]
        more = len(page) < len(names)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        text = "".join(entries[name] for name in page)
        self._send(
            200,
            f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>{bucket}</Name><KeyCount>{len(page)}'
            f"</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>{token}{text}</ListBucketResult>".encode(),
            {"Content-Type": "application/xml"},
        )

    def _refuse(self, status: int, code: str):
        self._send(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(), {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving(monkeypatch) -> Iterator[Server]:
    """A server, and an environment in which it is what S3 is."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    said = {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ACCESS_KEY_ID": "who",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-environment",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
