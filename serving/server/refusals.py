"""Refusals as events: at most a line every few seconds, with how many came of each kind since the last.

    {"event": "refused", "seconds": 10.0, "shed": {"queue": 31}, "status": {"422": 2, "503": 31}, ...}

They are read from the counters that all workers share, so a flood of them costs a worker nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.server.metrics import Metrics

_SECONDS = 10.0  # between two lines


class RefusalLog:
    """Looks at the counters of refusals now and then."""

    def __init__(self, metrics: Metrics, log: Callable[..., None]) -> None:
        """`log` takes an event and its fields."""
        self._metrics = metrics
        self._log = log
        self._before: dict[str, dict[str, float]] = {}
        self._looked = float("-inf")

    def tick(self, now: float) -> None:
        """Log what has been refused, if the last look is long enough ago; `now` is of the monotonic clock."""
        if now - self._looked >= _SECONDS:
            self.flush(now)

    def flush(self, now: float) -> None:
        """Log what has been refused since the last look."""
        counts = self._metrics.refusals()
        more = {kind: _grown(values, self._before.get(kind, {})) for kind, values in counts.items()}
        if any(more.values()):
            seconds = {} if self._looked == float("-inf") else {"seconds": round(now - self._looked, 1)}
            self._log("refused", **seconds, **{kind: values for kind, values in more.items() if values})
        self._before, self._looked = counts, now


def _grown(values: dict[str, float], before: dict[str, float]) -> dict[str, int]:
    grown = {name: int(value - before.get(name, 0.0)) for name, value in values.items()}
    return {name: count for name, count in grown.items() if count > 0}
