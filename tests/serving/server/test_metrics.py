from __future__ import annotations

import multiprocessing

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.server.counters import SharedCounters
from serving.server.metric_series import COLUMNS
from serving.server.metrics import Metrics, heartbeat, reset

SPAWN = multiprocessing.get_context("spawn")


def series(metrics, name):
    """The exposed values of the series whose names begin with a name."""
    text = metrics.exposition().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text if line.startswith(name)}


@pytest.fixture
def counters():
    """Memory for all processes."""
    return SharedCounters(COLUMNS)


@pytest.fixture
def metrics(counters):
    """The metrics of a single process."""
    return Metrics(counters, 0, {"d1": 'a "shop"'})


def work(counters, row, statuses):
    """A worker process that finishes requests with these statuses, and exits."""
    metrics = Metrics(counters, row, {})
    for status in statuses:
        metrics.request_finished(status, 0.002)
    metrics.connections(3)
    metrics.beat(77.0)


def worked(counters, row, *statuses):
    """A worker that has come and gone."""
    process = SPAWN.Process(target=work, args=(counters, row, statuses))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_counts_of_all_workers_are_summed(counters, metrics):
    """Any process shows all, those that died and their successors included, and nothing twice."""
    worked(counters, 1, 200, 418)
    assert heartbeat(counters, 1) == 77.0
    reset(counters, 1)
    worked(counters, 1, 200, 200)
    requests = series(metrics, "multigate_rank_requests_total")
    assert requests.pop('multigate_rank_requests_total{code="200"}') == 3
    assert requests.pop('multigate_rank_requests_total{code="other"}') == 1
    assert set(requests.values()) == {0}
    assert series(metrics, "multigate_connections ") == {"multigate_connections": 3}
    duration = series(metrics, "multigate_rank_request_duration_seconds")
    assert duration['multigate_rank_request_duration_seconds_count{code="200"}'] == 3
    assert duration['multigate_rank_request_duration_seconds_sum{code="200"}'] == pytest.approx(0.006)
    assert duration['multigate_rank_request_duration_seconds_bucket{code="200",le="0.001"}'] == 0
    assert duration['multigate_rank_request_duration_seconds_bucket{code="200",le="0.002"}'] == 3


def test_what_is_served_is_named(metrics):
    """By digest and name, escaped as Prometheus wants it."""
    assert series(metrics, "multigate_model_info") == {r'multigate_model_info{digest="d1",model="a \"shop\""}': 1}


def test_histograms_are_cumulative(metrics, service):
    """A bucket counts what is at most its bound; the last counts all."""
    for count in (0, 10, 11, 59):
        body = b'{"candidates": {"item_id": [%s]}}' % b",".join(b"%d" % item for item in range(count))
        metrics.ranked(service.rank(body, 0))
    candidates = series(metrics, "multigate_rank_candidates")
    assert candidates['multigate_rank_candidates_bucket{le="10.0"}'] == 2
    assert candidates['multigate_rank_candidates_bucket{le="20.0"}'] == 3
    assert candidates['multigate_rank_candidates_bucket{le="+Inf"}'] == 4
    assert candidates["multigate_rank_candidates_count"] == 4
    assert candidates["multigate_rank_candidates_sum"] == 80


def test_a_response_is_observed_by_stage(metrics, service):
    """Every stage once, and what the response lacks is counted."""
    metrics.ranked(service.rank(b'{"candidates": {"item_id": [3, 98765]}}', 0))
    assert list(series(metrics, "multigate_rank_stage_duration_seconds_count").values()) == [1.0] * 5
    assert series(metrics, "multigate_degraded_total")['multigate_degraded_total{reason="user_missing"}'] == 1
    assert series(metrics, "multigate_items_missing_total") == {'multigate_items_missing_total{action="default"}': 1}


def test_ages_of_stored_features_are_observed(metrics, service):
    """The user's, the median candidate's and the oldest; nothing of who uses nothing stored."""
    end = int(service.bundle.store.candidates.moments.as_of[0])
    metrics.ranked(service.rank(b'{"context": {"user_id": 7}, "candidates": [{"item_id": 3}]}', end + 7_200_000_000))
    metrics.ranked(service.rank(b'{"candidates": [{"item_id": 98765}]}', end))
    assert list(series(metrics, "multigate_feature_age_seconds_sum").values()) == [7200.0] * 3
    assert list(series(metrics, "multigate_feature_age_seconds_count").values()) == [1.0] * 3
    assert series(metrics, "multigate_items_stale_total") == {"multigate_items_stale_total": 0.0}


def test_the_exposition_is_read_by_prometheus_own_parser(metrics):
    """Names and types as a scraper takes them."""
    families = {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}
    assert families["multigate_rank_requests"].type == "counter"
    assert families["multigate_rank_candidates"].type == "histogram"
    assert families["multigate_connections"].type == "gauge"
