"""The rows of impressions with open windows: those of the sweep's queue, in its order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from features.logs.logs import EventLog
from features.store.sessions import expects
from features.sweep.event_queue import Merge
from rec.spec import Spec

_GOES_ON = timedelta(minutes=10)  # so long a request may go on, and its shares change
_US = timedelta(microseconds=1)
_CHUNKS = 64  # pieces of the frame before they are made one


class OpenWindows:
    """Rows of the logs, which move as their events move in the queue."""

    def __init__(self, like: pl.DataFrame) -> None:
        """No rows, of this schema."""
        self._rows, self._dropped = like.clear(), 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._rows) - self._dropped

    @property
    def rows(self) -> pl.DataFrame:
        """The rows, in the order of the queue."""
        return self._rows[self._dropped :]

    @rows.setter
    def rows(self, rows: pl.DataFrame) -> None:
        """Other rows of the same events."""
        self._rows, self._dropped = rows, 0

    def add(self, rows: pl.DataFrame, merge: Merge) -> None:
        """Rows whose events went where `merge` says."""
        if rows.is_empty():
            return
        live = self.rows
        rows = pl.concat([live, rows], rechunk=live.n_chunks() > _CHUNKS)
        if merge.order is not None:
            end = merge.start + len(merge.order)
            rows = pl.concat([rows[: merge.start], rows[merge.start : end][merge.order], rows[end:]])
        self.rows = rows

    def forget(self, count: int) -> None:
        """Drop the first so many rows."""
        self._dropped += count
        if 2 * self._dropped > len(self._rows):
            self.rows = self.rows


def kept_for(spec: Spec, happened: Mapping[str, EventLog]) -> int:
    """How long an impression stays open, in microseconds: events of logs may be attributed to it, or others join it."""
    within = [log.within // _US for log in happened.values() if log.within is not None]
    return max([0, *within, *([_GOES_ON // _US] if expects(spec) else [])])
