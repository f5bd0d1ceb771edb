from __future__ import annotations

from serving.server.counters import SharedCounters
from serving.server.metric_series import COLUMNS
from serving.server.metrics import Metrics
from serving.server.refusals import RefusalLog


def test_a_flood_of_refusals_is_a_line_now_and_then():
    """With how many came of each kind since the last, of all processes; what is no refusal is in none."""
    counters, lines = SharedCounters(COLUMNS), []
    ours, worker = Metrics(counters, 0, {}), Metrics(counters, 1, {})
    log = RefusalLog(ours, lambda event, **fields: lines.append({"event": event, **fields}))
    log.tick(0.0)
    for moment in range(1, 100):
        worker.request_shed("queue")
        worker.answered(503)
        worker.answered(200)
        worker.connection_dropped("timeout", "idle")
        log.tick(moment / 10)
    assert lines == []
    worker.connection_dropped("timeout", "body")
    log.tick(10.0)
    expected = {"shed": {"queue": 99}, "status": {"503": 99}, "connections": {"timeout body": 1}}
    assert lines == [{"event": "refused", "seconds": 10.0, **expected}]
    log.tick(20.0)
    ours.answered(404)
    log.flush(21.0)
    assert lines[1:] == [{"event": "refused", "seconds": 1.0, "status": {"404": 1}}]
