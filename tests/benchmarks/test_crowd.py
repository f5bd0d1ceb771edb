from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import crowd
from benchmarks.speed.served import free_port
from benchmarks.strangers import HABITS, gathered
from rec.errors import BundleError
from rec.progress import Silent


def test_a_small_crowd_holds_its_connections_and_all_others_are_served(bundle):
    """A short share of `multigate bench crowd`; strangers of every habit, and each holds a descriptor of the server."""
    few = dict.fromkeys(HABITS, 10)
    result = crowd.bench(bundle=bundle, crowd=few, rate=0.2, seconds=2.0, candidates=5, seed=1, progress=Silent())
    before, among, after = result["rows"]
    assert (before.strangers, among.strangers, after.strangers) == (0, 40, 0)
    assert all(row.failed == 0 and row.offered == row.answered + row.refused for row in result["rows"])
    assert among.descriptors >= before.descriptors + 40
    assert after.descriptors <= among.descriptors - 40
    assert result["p99_ratio"] > 0


def test_strangers_who_find_no_server_are_an_error():
    """Not a measurement of nobody."""
    port = free_port()
    with (
        pytest.raises(BundleError, match=f"2 strangers could not connect to port {port}"),
        gathered(port, {"idle": 2}, patience=3.0),
    ):
        pass


def test_a_request_that_failed_is_an_error():
    """With the figures of all phases, to see in which."""
    fine = crowd.Phase(0, 0, 9, 9, 0, 0, 1.0, 2.0, 1.0, 500, 60, 0.5, 0.1)
    crowd.refuse_failed([fine])
    lost = replace(fine, strangers=40, answered=7, refused=1, failed=1)
    with pytest.raises(BundleError, match=r'crowd: 1 requests were neither answered nor refused: .*"strangers": 40'):
        crowd.refuse_failed([fine, lost])
