"""Request lines: a share of the requests to the ranking page, drawn at random, an event each.

    {"event": "request", "status": 200, "us": {"total": 2100, "parse": 90, ...}, "request_id": "r1", "candidates": 200,
     "degraded": ["item_unknown"], "model": "shop", "digest": "9b1f...", "generation": 1}

Where versions have labels, `version` and `label` too.

A line says how a request fared. It never holds a value of a feature, nor the id of a user or an item.
"""

from __future__ import annotations

from random import Random

from serving.online.rank import RankResponse
from serving.server.event_log import log_event


class AccessLog:
    """Logs a share of the requests of one process."""

    def __init__(self, share: float, *, seed: int, **served: str | int) -> None:
        """`share` is from 0 to 1; `served` are fields of every line: what answers."""
        self._share = share
        self._draw = Random(seed).random  # noqa: S311  a sample, no secret
        self._served = served

    def finished(self, status: int, seconds: float, response: RankResponse | None) -> None:
        """A request was answered; `response` is None where it was not ranked."""
        if self._draw() >= self._share:
            return
        spent = {"total": _microseconds(seconds)}
        if response is None:
            log_event("request", status=status, us=spent, **self._served)
            return
        spent |= {stage: _microseconds(stage_seconds) for stage, stage_seconds in response.seconds.items()}
        log_event(
            "request",
            status=status,
            us=spent,
            request_id=response.request_id,
            candidates=response.candidates,
            degraded=list(response.degraded.reasons),
            **self._served,
        )


def _microseconds(seconds: float) -> int:
    return round(1e6 * seconds)
