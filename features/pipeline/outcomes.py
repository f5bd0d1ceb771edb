"""Events with logs of their own, attributed to impressions before these are replayed.

One walk over impressions and events in order of time says to which impression each event belongs; what is known of
these impressions is kept in order of their time, and joined when a slice of them is prepared. An impression gets four
kinds of column from a log called `clicked`: `clicked` (0 or 1), `clicked_time` (of its first event), `clicked_count`,
and the values of its first event.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import polars as pl

from features import hashing
from features.hashing import LINE
from features.logs.logs import EventLog, Finding
from features.logs.timestamps import MOMENT, TIME
from features.pipeline import repeats
from features.pipeline.job import BuildJob
from features.pipeline.ordered_rows import OrderedRows
from features.pipeline.time_order import TimeOrderedLog
from features.sweep.last_touch import LastTouch, Touched
from features.transforms import attribution

_AT = "@at"
_EXAMPLES = 100_000  # events without an impression that are kept to be shown


class Outcomes:
    """The events of one log, by the impressions they belong to."""

    def __init__(self, job: BuildJob, name: str, log: EventLog, events: TimeOrderedLog) -> None:
        """No impression was shown, and no event happened yet."""
        self._spec, self._name, self._log = job.spec, name, log
        self._kinds = job.happened[name].kinds
        self._coming, self._waiting = (
            events.slices(),
            pl.DataFrame(schema={**self._kinds, TIME: MOMENT, LINE: pl.Int64}),
        )
        self._found = OrderedRows(job.work / "runs" / f"found-{name}", _AT, LINE, held=4 * job.rows)
        self._touch = LastTouch(None if log.within is None else log.within // timedelta(microseconds=1))
        self._lost: list[pl.DataFrame] = []
        self._keys: list[tuple[np.ndarray, np.ndarray]] = []
        self._total = 0
        self._repeats: list[Finding] = []
        self.log = events

    @property
    def end(self) -> int | None:
        """The last timestamp of its events."""
        return self.log.seen.end

    def shown(self, rows: pl.DataFrame | None) -> None:
        """The next impressions, in order of time; None: there are no more, and what is left of the events is last."""
        until = None if rows is None else int(rows[TIME].to_physical()[-1])
        events = self._until(until)
        keys = rows if rows is not None else events.clear()
        line = keys[LINE].to_numpy()
        places, at, row = self._touch.attribute(self._touched(keys), line, self._touched(events))
        self._total += len(events)
        first, again = repeats.of_events(self._spec, self._name, events)
        self._repeats += [] if again is None else [again]
        has = pl.Series((places >= 0) & first)
        columns = [pl.Series(LINE, places), pl.Series(_AT, at), events[TIME], *(events[v] for v in self._log.values)]
        self._found.add(pl.DataFrame(columns).filter(has))
        lost = np.flatnonzero(places < 0)
        if len(lost):
            time = events[TIME].dt.timestamp("us").to_numpy()
            self._keys.append((row[lost], time[lost]))
            if sum(map(len, self._lost)) < _EXAMPLES:
                self._lost.append(events[lost])

    def joined(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Impressions in order of time with the columns of their events."""
        time, name = rows[TIME].to_physical(), self._name
        values = list(self._log.values)
        events = self._found.between(int(time[0]), int(time[-1]) + 1)
        if events is None:
            events = pl.DataFrame(schema={LINE: pl.Int64, TIME: MOMENT, **{v: self._kinds[v] for v in values}})
        first = events.group_by(LINE, maintain_order=True).agg(
            pl.col(TIME).first().cast(MOMENT).alias(f"{name}_time"),
            pl.len().cast(pl.Int64).alias(f"{name}_count"),
            *(pl.col(value).first() for value in values),
        )
        taken = [name, f"{name}_time", f"{name}_count", *values]
        rows = rows.drop(taken, strict=False).join(first, on=LINE, how="left", maintain_order="left")
        count = pl.col(f"{name}_count").fill_null(0)
        return rows.with_columns((count > 0).cast(pl.Int8).alias(name), count)

    def findings(self) -> list[Finding]:
        """Events without an impression, and those of them that came before it."""
        rows, time = (
            (np.concatenate([np.zeros(0, np.int64), *part]) for part in zip(*self._keys, strict=True))
            if self._keys
            else (np.zeros(0, np.int64), np.zeros(0, np.int64))
        )
        early = self._touch.shown_later(rows, time)
        lost = pl.concat(self._lost) if self._lost else self._waiting.clear()
        unmatched = attribution.lost(
            self._spec,
            self._name,
            self._log,
            counts=(len(rows), int(early.sum()), self._total),
            examples=(lost, lost.filter(pl.Series(early[: len(lost)], dtype=pl.Boolean))),
        )
        return [*self._repeats, *unmatched]

    def _until(self, time: int | None) -> pl.DataFrame:
        """The events up to a timestamp that were not taken yet, in order of time; all that are left for None."""
        taken = [self._waiting]
        while time is None or taken[-1].is_empty() or int(taken[-1][TIME].to_physical()[-1]) <= time:
            more = next(self._coming, None)
            if more is None:
                break
            taken.append(more)
        events = pl.concat(taken)
        cut = (
            len(events)
            if time is None
            else int(np.searchsorted(events[TIME].to_physical().to_numpy(), time, side="right"))
        )
        self._waiting = events[cut:]
        return events[:cut]

    def _touched(self, rows: pl.DataFrame) -> Touched:
        keys = self._spec.keys
        by = [rows[str(keys.user)], rows[str(keys.item)]]
        code, missing = hashing.together(by)
        pair = code, ~missing
        wide = None
        if self._log.by_request and keys.request is not None:
            code, missing = hashing.together([*by, rows[keys.request]])
            wide = code, ~missing
        return Touched(rows[TIME].dt.timestamp("us").to_numpy(), pair, wide)


def attributed(job: BuildJob, log: TimeOrderedLog, events: Mapping[str, TimeOrderedLog]) -> dict[str, Outcomes]:
    """The events of every log, walked over with the impressions."""
    outcomes = {name: Outcomes(job, name, job.described[name], events[name]) for name in events}
    if outcomes:
        for rows in log.slices():
            impressions, _ = repeats.of_impressions(job.spec, rows)
            for outcome in outcomes.values():
                outcome.shown(impressions)
        for outcome in outcomes.values():
            outcome.shown(None)
    return outcomes
