from __future__ import annotations

import json
import socket
from contextlib import contextmanager

import pytest

from rec.errors import BundleError
from serving.server.admin import AdminEndpoint, admin_pages
from serving.server.counters import SharedCounters
from serving.server.metric_series import COLUMNS
from serving.server.metrics import Metrics
from tests.serving.server.conftest import asked, head

TOKEN = "a-token-of-enough-length"
AUTHORIZED = f"authorization: Bearer {TOKEN}"


class Scripted:
    """Changes of which `good` can be promoted, where nothing was served before."""

    def promote(self, wish):
        """As its bundle says."""
        if wish.get("bundle") == "odd":
            raise BundleError("a\ud800 is no name")
        if wish.get("bundle") == "bug":
            raise RecursionError("too deep")
        if wish.get("bundle") != "good":
            raise BundleError(f"{wish.get('bundle')}: no such bundle")
        return {"digest": "d2"}

    def rollback(self, wish):
        """To nothing."""
        raise BundleError("nothing was served before")

    def status(self):
        """What is served."""
        return {"stable": "d1"}


@contextmanager
def pages(*, token=TOKEN, ready=True):
    """The port of admin pages."""
    metrics = Metrics(SharedCounters(COLUMNS), 0, {})
    endpoint = AdminEndpoint(metrics, Scripted(), ready=lambda: ready, token=token)
    with socket.create_server(("127.0.0.1", 0)) as address:
        port = address.getsockname()[1]
        with admin_pages(endpoint, address):
            yield port


def test_health_and_metrics_need_no_token():
    """As a probe has none."""
    with pages(ready=False) as port:
        assert asked(port, head("/livez", "GET"))[0] == 200
        assert asked(port, head("/readyz", "GET"))[0] == 503
        assert b"multigate_swaps_total" in asked(port, head("/metrics", "GET"))[2]
        assert asked(port, head("/v1/rank", "POST"))[0] == 404


def test_control_needs_the_token():
    """Another, none, or one in the address is not it; without a token there is no control at all."""
    with pages() as port:
        for lines in ([], ["authorization: Bearer x"], [f"authorization: {TOKEN}"]):
            assert asked(port, head(f"/v1/status?token={TOKEN}", "GET", *lines))[0] == 401
        status, _, body = asked(port, head("/v1/status", "GET", AUTHORIZED))
        assert (status, json.loads(body)) == (200, {"stable": "d1"})
        assert asked(port, head("/v1/promote", "GET", AUTHORIZED))[0] == 405
    with pages(token=None) as port:
        assert asked(port, head("/v1/status", "GET", "authorization: Bearer None"))[0] == 404


@pytest.mark.parametrize(
    ("page", "body", "status", "text"),
    [
        ("/v1/promote", b'{"bundle": "good"}', 200, "d2"),
        ("/v1/promote", b'{"bundle": "bad"}', 409, "bad: no such bundle"),
        ("/v1/promote", b'{"bundle": "odd"}', 409, "is no name"),
        ("/v1/promote", b'{"bundle": "bug"}', 500, "Internal error"),
        ("/v1/promote", b"{", 409, "expected"),
        ("/v1/promote", b"[3]", 409, "expected a JSON object"),
        ("/v1/rollback", b"", 409, "nothing was served before"),
    ],
)
def test_what_came_of_it_is_told(page, body, status, text):
    """The digest that is served, or why none was taken."""
    with pages() as port:
        answer = asked(port, head(page, "POST", AUTHORIZED, length=len(body)) + body)
    assert answer[0] == status
    assert text in answer[2].decode()
