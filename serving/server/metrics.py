"""What a server has done, for Prometheus, right with any number of worker processes.

Every worker adds to float64 cells of a small file of its own in a folder they share; a scrape of any worker sums all
files. Nothing is sent, no lock is held, and the counts of a worker that died stay, so counters never run backwards.
(prometheus-client's own multiprocess mode is switched by an environment variable before it is first imported; here
the set of series is fixed, so a flat array does, and a label value can never come from a request.)
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.online.rank import REASONS, STAGES, Answer

CODES = ("200", "400", "404", "405", "408", "413", "415", "422", "500", "503", "other")
SHED = ("queue", "receiving", "draining")
_SECONDS = tuple(base * scale for scale in (1e-3, 1e-2, 1e-1, 1.0) for base in (0.5, 1.0, 2.0))
_COUNTS = (1.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)

# name, help, label and its values
_COUNTERS: tuple[tuple[str, str, str, Sequence[str]], ...] = (
    ("multigate_rank_requests", "Requests to /v1/rank by status code", "code", CODES),
    ("multigate_requests_shed", "Requests refused because the server was busy or stopping", "reason", SHED),
    ("multigate_degraded", "Answers that lack something", "reason", REASONS),
    ("multigate_items_missing", "Candidates that the store does not know", "action", ("default",)),
    ("multigate_nonfinite", "Requests refused because a score was not finite", "action", ("refuse",)),
)
_HISTOGRAMS: tuple[tuple[str, str, str, Sequence[str], Sequence[float]], ...] = (
    ("multigate_rank_request_duration_seconds", "From the first byte to the answer", "code", CODES, _SECONDS),
    ("multigate_rank_stage_duration_seconds", "Where the time of an answer goes", "stage", STAGES, _SECONDS),
    ("multigate_rank_candidates", "Candidates per answered request", "", ("",), _COUNTS),
)


class Metrics:
    """The cells of one worker, and the sum over all workers of its folder."""

    def __init__(self, folder: Path, *, model: str, digest: str) -> None:
        """A file for this process is made in `folder`, which all workers of one server share."""
        self._folder = folder
        self._info = {"model": model, "digest": digest}
        self._counter: dict[tuple[str, str], int] = {}
        self._histogram: dict[tuple[str, str], tuple[int, Sequence[float]]] = {}
        size = self._lay_out()
        path = folder / f"{os.getpid()}.f64"
        with path.open("w+b") as file:
            file.truncate(8 * size)
            self._cells = memoryview(mmap.mmap(file.fileno(), 8 * size)).cast("d")

    def count(self, name: str, label: str, by: float = 1.0) -> None:
        """Add to a counter."""
        self._cells[self._counter[name, label]] += by

    def observe(self, name: str, label: str, value: float) -> None:
        """Add an observation to a histogram."""
        start, bounds = self._histogram[name, label]
        self._cells[start + bisect_left(bounds, value)] += 1.0
        self._cells[start + len(bounds) + 1] += value

    def finished(self, status: int, seconds: float) -> None:
        """A request to /v1/rank was answered with `status`."""
        code = str(status) if str(status) in CODES else "other"
        self.count("multigate_rank_requests", code)
        self.observe("multigate_rank_request_duration_seconds", code, seconds)

    def answered(self, answer: Answer) -> None:
        """What a ranked answer says about itself."""
        for stage, seconds in answer.seconds.items():
            self.observe("multigate_rank_stage_duration_seconds", stage, seconds)
        self.observe("multigate_rank_candidates", "", answer.candidates)
        for reason in answer.degraded.reasons:
            self.count("multigate_degraded", reason)
        self.count("multigate_items_missing", "default", answer.degraded.items_defaulted)

    def text(self) -> bytes:
        """The exposition of the sum over all workers."""
        registry = CollectorRegistry()
        registry.register(_Summed(self))
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Every series, summed over the files of the folder."""
        cells = self._total()
        for name, text, label, values in _COUNTERS:
            family = CounterMetricFamily(name, text, labels=[label])
            for value in values:
                family.add_metric([value], cells[self._counter[name, value]])
            yield family
        for name, text, label, values, _ in _HISTOGRAMS:
            family = HistogramMetricFamily(name, text, labels=[label] if label else [])
            for value in values:
                buckets, total = self._buckets(cells, name, value)
                family.add_metric([value] if label else [], buckets, total)
            yield family
        info = GaugeMetricFamily("multigate_model_info", "The bundle being served", labels=list(self._info))
        info.add_metric(list(self._info.values()), 1.0)
        yield info

    def _lay_out(self) -> int:
        size = 0
        for name, _, _, values in _COUNTERS:
            for value in values:
                self._counter[name, value] = size
                size += 1
        for name, _, _, values, bounds in _HISTOGRAMS:
            for value in values:
                self._histogram[name, value] = (size, bounds)
                size += len(bounds) + 2  # the bucket above the last bound, and the sum
        return size

    def _total(self) -> np.ndarray:
        files = sorted(self._folder.glob("*.f64"))
        return np.sum([np.frombuffer(file.read_bytes(), np.float64) for file in files], axis=0)

    def _buckets(self, cells: np.ndarray, name: str, value: str) -> tuple[list[tuple[str, float]], float]:
        start, bounds = self._histogram[name, value]
        counts = np.cumsum(cells[start : start + len(bounds) + 1])
        edges = [*(f"{bound:g}" for bound in bounds), "+Inf"]
        return list(zip(edges, counts.tolist(), strict=True)), float(cells[start + len(bounds) + 1])


class _Summed(Collector):
    """What prometheus-client asks of a collector."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.collect()
