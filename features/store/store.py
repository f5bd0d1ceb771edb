"""The feature store: updated as impressions and events arrive, read as of a request's time.

    store = state.load(spec, folder)               what `multigate features --snapshot` wrote
    store.feed(rows)                               impressions, in batches, as the logs hold them
    store.happened("clicked", rows)                events that come after their impression
    store.hydrate(7, [3, 9], timestamp)            the session-table row of a request

The row equals the one that the offline pipeline builds for that time. The rules:

- Event time counts, not arrival time: a row that is fed early takes effect at its timestamp.
- The clock only advances: `hydrate` and `advance` move it, and refuse an earlier time.
- A row or an event that is fed late takes effect at once; rows hydrated before are not revised.
- Of rows equal in all columns, impressions or events, the first is kept: a post that is sent again changes nothing, for
  as long as the longest window, and an hour at least.

It runs in a process of its own, fed every few seconds, and not in the ranking endpoint: it loads polars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl
import pyarrow as pa

from features.logs.logs import EventLog, Finding
from features.logs.timestamps import TIME
from features.store import ingest
from features.store.entities import Entities, EntityField, fields, table_of
from features.store.event_coder import EventCoder
from features.store.hydrate import Hydrator
from features.store.ingest import SINCE, UserColumns
from features.store.open_windows import OpenWindows, kept_for
from features.store.repeats import FedRows
from features.store.request_shares import newest_number, shares_of, shown_of
from features.store.sessions import StreamRequests, follows, session_codes, sits
from features.sweep.key_group import KeyGroup
from features.sweep.sweep import Sweep
from features.transforms import attribution, labels
from features.transforms.counters import outcome
from features.transforms.joins import ColumnOrigin, SideTable
from features.transforms.sessions import coded
from rec.errors import DataError, SpecError, nearest
from rec.spec import Spec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
FAR = 1 << 60  # a timestamp after all others
TABLES = {"users": "context", "items": "candidates"}


class FeatureStore:
    """A feature store; see the module's docstring."""

    def __init__(
        self,
        spec: Spec,
        like: pl.DataFrame,
        origins: Mapping[str, ColumnOrigin],
        *,
        sides: Mapping[str, SideTable],
        happened: Mapping[str, EventLog],
        code: Path | None = None,
        clock: int = -FAR,
    ) -> None:
        """An empty store as of `clock` (microseconds since 1970).

        `like` has the columns of an impression, those of side tables that are joined to one included; `sides` are
        "users" and "items", `happened` the logs of events that are not columns of the impressions, `code` the folder
        of columns made by code. Raises SpecError where the spec names no keys.time.
        """
        refuse(spec)
        self.spec, self.like, self.origins = spec, like.clear(), dict(origins)
        self.sides, self.logs, self.clock = dict(sides), dict(happened), clock
        self.made = UserColumns.of(code, self.origins, {name: side.rows.columns for name, side in self.sides.items()})
        self.sweep = Sweep(spec, clock=clock, kept=kept_for(spec, happened))
        self.coder, self.open_windows = EventCoder(spec, self.sweep), OpenWindows(self.like)
        self.requests = StreamRequests(spec)
        kinds = {**{c: k for side in sides.values() for c, k in side.rows.schema.items()}, **self.like.schema}
        self._stored = self._fields()
        self.latest = {
            table: Entities(
                {f.name: f.of(spec, pl.Series(f.column, [None], kinds[f.column])) for f in stored}, self._totals(table)
            )
            for table, stored in self._stored.items()
        }
        self._hydrator = Hydrator(
            spec,
            self.made.origins,
            {column: kind for column, kind in kinds.items() if column not in (TIME, SINCE)},
            sweep=self.sweep,
            values=self.coder.values,
            latest=self.latest,
        )
        windows = [behaviour.window // _US for behaviour in (*spec.tasks.values(), *spec.events.values())]
        self.fed = {n: FedRows(max(kept_for(spec, happened), *windows)) for n in ("", *self.logs)}  # "": impressions
        self._coming: dict[str, pl.DataFrame] = {}
        self._fed = 0
        for table, side in self.sides.items():
            self._describe(table, side.rows)
        self._due = self._next()

    def feed(self, rows: pl.DataFrame | pa.Table) -> int:
        """Impressions as the logs hold them, each once; how many of them were new.

        Columns of events that are logged apart may be absent. Raises DataError for other columns that are, and for
        values of another type than before.
        """
        read = ingest.impressions(self.spec, rows, like=self.like, origins=self.origins, logs=self.logs)
        if self.spec.logs.duplicates == "drop":
            read = ingest.without_repeats(self.spec, read, self.open_windows.rows, self.logs, self.fed[""])
        read = read.sort(TIME, maintain_order=True)
        code = coded(self.spec, read, np.arange(self._fed, self._fed + len(read)))
        self._fed += len(read)
        time = read[TIME].dt.timestamp("us").to_numpy()
        begun = self.requests.alone(time)
        if code is not None and follows(self.spec, self.sides):
            begun = self.requests.begun(self.made.of_context(self.spec, read), code)
        joined = ingest.joined(read, self.sides, self.origins, begin=begun.begin, like=self.like, computed=self.made)
        if sits(self.spec):
            who, known = session_codes(self.spec, joined)
            began = begun.first & known
            self.sweep.begin(begun.begin[began], self.sweep.open_sessions.rows(who[began], None))
        shown = None
        if self.sweep.expects:
            share, places, others = shares_of(self.sweep.queue, time, begun)
            self._correct(places, others)
            shown = begun.request, share
        events = self.coder.events(joined, self._labels(joined), self._places(len(read)), shown)
        self.open_windows.add(joined, self.sweep.feed(events))
        self._changed()
        for table in TABLES:
            self._see(table, joined)
        return len(read)

    def happened(self, name: str, rows: pl.DataFrame | pa.Table) -> list[Finding]:
        """Feed events of impressions that were fed before; findings about events that match none.

        Raises DataError for a log that the store does not know.
        """
        if name not in self.logs:
            raise DataError(f"{name}: no such log of events{nearest(name, self.logs)}")
        log = self.logs[name]
        events = ingest.events(self.spec, rows, name, log, self.like)
        if self.spec.logs.duplicates == "drop":
            events = events.filter(pl.Series(self.fed[name].fresh(events), dtype=pl.Boolean))
        known = [c for c in (self.spec.keys.user, self.spec.keys.item, self.spec.keys.request) if c is not None]
        shown = self.open_windows.rows.select(*dict.fromkeys(known), TIME)
        outcomes, findings = attribution.attribute(self.spec, shown, {name: events}, {name: log})
        places = outcomes[name].eq(1).arg_true().to_numpy()
        if len(places):
            self.open_windows.rows = ingest.merged(self.open_windows.rows, outcomes, name, log)
            self._correct(places)
            self._changed()
        return findings

    def describe(self, table: str, rows: pl.DataFrame | pa.Table, *, since: str | None = None) -> None:
        """New rows of "users" or "items", which replace those of their keys, or hold from the timestamp in `since` on.

        Raises DataError for a table that the store does not have, and for a column that is absent or of another type.
        """
        if table not in self.sides:
            raise DataError(f"{table}: no such table{nearest(table, self.sides)}")
        side = self.sides[table]
        described = ingest.described(self.spec, table, side, rows, since)
        others = side.rows if side.changing else side.rows.join(described, on=side.key, how="anti")
        both = pl.concat([others, described])
        self.sides[table] = replace(side, rows=both.sort(SINCE, maintain_order=True) if side.changing else both)
        self._describe(table, described)
        self._due = self._next()

    def advance(self, time: int) -> None:
        """Advance the clock; DataError for an earlier time."""
        if time < self.clock:
            raise DataError(f"time: the store is at {_shown(self.clock)}, got {_shown(time)}; it cannot go back")
        self.clock = time
        if time > self._due:
            self.settle()
            for table, coming in list(self._coming.items()):
                self._describe(table, coming)
            self._changed()

    def hydrate(
        self,
        user: object,
        items: Sequence[object],
        time: int | datetime,
        *,
        request_id: str = "",
        context: Mapping[str, object] = MappingProxyType({}),
        candidates: Mapping[str, Sequence[object]] = MappingProxyType({}),
    ) -> pa.RecordBatch:
        """The row of a request at `time` (microseconds since 1970, or a datetime): `schema(spec, labels=False)`.

        `context` and `candidates` are what the caller knows of columns or features, one value, or one per item. What
        it does not say is as it was last: from the side tables, or from the last impression of the user or item.
        Raises DataError for a timestamp before the clock, and for values that do not fit.
        """
        when = (time - _EPOCH) // _US if isinstance(time, datetime) else time
        sent = {"context": context, "candidates": candidates}
        request = self._hydrator.request(when, request_id, user=user, items=items, **sent)
        self.advance(when)
        return self._hydrator.row(request)

    def settle(self) -> None:
        """Count all that became known before the clock."""
        before = self.sweep.forgotten
        self.sweep.advance(self.clock)
        self.open_windows.forget(self.sweep.forgotten - before)

    def restored(self, rows: pl.DataFrame) -> None:
        """The rows of the events that the sweep's queue holds, after these were restored."""
        self.open_windows.rows = rows
        label = self._labels(rows)
        self.sweep.relabel({task: outcome(label, task) for task in self.sweep.tasks})  # a log's end leaves windows open
        self._fed = int(self.sweep.queue.of("place").max(initial=-1)) + 1
        self.requests.number_from(newest_number(self.sweep) + 1)
        self._changed()

    def seen(self, table: str) -> list[EntityField]:
        """The columns of latest users or items that come from impressions."""
        return [field for field in self._stored[table] if self.made.origins[field.column].table == "impressions"]

    def _labels(self, rows: pl.DataFrame) -> dict[str, np.ndarray]:
        return labels.settled(self.spec, labels.read(self.spec, rows), rows, FAR)[0]

    def _places(self, count: int) -> np.ndarray:
        """Where new rows stand: behind all that were fed before."""
        return np.arange(self._fed - count, self._fed)

    def _correct(self, places: np.ndarray, share: np.ndarray | None = None) -> None:
        """Evaluate queued impressions again, with their shares; counters that they are in already are corrected."""
        if not len(places):
            return
        rows, standing = self.open_windows.rows[places], self.sweep.queue.of("place")[places]
        events = self.coder.events(rows, self._labels(rows), standing, shown_of(self.sweep, places, share))
        self.sweep.correct(places, events)

    def _changed(self) -> None:
        """Something else is known, or will be at another time."""
        self._hydrator.bases, self._due = None, self._next()

    def _fields(self) -> dict[str, list[EntityField]]:
        """Stored columns of users and of items: of their tables, and the last seen values of impressions."""
        stored: dict[str, list[EntityField]] = {table: [] for table in TABLES}
        for side in TABLES.values():
            for field in fields(self.spec, side):
                stored[table_of(self.spec, self.made.origins, field)].append(field)
        return stored

    def _totals(self, table: str) -> dict[str, KeyGroup]:
        """The totals that are per one column of users or items alone, by the name of its hash."""
        totals = self.sweep.groups
        hashes = [field for field in self._stored[table] if field.feature is None]
        return {field.name: totals[(field.column,)] for field in hashes if (field.column,) in totals}

    def _describe(self, table: str, rows: pl.DataFrame) -> None:
        """Rows of a side table that begin before the clock are the latest of their keys; the others are to come."""
        key = self.sides[table].key
        if SINCE in rows.columns:
            moment = pl.lit(self.clock, pl.Int64).cast(pl.Datetime("us", "UTC"))
            later = self._coming.get(table)
            rows = rows if later is None or later is rows else pl.concat([later, rows]).sort(SINCE, maintain_order=True)
            self._coming[table] = rows.filter(pl.col(SINCE) >= moment)
            rows = rows.filter(pl.col(SINCE) < moment)
        rows = self.made.of_side(table, rows.unique(key, keep="last", maintain_order=True))
        stored = [f for f in self._stored[table] if f.column == key or self.made.origins[f.column].table == table]
        self.latest[table].put(rows[key].to_list(), {f.name: f.of(self.spec, rows[f.column]) for f in stored})

    def _see(self, table: str, joined: pl.DataFrame) -> None:
        """Values of users or items that only impressions have."""
        key = self.spec.keys.user if table == "users" else self.spec.keys.item
        stored = self.seen(table)
        if key is None or not stored:
            return
        last = joined.filter(pl.col(key).is_not_null()).unique(key, keep="last", maintain_order=True)
        columns = {f.name: f.of(self.spec, last[f.column]) for f in stored}
        self.latest[table].see(last[key].to_list(), last[TIME].dt.timestamp("us").to_numpy(), columns)

    def _next(self) -> int:
        """The time of the next change of a counter, or of a side table."""
        due = [self.sweep.due()]
        for coming in self._coming.values():
            due += [] if coming.is_empty() else [int(coming[SINCE].dt.timestamp("us")[0])]
        return min(due)


def refuse(spec: Spec) -> None:
    """SpecError for a spec of logs without timestamps."""
    if spec.keys.time is None:
        raise SpecError("keys.time: a store needs the column with the timestamp of an impression")


def _shown(time: int) -> str:
    return f"{_EPOCH + time * _US:%Y-%m-%dT%H:%M:%S.%fZ}"
