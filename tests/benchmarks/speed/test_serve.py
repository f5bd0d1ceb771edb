from __future__ import annotations

import pytest

from benchmarks.speed.serve import bench, body_of
from rec.errors import BundleError
from rec.progress import Silent
from serving.bundle import load


def test_every_depth_is_measured_at_every_size(bundle):
    """Median and p99 of run, scorer, answer and HTTP, and the whole over run."""
    result = bench(bundle=bundle, sizes=(1, 20), repeats=10, progress=Silent())
    assert [row["candidates"] for row in result["rows"]] == [1, 20]
    for row in result["rows"]:
        assert all(0 < row[depth]["median"] <= row[depth]["p99"] for depth in ("run", "score", "answer", "http"))
        assert row["http"]["median"] >= row["run"]["median"]
        assert row["http/run"] == pytest.approx(row["http"]["median"] / row["run"]["median"], abs=0.01)


def test_a_store_with_too_few_items_is_an_error(bundle):
    """Candidates of a request are distinct."""
    with pytest.raises(BundleError, match=r"100000 candidates asked for, the store knows \d+"):
        body_of(load(bundle), 100_000)
