from __future__ import annotations

import shutil

from serving.server.metrics import Metrics


def lines(metrics, name):
    """The exposed lines of a series."""
    return [line for line in metrics.text().decode().splitlines() if line.startswith(name)]


def test_counts_of_all_workers_are_summed(tmp_path):
    """A scrape of one worker tells of all, those that died included."""
    one = Metrics(tmp_path, model="shop", digest="d1")
    one.finished(200, 0.002)
    one.finished(418, 0.002)
    shutil.copy(next(tmp_path.glob("*.f64")), tmp_path / "another.f64")
    one.finished(200, 0.002)
    assert 'multigate_rank_requests_total{code="200"} 3.0' in lines(one, "multigate_rank_requests_total")
    assert 'multigate_rank_requests_total{code="other"} 2.0' in lines(one, "multigate_rank_requests_total")


def test_histograms_are_cumulative(tmp_path):
    """A bucket counts what is at most its bound; the last counts all."""
    metrics = Metrics(tmp_path, model="shop", digest="d1")
    for candidates in (0, 50, 51, 1_000_000):
        metrics.observe("multigate_rank_candidates", "", candidates)
    found = dict(line.rsplit(" ", 1) for line in lines(metrics, "multigate_rank_candidates"))
    assert found['multigate_rank_candidates_bucket{le="50"}'] == "2.0"
    assert found['multigate_rank_candidates_bucket{le="100"}'] == "3.0"
    assert found['multigate_rank_candidates_bucket{le="+Inf"}'] == "4.0"
    assert found["multigate_rank_candidates_sum"] == "1.000101e+06"


def test_an_answer_tells_where_its_time_went(tmp_path, ranker):
    """Every stage is observed once, and what was lacking is counted."""
    metrics = Metrics(tmp_path, model="shop", digest="d1")
    metrics.answered(ranker.answer(b'{"candidates": {"item_id": [3, 98765]}}', 0))
    found = lines(metrics, "multigate_rank_stage_duration_seconds_count")
    assert [line.split(" ")[1] for line in found] == ["1.0"] * 5
    assert 'multigate_degraded_total{reason="user_missing"} 1.0' in lines(metrics, "multigate_degraded_total")
    assert 'multigate_items_missing_total{action="default"} 1.0' in lines(metrics, "multigate_items_missing_total")


def test_the_bundle_is_named(tmp_path):
    """So that a dashboard can tell one from the next."""
    info = lines(Metrics(tmp_path, model="shop", digest="d1"), "multigate_model_info")
    assert info == ['multigate_model_info{digest="d1",model="shop"} 1.0']
