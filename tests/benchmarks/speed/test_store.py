"""A thousand requests of a shop, replayed at their timestamps; and the bench that counts them and times the store."""

from __future__ import annotations

import pytest

from benchmarks.speed import store
from rec.data.session_table import schema
from rec.progress import Silent


@pytest.mark.parametrize("more", [(), store.MORE], ids=["shop", "more"])
def test_a_thousand_requests_are_answered_as_a_build_of_the_whole_log_would(more, tmp_path):
    """A state of the beginning, fed with the rest as it comes: the same record batch, bit for bit."""
    spec = store.described(more, users=720, items=300)
    _, replayed = store.replay(spec, tmp_path, name="shop", requests=1000, progress=Silent())
    assert (replayed.requests, replayed.equal) == (1000, 1000)


def test_a_store_that_missed_something_is_noticed(tmp_path, monkeypatch):
    """Fed with nothing, it says something else of most requests."""
    monkeypatch.setattr(store.FeatureStore, "feed", lambda self, rows: 0)
    spec = store.described((), users=100, items=60)
    _, replayed = store.replay(spec, tmp_path, name="shop", requests=50, progress=Silent())
    assert replayed.equal < replayed.requests / 2


def test_the_bench_times_every_size_with_both_sets_of_features():
    """A row per size, and how the rows compared."""
    result = store.bench(users=60, items=40, requests=5, sizes=(3, 50), repeats=2, progress=Silent())
    assert [(row.features, row.candidates) for row in result["hydrated"]] == [
        ("shop", 3), ("shop", 50), ("more", 3), ("more", 50)
    ]  # fmt: skip
    assert all(0 < row.median_ms <= row.p99_ms for row in result["hydrated"])
    assert all(replay.equal == replay.requests == 5 for replay in result["replayed"])


def test_more_features_are_of_the_shop_and_of_every_kind_the_store_keeps():
    """Windows, pairs, last timestamps, gaps and sessions."""
    spec = store.described(store.MORE, users=60, items=40)
    makes = {getattr(feature, "make", "") for _, features in spec.sides() for feature in features.values()}
    assert makes >= {"count", "rate", "since", "history", "gaps", "session_requests", "session_seconds", "age"}
    assert len(schema(spec).field("context").type) > len(
        schema(store.described((), users=60, items=40)).field("context").type
    )
