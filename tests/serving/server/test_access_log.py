from __future__ import annotations

import json

import pytest

from serving.online.rank import STAGES
from serving.server.access_log import AccessLog
from tests.serving.conftest import IDS, items
from tests.serving.server.conftest import asked, head, rank, running

SERVED = {"model": "shop", "digest": "9b1f", "generation": 2}


@pytest.fixture
def lines(caplog):
    """The fields of the request lines so far."""
    caplog.set_level("INFO", "multigate.serving")
    return lambda: [record.fields for record in caplog.records if record.getMessage() == "request"]


def test_a_request_is_a_line(service, lines):
    """How it fared, by stage, and what answered; of what was asked nothing but the request's own id."""
    body = json.dumps({"request_id": "r1", **IDS, "candidates": items(3, 4)}).encode()
    with running(service, access=AccessLog(1.0, seed=0, **SERVED)) as shop:
        assert asked(shop.port, rank(body))[0] == 200
        assert asked(shop.port, rank(b'{"candidates": "secret"}'))[0] == 422
        assert asked(shop.port, head(length=5_000_000))[0] == 413
        shop.until('rank_requests_total{code="413"}', 1)
    ranked, refused, cut = lines()
    assert set(ranked) == {"status", "us", "request_id", "candidates", "degraded", *SERVED}
    assert set(ranked["us"]) == {"total", *STAGES}
    assert (ranked["status"], ranked["request_id"], ranked["candidates"], ranked["generation"]) == (200, "r1", 2, 2)
    assert sum(ranked["us"][stage] for stage in STAGES) <= ranked["us"]["total"] + len(STAGES)
    assert (refused["status"], cut["status"]) == (422, 413)
    assert "secret" not in str(refused)


def test_a_share_of_requests_is_logged(lines):
    """About as many as were asked for, chosen at random; none where the share is 0."""
    for share, low, high in [(0.0, 0, 0), (0.1, 140, 270), (1.0, 2000, 2000)]:
        before = len(lines())
        log = AccessLog(share, seed=3, **SERVED)
        for _ in range(2000):
            log.finished(200, 0.001, None)
        assert low <= len(lines()) - before <= high
