"""Prometheus metrics of a server, summed over its processes (serving/server/counters.py).

Where versions have labels, the counts of the ranking path are those of each label: a row of the counters belongs to a
label (serving/server/labels.py), so no request is counted twice, and no series is wider for it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from serving.online.ages import VIEWS
from serving.online.rank import RankResponse
from serving.server.counters import ROWS, SharedCounters
from serving.server.labels import LABELS, ROWS_OF
from serving.server.metric_series import (
    AGES,
    COUNTS,
    DELTAS,
    DIFFERENCES,
    SECONDS,
    SERIES,
    STATUS_CODES,
    Series,
    places,
)
from serving.server.routes import Routes

EXPOSITION = b"text/plain; version=0.0.4; charset=utf-8"
_CODES = {int(code): code for code in STATUS_CODES if code.isdigit()}
_SCOPES = {"ranking": LABELS[:2], "process": LABELS}  # a shadow ranks for nobody


class Metrics:
    """The series of one process, and their exposition summed over all processes."""

    def __init__(
        self, counters: SharedCounters, row: int, models: Mapping[str, str], routes: Routes | None = None
    ) -> None:
        """The process writes row `row` of `counters`; `models` are digests of what is served and their names.

        Where versions have labels, `routes` says what is served, and is replaced when that changes.
        """
        self.routes = routes
        self._counters = counters
        self._cells = counters.row(row)
        self._models = models
        self._http = places("http_requests_total")
        self._requests = places("rank_requests_total")
        self._shed = places("requests_shed_total")
        self._degraded = places("degraded_total")
        self._drops = places("connections_dropped_total")
        self._deaths = places("worker_deaths_total")
        self._swaps = places("swaps_total")
        self._fallbacks = places("canary_fallbacks_total")
        self._shadowed = places("shadow_requests_total")
        self._durations = places("rank_request_duration_seconds")
        self._stages = places("rank_stage_duration_seconds")
        self._ages = places("feature_age_seconds")

    def beat(self, now: float) -> None:
        """The process lives at `now`, a moment of the monotonic clock, which all processes share."""
        self._cells[SERIES["heartbeat"].first] = now

    def answered(self, status: int) -> None:
        """An answer was written."""
        self._cells[self._http[_code(status)]] += 1

    def connection_dropped(self, reason: str, state: str) -> None:
        """A connection was closed for a reason of DROP_REASONS."""
        self._cells[self._drops[f"{reason} {state}"]] += 1

    def connections(self, count: int) -> None:
        """So many connections are open."""
        self._cells[SERIES["connections"].first] = count

    def request_finished(self, status: int, seconds: float) -> None:
        """A request to /v1/rank got a response with `status`."""
        code = _code(status)
        self._cells[self._requests[code]] += 1
        self._observe(self._durations[code], SECONDS, seconds)

    def ranked(self, response: RankResponse) -> None:
        """Record a response: seconds by stage, number of candidates, degradation, ages of features."""
        for stage, seconds in response.seconds.items():
            self._observe(self._stages[stage], SECONDS, seconds)
        self._observe(SERIES["rank_candidates"].first, COUNTS, response.candidates)
        for reason in response.degraded.reasons:
            self._cells[self._degraded[reason]] += 1
        self._cells[SERIES["items_missing_total"].first] += response.degraded.items_defaulted
        self._cells[SERIES["items_stale_total"].first] += response.degraded.items_stale
        for view in VIEWS:
            age = getattr(response.ages, view)
            if age is not None:
                self._observe(self._ages[view], AGES, max(age, 0.0))

    def request_shed(self, reason: str) -> None:
        """A request was not ranked for a reason of SHED_REASONS."""
        self._cells[self._shed[reason]] += 1

    def refused_at_once(self, count: int) -> None:
        """So many requests to /v1/rank got 503 before they were parsed, because the queue is full."""
        for place in (self._http["503"], self._requests["503"], self._shed["queue"], self._durations["503"]):
            self._cells[place] += count

    def nonfinite_refused(self) -> None:
        """A request was refused because the model gave NaN or infinity."""
        self._cells[SERIES["nonfinite_total"].first] += 1

    def worker_started(self) -> None:
        """A worker process was started."""
        self._cells[SERIES["worker_starts_total"].first] += 1

    def worker_died(self, reason: str) -> None:
        """A worker ended unasked, for a reason of DEATHS."""
        self._cells[self._deaths[reason]] += 1

    def swapped(self, outcome: str) -> None:
        """A bundle was to take another's place; `outcome` is one of SWAPS."""
        self._cells[self._swaps[outcome]] += 1

    def fell_back(self, reason: str) -> None:
        """A canary's request is answered by stable, for a reason of FALLBACKS."""
        self._cells[self._fallbacks[reason]] += 1

    def shadowed(self, outcome: str) -> None:
        """A request was compared by the shadow, or was not: one of SHADOWED."""
        self._cells[self._shadowed[outcome]] += 1

    def shadow_differed(self, output: int, difference_N: np.ndarray) -> None:
        """Absolute differences [N] of one of the shadow's outputs, by its place in the routes' `outputs`."""
        if output >= DELTAS:
            return
        series = SERIES["shadow_score_delta"]
        first = series.first + output * series.width
        for bucket, count in enumerate(np.bincount(np.searchsorted(DIFFERENCES, difference_N)).tolist()):
            self._cells[first + bucket] += count
        self._cells[first + len(DIFFERENCES) + 1] += float(difference_N.sum())

    def forget_differences(self) -> None:
        """Another version is the shadow now: its differences begin anew."""
        series = SERIES["shadow_score_delta"]
        for row in ROWS_OF["shadow"]:
            self._counters.row(row)[series.first : series.first + series.columns] = memoryview(
                array("d", bytes(8 * series.columns))
            )

    def refusals(self) -> dict[str, dict[str, float]]:
        """What all processes have refused so far: requests shed, answers by status, connections dropped.

        Connections that end because they were idle are no refusal.
        """
        totals = self._counters.totals(self._public())
        kinds = {
            "shed": self._shed,
            "status": {code: place for code, place in self._http.items() if code != "200"},
            "connections": {what: place for what, place in self._drops.items() if what != "timeout idle"},
        }
        return {kind: {what: totals[place] for what, place in columns.items()} for kind, columns in kinds.items()}

    def exposition(self) -> bytes:
        """The Prometheus text exposition."""
        routes = self.routes
        everything = self._counters.totals(range(ROWS))
        public = everything if routes is None else self._counters.totals(self._public())
        labelled = {} if routes is None else {label: self._counters.totals(ROWS_OF[label]) for label in LABELS}
        lines: list[str] = []
        for series in SERIES.values():
            if not series.kind or (series.labelled and routes is None):
                continue
            lines += _heading(series)
            if labelled and series.scope in _SCOPES:
                for label in _SCOPES[series.scope]:
                    lines += _lines(series, labelled[label], (("label", label),))
            else:
                lines += _lines(series, everything if series.scope == "all" else public, (), routes)
        lines += ["# HELP multigate_model_info The bundle being served", "# TYPE multigate_model_info gauge"]
        lines += [f"multigate_model_info{_text(labels)} 1.0" for labels in self._served()]
        return ("\n".join(lines) + "\n").encode()

    def _public(self) -> range:
        """Rows of the processes that strangers reach."""
        return range(ROWS) if self.routes is None else ROWS_OF["stable"]

    def _served(self) -> Iterator[tuple[tuple[str, str], ...]]:
        if self.routes is not None:
            yield from (tuple(model.items()) for model in self.routes.models)
        else:
            yield from ((("digest", digest), ("model", name)) for digest, name in tuple(self._models.items()))

    def _observe(self, first: int, bounds: tuple[float, ...], value: float) -> None:
        self._cells[first + bisect_left(bounds, value)] += 1
        self._cells[first + len(bounds) + 1] += value


