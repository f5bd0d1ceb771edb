"""Which requests are ranked, by the time they would wait: candidates queued x measured microseconds.

A request of 2,000 candidates takes forty times as long as one of 50, so a count of requests says little about a queue.
A mean is too low for half of them. Times a factor it holds for 99 in 100: the 99th percentile of the time that requests
took over the time that was estimated, followed by steps of the gradient of its pinball loss (Koenker and Bassett,
Regression Quantiles, 1978). Answers that say nothing of a queue lower it, so that one incident is forgotten.
"""

from __future__ import annotations

from random import Random

# what a request costs beside its candidates, in candidates; and the share that one measurement has in the estimate
_BASE = 20
_SHARE = 0.05
_QUANTILE, _STEP = 0.99, 0.005  # of the factor; and how far one request that took longer moves it
_LEAST, _MOST = 1.0, 3.0  # the factor
# of the queue's time: an estimate below says nothing, since one pause of the system doubles it; less than 1 / _MOST
_SHORT = 0.2
_ROWS = 8  # fewer objects than that: the candidates came as columns


def estimated_candidates(body: bytes, *, most: int, names: int) -> int:
    """Candidates of a body that has not been parsed: its objects, or, sent as columns, its commas.

    Text may hold either, so there are at most as many as a request may have, `most`, and at least one for each
    `names` commas: a candidate has at most so many values.

    >>> estimated_candidates(b'{"candidates": {"item_id": [1, 2, 3]}}', most=2000, names=5)
    3
    """
    objects, commas = body.count(b"{"), body.count(b",")
    return min(most, max(objects, commas // names) if objects >= _ROWS else commas + 1)


class Admission:
    """The queue of one worker in seconds, and who may join it."""

    def __init__(
        self, *, queue_seconds: float, in_flight: int, seconds_per_candidate: float, most: int, names: int, seed: int
    ) -> None:
        """The estimate begins with `seconds_per_candidate`; `seed` is that of the jitter.

        A request has at most `most` candidates, and a candidate `names` values.
        """
        self._most = most
        self._names = max(1, names)
        self.queued = 0
        self._units = 0
        self._queue_seconds = queue_seconds
        self._in_flight = in_flight
        self._unit_seconds = seconds_per_candidate
        self._factor = _LEAST
        self._random = Random(seed)  # noqa: S311  jitter, no secret

    @property
    def crowded(self) -> bool:
        """Whether the queue is at least half as long as it may be."""
        return 2 * self.queued >= self._in_flight or 2 * self.waiting_seconds() >= self._queue_seconds

    def full(self, body: bytes, *, before: int) -> bool:
        """Whether the queue has no room for a request, behind `before` others like it that are not in it yet."""
        queued = self.queued + before
        # somebody who is alone is served, whatever the estimate says: it would never be corrected otherwise
        if not queued or queued >= self._in_flight:
            return queued >= self._in_flight
        return self._seconds(self._units + (before + 1) * self._cost(body)) > self._queue_seconds

    def admit(self, body: bytes, *, within: float | None) -> str | None:
        """None, and the request counts as queued; or why not: `queue`, or `deadline` of `within` seconds."""
        if self.full(body, before=0):
            return "queue"
        cost = self._cost(body)
        if self.queued and within is not None and self._seconds(self._units + cost) > within:
            return "deadline"
        self.queued += 1
        self._units += cost
        return None

    def estimate(self) -> float:
        """Seconds until whoever was admitted last is answered, as the mean has it."""
        return self._units * self._unit_seconds

    def leave(self, body: bytes, *, seconds: float | None, candidates: int) -> None:
        """A request has left the queue; ranking its `candidates` took `seconds`, None where it was not ranked."""
        self.queued -= 1
        self._units -= self._cost(body)
        if seconds is not None:
            self._unit_seconds += _SHARE * (seconds / (_BASE + candidates) - self._unit_seconds)

    def answered(self, *, estimate: float, seconds: float) -> None:
        """A request was answered `seconds` after it was admitted; `estimate` is what that was thought to take."""
        late = estimate > _SHORT * self._queue_seconds and seconds > self._factor * estimate
        step = _QUANTILE if late else _QUANTILE - 1
        self._factor = min(_MOST, max(_LEAST, self._factor + _STEP * step))

    def waiting_seconds(self) -> float:
        """The time within which nearly all requests that come now are ranked."""
        return self._seconds(self._units)

    def retry_after(self) -> int:
        """Whole seconds until a refused client should come again; jittered, so that not all come at once."""
        return 1 + int(self._random.random() * (3 + int(self.waiting_seconds())))

    def _seconds(self, units: int) -> float:
        return units * self._unit_seconds * self._factor

    def _cost(self, body: bytes) -> int:
        return _BASE + estimated_candidates(body, most=self._most, names=self._names)
