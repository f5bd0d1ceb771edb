"""The plan of all metrics: their names, the values of their labels, and their columns in the shared counters.

Every series exists from the start: a label value can never come from a request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from serving.online.ages import VIEWS
from serving.online.rank import REASONS, STAGES
from serving.server.connection import STATES

STATUS_CODES = (
    "200", "400", "404", "405", "408", "413", "415", "422", "429", "431", "500", "501", "503", "504", "other",
)  # fmt: skip
SHED_REASONS = ("queue", "deadline", "gone")
DROP_REASONS = ("timeout", "evicted")
DEATHS = ("died", "stuck", "never_warm")
SWAPS = ("done", "failed")
FALLBACKS = ("down", "timeout", "refused", "busy")
SHADOWED = ("compared", "failed", "dropped")
DELTAS = 24  # outputs of a shadow whose differences are observed, the fused score among them
SECONDS = tuple(base * scale for scale in (1e-3, 1e-2, 1e-1, 1.0) for base in (0.5, 1.0, 2.0))
AGES = (60.0, 300.0, 900.0, *(3600.0 * hours for hours in (1, 3, 6, 12, 24, 48, 72, 168, 336, 720, 2160)))
COUNTS = (1.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)
DIFFERENCES = tuple(10.0**power for power in range(-6, 3))
# whose counts are exposed where versions have labels: the public port's; those of each label; the sum; or never others
Scope = Literal["public", "ranking", "process", "all"]


@dataclass(frozen=True)
class Series:
    """A metric: its labels' values, its buckets if it is a histogram, and its first column."""

    name: str
    kind: str
    text: str
    labels: tuple[tuple[tuple[str, str], ...], ...] = ((),)
    buckets: tuple[float, ...] = ()
    scope: Scope = "public"
    labelled: bool = False  # exposed only where versions have labels
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
    Series("heartbeat", "", ""),  # moment of the process's last sign of life, exposed nowhere
    Series("http_requests_total", "counter", "Answers by status code, to whatever was asked", _CODES),
    Series("rank_requests_total", "counter", "Requests to /v1/rank by status code", _CODES, scope="ranking"),
    Series("requests_shed_total", "counter", "Requests not ranked", _labels("reason", SHED_REASONS), scope="ranking"),
    Series("degraded_total", "counter", "Responses that lack something", _labels("reason", REASONS), scope="ranking"),
    Series(
        "items_missing_total",
        "counter",
        "Candidates that the store does not know",
        _labels("action", ("default",)),
        scope="ranking",
    ),
    Series(
        "items_stale_total",
        "counter",
        "Candidates with stored features older than the spec allows",
        scope="ranking",
    ),
    Series(
        "nonfinite_total",
        "counter",
        "Requests refused over scores that are not finite",
        _labels("action", ("refuse",)),
        scope="ranking",
    ),
    Series("connections_dropped_total", "counter", "Connections closed by the server, by state", _DROPS),
    Series("connections", "gauge", "Connections that are open"),
    Series("worker_deaths_total", "counter", "Workers that ended unasked", _labels("reason", DEATHS), scope="process"),
    Series("worker_starts_total", "counter", "Workers started", scope="process"),
    Series("swaps_total", "counter", "Bundles taken into service beside another", _labels("outcome", SWAPS)),
    Series(
        "canary_fallbacks_total",
        "counter",
        "Requests of the canary's users that stable answered",
        _labels("reason", FALLBACKS),
        scope="all",
        labelled=True,
    ),
    Series(
        "shadow_requests_total",
        "counter",
        "Requests that stable answered, and what the shadow made of them",
        _labels("outcome", SHADOWED),
        scope="all",
        labelled=True,
    ),
    Series(
        "rank_request_duration_seconds",
        "histogram",
        "From the first byte of a request to its response",
        _CODES,
        SECONDS,
        scope="ranking",
    ),
    Series(
        "rank_stage_duration_seconds",
        "histogram",
        "Time of a response by stage",
        _labels("stage", STAGES),
        SECONDS,
        scope="ranking",
    ),
    Series(
        "feature_age_seconds",
        "histogram",
        "Age of stored features as of a request",
        _labels("view", VIEWS),
        AGES,
        scope="ranking",
    ),
    Series("rank_candidates", "histogram", "Candidates per ranked request", ((),), COUNTS, scope="ranking"),
    Series(
        "shadow_score_delta",
        "histogram",
        "Absolute difference of a candidate's score by the shadow from the one that was served",
        _labels("output", [str(index) for index in range(DELTAS)]),
        DIFFERENCES,
        scope="all",
        labelled=True,
    ),
)


def _placed() -> Iterator[Series]:
    first = 0
    for series in _PLAN:
        yield replace(series, first=first)
        first += series.columns


SERIES = {series.name: series for series in _placed()}
COLUMNS = sum(series.columns for series in SERIES.values())


def places(name: str) -> dict[str, int]:
    """The column of every label value; of several labels, by their values with a blank between."""
    series = SERIES[name]
    names = (" ".join(value for _, value in labels) for labels in series.labels)
    return {label: series.first + index * series.width for index, label in enumerate(names)}