def _heading(series: Series) -> list[str]:
    name = f"multigate_{series.name}"
    return [f"# HELP {name} {series.text}", f"# TYPE {name} {series.kind}"]


def _lines(
    series: Series, totals: Sequence[float], more: tuple[tuple[str, str], ...], routes: Routes | None = None
) -> Iterator[str]:
    """The lines of a series, each with the labels `more` before its own."""
    name = f"multigate_{series.name}"
    for index, own in enumerate(series.labels):
        if series.name == "shadow_score_delta":
            outputs = () if routes is None else routes.outputs
            if index >= len(outputs):
                return
            own = (("output", outputs[index]),)  # noqa: PLW2901  its name is known only now
        labels = (*more, *own)
        first = series.first + index * series.width
        if not series.buckets:
            yield f"{name}{_text(labels)} {totals[first]!r}"
            continue
        below = 0.0
        for bucket, bound in enumerate((*series.buckets, None)):
            below += totals[first + bucket]
            le = "+Inf" if bound is None else repr(bound)
            yield f"{name}_bucket{_text((*labels, ('le', le)))} {below!r}"
        yield f"{name}_count{_text(labels)} {below!r}"
        yield f"{name}_sum{_text(labels)} {totals[first + len(series.buckets) + 1]!r}"


def heartbeat(counters: SharedCounters, row: int) -> float:
    """The moment of the last sign of life in a row, of the monotonic clock; 0 before the first."""
    return counters.row(row)[SERIES["heartbeat"].first]


def reset(counters: SharedCounters, row: int) -> None:
    """Clear what describes a process that has ended: its heartbeat and its connections."""
    cells = counters.row(row)
    cells[SERIES["heartbeat"].first] = cells[SERIES["connections"].first] = 0.0


def _code(status: int) -> str:
    return _CODES.get(status, "other")


def _text(labels: Sequence[tuple[str, str]]) -> str:
    escaped = (f'{name}="{_escaped(value)}"' for name, value in labels)
    return "{" + ",".join(escaped) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
