"""Prometheus metrics of a server, summed over its processes (serving/server/counters.py).

Every series exists from the start: a label value can never come from a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from serving.online.ages import VIEWS
from serving.online.rank import REASONS, STAGES, RankResponse
from serving.server.connection import STATES
from serving.server.counters import SharedCounters

EXPOSITION = b"text/plain; version=0.0.4; charset=utf-8"
STATUS_CODES = (
    "200", "400", "404", "405", "408", "413", "415", "422", "429", "431", "500", "501", "503", "504", "other",
)  # fmt: skip
SHED_REASONS = ("queue", "deadline", "gone")
DROP_REASONS = ("timeout", "evicted")
DEATHS = ("died", "stuck", "never_warm")
SWAPS = ("done", "failed")
_SECONDS = tuple(base * scale for scale in (1e-3, 1e-2, 1e-1, 1.0) for base in (0.5, 1.0, 2.0))
_AGES = (60.0, 300.0, 900.0, *(3600.0 * hours for hours in (1, 3, 6, 12, 24, 48, 72, 168, 336, 720, 2160)))
_COUNTS = (1.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)


@dataclass(frozen=True)
class _Series:
    """A metric: its labels' values, its buckets if it is a histogram, and its first column."""

    name: str
    kind: str
    text: str
    labels: tuple[tuple[tuple[str, str], ...], ...]
    buckets: tuple[float, ...] = ()
    first: int = 0

    @property
    def width(self) -> int:
        """Columns of one label value: a histogram has one per bucket, one beyond them, and the sum."""
        return len(self.buckets) + 2 if self.buckets else 1

    @property
    def columns(self) -> int:
        """Columns of all label values."""
        return self.width * len(self.labels)


