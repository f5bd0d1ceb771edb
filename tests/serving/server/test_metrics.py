from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from serving.server.metrics import FOLDER_VARIABLE, Metrics, metrics_folder

SPAWN = multiprocessing.get_context("spawn")


def series(metrics, name):
    """The exposed values of the series whose names begin with a name."""
    text = metrics.exposition().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text if line.startswith(name)}


@pytest.fixture
def metrics():
    """The metrics of a single process."""
    return Metrics(None, model="shop", digest="d1")


def work(folder, statuses):
    """A worker process that finishes requests with these statuses, and exits."""
    metrics = Metrics(folder, model="shop", digest="d1")
    for status in statuses:
        metrics.request_finished(status, 0.002)


def worked(folder, *statuses):
    """A worker that has come and gone."""
    process = SPAWN.Process(target=work, args=(folder, statuses))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_counts_of_all_workers_are_summed():
    """A scrape of any worker shows all, those that died included, in every series and nothing twice."""
    with metrics_folder() as folder:
        worked(folder, 200, 418)
        worked(folder, 200, 200)
        metrics = Metrics(folder, model="shop", digest="d1")
        requests = series(metrics, "multigate_rank_requests_total")
        assert requests.pop('multigate_rank_requests_total{code="200"}') == 3
        assert requests.pop('multigate_rank_requests_total{code="other"}') == 1
        assert set(requests.values()) == {0}
        duration = series(metrics, "multigate_rank_request_duration_seconds")
        assert duration['multigate_rank_request_duration_seconds_count{code="200"}'] == 3
        assert duration['multigate_rank_request_duration_seconds_sum{code="200"}'] == pytest.approx(0.006)
        assert duration['multigate_rank_request_duration_seconds_bucket{code="200",le="0.001"}'] == 0
        assert duration['multigate_rank_request_duration_seconds_bucket{code="200",le="0.002"}'] == 3
        info = series(metrics, "multigate_model_info")
        assert info == {'multigate_model_info{digest="d1",model="shop"}': 1}


def test_workers_expose_the_same_series_as_a_single_process(metrics):
    """Names and labels do not depend on how many processes there are; only moments of creation are not shared."""
    with metrics_folder() as folder:
        worked(folder)
        of_workers = series(Metrics(folder, model="shop", digest="d1"), "multigate")
    assert set(of_workers) == {name for name in series(metrics, "multigate") if "_created" not in name}


def test_a_file_that_a_worker_has_only_just_created_is_no_error():
    """A scrape may come between the creation of a file and its first byte."""
    with metrics_folder() as folder:
        worked(folder, 200)
        (folder / "counter_0.db").touch()
        requests = series(Metrics(folder, model="shop", digest="d1"), "multigate_rank_requests_total")
    assert requests['multigate_rank_requests_total{code="200"}'] == 1


def test_nothing_of_an_earlier_server_is_counted(tmp_path, monkeypatch):
    """Every server has an empty folder of its own, whatever its environment says, and leaves none behind."""
    with metrics_folder() as earlier:
        worked(earlier, 200)
        for file in earlier.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert not earlier.exists()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with metrics_folder() as folder:
        worked(folder, 200)
        requests = series(Metrics(folder, model="shop", digest="d1"), "multigate_rank_requests_total")
        assert requests['multigate_rank_requests_total{code="200"}'] == 1
    assert Path(os.environ[FOLDER_VARIABLE]) == tmp_path


def test_histograms_are_cumulative(metrics, service):
    """A bucket counts what is at most its bound; the last counts all."""
    for count in (0, 10, 11, 59):
        body = b'{"candidates": {"item_id": [%s]}}' % b",".join(b"%d" % item for item in range(count))
        metrics.ranked(service.rank(body, 0))
    candidates = series(metrics, "multigate_rank_candidates")
    assert candidates['multigate_rank_candidates_bucket{le="10.0"}'] == 2
    assert candidates['multigate_rank_candidates_bucket{le="20.0"}'] == 3
    assert candidates['multigate_rank_candidates_bucket{le="+Inf"}'] == 4
    assert candidates["multigate_rank_candidates_sum"] == 80


def test_a_response_is_observed_by_stage(metrics, service):
    """Every stage once, and what the response lacks is counted."""
    metrics.ranked(service.rank(b'{"candidates": {"item_id": [3, 98765]}}', 0))
    assert list(series(metrics, "multigate_rank_stage_duration_seconds_count").values()) == [1.0] * 5
    assert series(metrics, "multigate_degraded_total")['multigate_degraded_total{reason="user_missing"}'] == 1
    assert series(metrics, "multigate_items_missing_total") == {'multigate_items_missing_total{action="default"}': 1}
