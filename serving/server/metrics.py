"""Prometheus metrics of a server, summed over its worker processes by prometheus_client's multiprocess mode.

Every worker writes memory-mapped files of its own into a folder that all workers of one server share; a scrape of any
worker sums all files. The files of a worker that died stay, so counters never go down while the server runs. Every
series exists from the start: a label value can never come from a request.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector

from serving.online.rank import REASONS, STAGES, RankResponse

STATUS_CODES = ("200", "400", "404", "405", "408", "413", "415", "422", "500", "503", "other")
SHED_REASONS = ("queue", "receiving")
# prometheus_client takes the folder of its multiprocess mode from nowhere else, when a process first imports it
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = tuple(base * scale for scale in (1e-3, 1e-2, 1e-1, 1.0) for base in (0.5, 1.0, 2.0))
_COUNTS = (1.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)

_MetricT = TypeVar("_MetricT", bound=MetricWrapperBase)


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """Context manager: an empty temporary folder for the metrics of all processes started inside the block.

    Every server has a folder of its own, so files of earlier servers are never read.
    """
    outer = os.environ.get(FOLDER_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="multigate-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[FOLDER_VARIABLE]
            if outer is not None:
                os.environ[FOLDER_VARIABLE] = outer


class Metrics:
    """The series of one process, and their exposition summed over the processes of a folder."""

    def __init__(self, folder: Path | None, *, model: str, digest: str) -> None:
        """`folder` is that of `metrics_folder`, inside which this process was started; None for a single process."""
        registry = CollectorRegistry()

        def counter(name: str, text: str, label: str, values: Sequence[str]) -> dict[str, Counter]:
            return _series(Counter(f"multigate_{name}", text, [label], registry=registry), values)

        def seconds(name: str, text: str, label: str, values: Sequence[str]) -> dict[str, Histogram]:
            return _series(Histogram(f"multigate_{name}", text, [label], buckets=_SECONDS, registry=registry), values)

        self._requests = counter("rank_requests", "Requests to /v1/rank by status code", "code", STATUS_CODES)
        self._shed = counter("requests_shed", "Requests refused because the server was busy", "reason", SHED_REASONS)
        self._degraded = counter("degraded", "Responses that lack something", "reason", REASONS)
        self._missing = counter("items_missing", "Candidates that the store does not know", "action", ("default",))
        self._nonfinite = counter(
            "nonfinite", "Requests refused over scores that are not finite", "action", ("refuse",)
        )
        self._duration = seconds(
            "rank_request_duration_seconds", "From the first byte of a request to its response", "code", STATUS_CODES
        )
        self._stages = seconds("rank_stage_duration_seconds", "Time of a response by stage", "stage", STAGES)
        self._candidates = Histogram(
            "multigate_rank_candidates", "Candidates per ranked request", buckets=_COUNTS, registry=registry
        )
        bundle = Gauge(
            "multigate_model_info",
            "The bundle being served",
            ["model", "digest"],
            registry=registry,
            multiprocess_mode="max",
        )
        bundle.labels(model, digest).set(1)
        self._exposed = registry if folder is None else CollectorRegistry()
        if folder is not None:
            self._exposed.register(_WorkerFiles(None, str(folder)))

    def request_finished(self, status: int, seconds: float) -> None:
        """A request to /v1/rank got a response with `status`."""
        code = str(status) if str(status) in STATUS_CODES else "other"
        self._requests[code].inc()
        self._duration[code].observe(seconds)

    def ranked(self, response: RankResponse) -> None:
        """Record a response: seconds by stage, number of candidates, degradation."""
        for stage, seconds in response.seconds.items():
            self._stages[stage].observe(seconds)
        self._candidates.observe(response.candidates)
        for reason in response.degraded.reasons:
            self._degraded[reason].inc()
        self._missing["default"].inc(response.degraded.items_defaulted)

    def request_shed(self, reason: str) -> None:
        """A request was refused for a reason of SHED_REASONS."""
        self._shed[reason].inc()

    def nonfinite_refused(self) -> None:
        """A request was refused because the model gave NaN or infinity."""
        self._nonfinite["refuse"].inc()

    def exposition(self) -> bytes:
        """The Prometheus text exposition."""
        return generate_latest(self._exposed)


def _series(metric: _MetricT, labels: Sequence[str]) -> dict[str, _MetricT]:
    """The series of every label value, created at start so that each is exposed from 0 on."""
    return {label: metric.labels(label) for label in labels}


class _WorkerFiles(MultiProcessCollector):
    """The files of all workers, except those still empty of a starting worker."""

    def collect(self) -> Iterable[Metric]:
        files = sorted(str(file) for file in Path(self._path).glob("*.db") if file.stat().st_size)
        return self.merge(files, accumulate=True)