def _labels(name: str, values: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple(((name, value),) for value in values)


_CODES = _labels("code", STATUS_CODES)
_DROPS = tuple((("reason", reason), ("state", state)) for reason in DROP_REASONS for state in STATES)
_PLAN = (
    _Series("heartbeat", "", "", ((),)),  # moment of the process's last sign of life, exposed nowhere
    _Series("http_requests_total", "counter", "Answers by status code, to whatever was asked", _CODES),
    _Series("rank_requests_total", "counter", "Requests to /v1/rank by status code", _CODES),
    _Series("requests_shed_total", "counter", "Requests not ranked", _labels("reason", SHED_REASONS)),
    _Series("degraded_total", "counter", "Responses that lack something", _labels("reason", REASONS)),
    _Series(
        "items_missing_total", "counter", "Candidates that the store does not know", _labels("action", ("default",))
    ),
    _Series("items_stale_total", "counter", "Candidates with stored features older than the spec allows", ((),)),
    _Series(
        "nonfinite_total", "counter", "Requests refused over scores that are not finite", _labels("action", ("refuse",))
    ),
    _Series("connections_dropped_total", "counter", "Connections closed by the server, by state", _DROPS),
    _Series("connections", "gauge", "Connections that are open", ((),)),
    _Series("worker_deaths_total", "counter", "Workers that ended unasked", _labels("reason", DEATHS)),
    _Series("worker_starts_total", "counter", "Workers started", ((),)),
    _Series("swaps_total", "counter", "Bundles taken into service beside another", _labels("outcome", SWAPS)),
    _Series(
        "rank_request_duration_seconds",
        "histogram",
        "From the first byte of a request to its response",
        _CODES,
        _SECONDS,
    ),
    _Series(
        "rank_stage_duration_seconds", "histogram", "Time of a response by stage", _labels("stage", STAGES), _SECONDS
    ),
    _Series(
        "feature_age_seconds", "histogram", "Age of stored features as of a request", _labels("view", VIEWS), _AGES
    ),
    _Series("rank_candidates", "histogram", "Candidates per ranked request", ((),), _COUNTS),
)


def _placed() -> Iterator[_Series]:
    first = 0
    for series in _PLAN:
        yield _Series(series.name, series.kind, series.text, series.labels, series.buckets, first)
        first += series.columns


_PLACED = {series.name: series for series in _placed()}
COLUMNS = sum(series.columns for series in _PLACED.values())


def _places(name: str) -> dict[str, int]:
    """The column of every label value; of several labels, by their values with a blank between."""
    series = _PLACED[name]
    names = (" ".join(value for _, value in labels) for labels in series.labels)
    return {label: series.first + index * series.width for index, label in enumerate(names)}


class Metrics:
    """The series of one process, and their exposition summed over all processes."""

    def __init__(self, counters: SharedCounters, row: int, models: Mapping[str, str]) -> None:
        """The process writes row `row` of `counters`; `models` are digests of what is served and their names."""
        self._counters = counters
        self._cells = counters.row(row)
        self._models = models
        self._http = _places("http_requests_total")
        self._requests = _places("rank_requests_total")
        self._shed = _places("requests_shed_total")
        self._degraded = _places("degraded_total")
        self._drops = _places("connections_dropped_total")
        self._deaths = _places("worker_deaths_total")
        self._swaps = _places("swaps_total")
        self._durations = _places("rank_request_duration_seconds")
        self._stages = _places("rank_stage_duration_seconds")
        self._ages = _places("feature_age_seconds")

    def beat(self, now: float) -> None:
        """The process lives at `now`, a moment of the monotonic clock, which all processes share."""
        self._cells[_PLACED["heartbeat"].first] = now

    def answered(self, status: int) -> None:
        """An answer was written."""
        self._cells[self._http[_code(status)]] += 1

    def connection_dropped(self, reason: str, state: str) -> None:
        """A connection was closed for a reason of DROP_REASONS."""
        self._cells[self._drops[f"{reason} {state}"]] += 1

    def connections(self, count: int) -> None:
        """So many connections are open."""
        self._cells[_PLACED["connections"].first] = count

    def request_finished(self, status: int, seconds: float) -> None:
        """A request to /v1/rank got a response with `status`."""
        code = _code(status)
        self._cells[self._requests[code]] += 1
        self._observe(self._durations[code], _SECONDS, seconds)

    def ranked(self, response: RankResponse) -> None:
        """Record a response: seconds by stage, number of candidates, degradation, ages of features."""
        for stage, seconds in response.seconds.items():
            self._observe(self._stages[stage], _SECONDS, seconds)
        self._observe(_PLACED["rank_candidates"].first, _COUNTS, response.candidates)
        for reason in response.degraded.reasons:
            self._cells[self._degraded[reason]] += 1
        self._cells[_PLACED["items_missing_total"].first] += response.degraded.items_defaulted
        self._cells[_PLACED["items_stale_total"].first] += response.degraded.items_stale
        for view in VIEWS:
            age = getattr(response.ages, view)
            if age is not None:
                self._observe(self._ages[view], _AGES, max(age, 0.0))

    def request_shed(self, reason: str) -> None:
        """A request was not ranked for a reason of SHED_REASONS."""
        self._cells[self._shed[reason]] += 1

    def nonfinite_refused(self) -> None:
        """A request was refused because the model gave NaN or infinity."""
        self._cells[_PLACED["nonfinite_total"].first] += 1

    def worker_started(self) -> None:
        """A worker process was started."""
        self._cells[_PLACED["worker_starts_total"].first] += 1

    def worker_died(self, reason: str) -> None:
        """A worker ended unasked, for a reason of DEATHS."""
        self._cells[self._deaths[reason]] += 1

    def swapped(self, outcome: str) -> None:
        """A bundle was to take another's place; `outcome` is one of SWAPS."""
        self._cells[self._swaps[outcome]] += 1

    def refusals(self) -> dict[str, dict[str, float]]:
        """What all processes have refused so far: requests shed, answers by status, connections dropped.

        Connections that end because they were idle are no refusal.
        """
        kinds = {
            "shed": self._shed,
            "status": {code: place for code, place in self._http.items() if code != "200"},
            "connections": {what: place for what, place in self._drops.items() if what != "timeout idle"},
        }
        return {kind: {what: self._counters.total(p) for what, p in places.items()} for kind, places in kinds.items()}

    def exposition(self) -> bytes:
        """The Prometheus text exposition."""
        lines = [line for series in _PLACED.values() if series.kind for line in self._lines(series)]
        lines += ["# HELP multigate_model_info The bundle being served", "# TYPE multigate_model_info gauge"]
        lines += [
            f"multigate_model_info{_text((('digest', d), ('model', name)))} 1.0"
            for d, name in tuple(self._models.items())
        ]
        return ("\n".join(lines) + "\n").encode()

    def _observe(self, first: int, bounds: tuple[float, ...], value: float) -> None:
        self._cells[first + bisect_left(bounds, value)] += 1
        self._cells[first + len(bounds) + 1] += value

    def _lines(self, series: _Series) -> Iterator[str]:
        name = f"multigate_{series.name}"
        family = name.removesuffix("_total") if series.kind == "counter" else name
        yield f"# HELP {family if series.kind != 'counter' else name} {series.text}"
        yield f"# TYPE {family if series.kind != 'counter' else name} {series.kind}"
        for index, labels in enumerate(series.labels):
            first = series.first + index * series.width
            if not series.buckets:
                yield f"{name}{_text(labels)} {self._counters.total(first)!r}"
                continue
            below = 0.0
            for bucket, bound in enumerate((*series.buckets, None)):
                below += self._counters.total(first + bucket)
                le = "+Inf" if bound is None else repr(bound)
                yield f"{name}_bucket{_text((*labels, ('le', le)))} {below!r}"
            yield f"{name}_count{_text(labels)} {below!r}"
            yield f"{name}_sum{_text(labels)} {self._counters.total(first + len(series.buckets) + 1)!r}"


def heartbeat(counters: SharedCounters, row: int) -> float:
    """The moment of the last sign of life in a row, of the monotonic clock; 0 before the first."""
    return counters.row(row)[_PLACED["heartbeat"].first]


def reset(counters: SharedCounters, row: int) -> None:
    """Clear what describes a process that has ended: its heartbeat and its connections."""
    cells = counters.row(row)
    cells[_PLACED["heartbeat"].first] = cells[_PLACED["connections"].first] = 0.0


def _code(status: int) -> str:
    return str(status) if str(status) in STATUS_CODES else "other"


def _text(labels: Sequence[tuple[str, str]]) -> str:
    escaped = (f'{name}="{_escaped(value)}"' for name, value in labels)
    return "{" + ",".join(escaped) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
