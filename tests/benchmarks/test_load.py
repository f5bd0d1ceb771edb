from __future__ import annotations

import asyncio

from benchmarks import load
from benchmarks.speed.http_client import Client
from rec.progress import Silent


def test_load_tells_answers_from_refusals_and_both_from_failures(bundle):
    """A short share of `multigate bench load`: every request that was offered is accounted for, on both kinds."""
    result = load.bench(
        bundle=bundle,
        rates=[0.3],
        seconds=1.0,
        candidates=5,
        connections=["kept", "new"],
        workers=1,
        seed=1,
        progress=Silent(),
    )
    assert [(row.connections, row.failed) for row in result["rows"]] == [("kept", 0), ("new", 0)]
    assert all(row.offered == row.answered + row.refused > 0 for row in result["rows"])
    assert result["peak_per_second"] > 1
    assert all(min(row.server_cores, row.client_cores) > 0 for row in result["rows"])
    assert min(result["peak_cores"]) > 0


def test_a_client_without_a_server_has_no_answer():
    """Status 0, on a kept connection as on a new one."""
    for kept in (True, False):
        assert asyncio.run(Client(port=9, kept=kept).ask(b"GET / HTTP/1.1\r\n\r\n")) == 0
