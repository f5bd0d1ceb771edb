"""Queue of impressions with open attribution or count windows, ordered by time.

Every delay is constant, so for each there is one position in the queue: the impressions before it have been counted,
those behind it have not. Positions are found by bisection; no queue per delay is needed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

_FIRST = 1024  # rows there is room for from the beginning
_CHUNKS = 64  # pieces of the frame before they are made one


class OpenWindows:
    """Rows of the logs with arrays beside them [E]: `time`, and whatever else is asked for when it is made.

    >>> queue = OpenWindows(rows.clear(), {"user": np.int64})
    >>> queue.before(time)                   # how many rows are earlier
    """

    def __init__(self, rows: pl.DataFrame, kinds: Mapping[str, type]) -> None:
        """An empty queue for rows of this schema."""
        self.rows = rows.clear()
        self._arrays = {name: np.zeros(_FIRST, kind) for name, kind in {"time": np.int64, **kinds}.items()}
        self._begin = self._end = 0

    def __len__(self) -> int:
        """How many impressions are queued."""
        return self._end - self._begin

    def of(self, name: str) -> np.ndarray:
        """One of the arrays [E], as a view: what is written there stays."""
        return self._arrays[name][self._begin : self._end]

    def take(self, places: np.ndarray | slice) -> dict[str, np.ndarray]:
        """All arrays of some impressions: a range of them as views, places as copies."""
        return {name: self.of(name)[places] for name in self._arrays}

    def before(self, moment: int) -> int:
        """How many impressions are earlier than a timestamp."""
        return int(np.searchsorted(self.of("time"), moment))

    def add(self, rows: pl.DataFrame, arrays: Mapping[str, np.ndarray]) -> None:
        """Insert impressions ordered by time; those of equal timestamp go behind the ones there."""
        if rows.is_empty():
            return
        cut = int(np.searchsorted(self.of("time"), arrays["time"][0], side="right"))
        both = np.concatenate([self.of("time")[cut:], arrays["time"]])
        order = np.argsort(both, kind="stable")
        self._room(len(rows))
        end = self._end + len(rows)
        for name, kept in self._arrays.items():
            tail = np.concatenate([kept[self._begin + cut : self._end], arrays[name]])
            kept[self._begin + cut : end] = tail[order]
        late = self.rows[cut:]
        tail = rows if late.is_empty() else pl.concat([late, rows])[order]
        self.rows = pl.concat([self.rows[:cut], tail], rechunk=self.rows.n_chunks() > _CHUNKS)
        self._end = end

    def forget(self, moment: int) -> None:
        """Drop what is earlier than a timestamp, once that is half of the queue."""
        drop = self.before(moment)
        if 2 * drop > len(self):
            self.rows = self.rows[drop:]
            self._begin += drop

    def _room(self, more: int) -> None:
        if self._end + more <= len(self._arrays["time"]):
            return
        size = len(self)
        for name, kept in self._arrays.items():
            grown = np.zeros(max(_FIRST, 2 * (size + more)), kept.dtype)
            grown[:size] = kept[self._begin : self._end]
            self._arrays[name] = grown
        self._begin, self._end = 0, size
