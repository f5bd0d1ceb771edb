"""The feature store's initial state: the arrays of the sweep at the end of a build, and the rows that go with them.

The state is as of just after the last impression. Later events in the logs, such as a purchase in a window that is
still open, are stored with the impressions with open windows, and are counted when the store's clock reaches them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features.hashing import CODE, LINE
from features.logs.timestamps import TIME
from features.pipeline.job import BuildJob
from features.pipeline.point_in_time import PointInTime
from features.pipeline.prepare import PreparedSlice
from features.pipeline.snapshot import LatestRows
from features.store import state
from features.store.entities import KEY, SEEN, fields, table_of
from features.store.ingest import UserColumns
from features.store.open_windows import OpenWindows
from features.store.sessions import REQUESTS, follows, marks, newest, newest_table
from features.sweep import sweep_tables
from features.sweep.event_queue import Merge
from features.transforms.sessions import coded_context
from rec.atomic import write_json
from rec.data import arrow_file

_SIDES = {"context": "users", "candidates": "items"}


class StoreState:
    """What a store needs besides the sweep: rows with open windows, and the newest requests of every user."""

    def __init__(self, job: BuildJob) -> None:
        """Nothing was shown yet."""
        self._job = job
        events = state.events_of(job.described, {name: log.kinds for name, log in job.happened.items()})
        self._like = state.like({**job.impressions.kinds, **events}, job.sides, job.origins, job.code)
        self._open = OpenWindows(self._like)
        self._coded = coded_context(job.spec, job.code, job.of("code"), job.of("impressions"))
        self._requests: pl.DataFrame | None = None
        self._forgotten = 0

    def add(self, prepared: PreparedSlice, merge: Merge, past: PointInTime) -> None:
        """A slice whose events went into the queue as `merge` says, and which was asked."""
        self._open.add(prepared.rows.select(self._like.columns)[prepared.by_time], merge)
        self._forget(past)
        if follows(self._job.spec, self._job.sides) and CODE in prepared.rows.columns:
            last = prepared.rows[prepared.grouped.offsets[1:] - 1]
            rows = pl.DataFrame(
                {
                    "key": last[CODE],
                    "mark": marks(self._job.spec, last.select(*self._job.impressions.kinds, *self._coded, TIME)),
                    "begin": prepared.grouped.time,
                    "last": last[TIME].dt.timestamp("us"),
                    "number": prepared.rows[LINE].gather(prepared.first).cast(pl.Int64),
                    "shown": prepared.grouped.count(),
                }
            )
            rows = rows if self._requests is None else pl.concat([self._requests, rows])
            self._requests = rows.group_by("key", maintain_order=True).tail(newest(self._job.spec))

    def write(self, past: PointInTime, latest: LatestRows, folder: Path) -> None:
        """The state of the whole log, once the sweep is at its end."""
        job = self._job
        folder.mkdir(parents=True)
        self._forget(past)
        tables = {"recent": state.arrow(self._open.rows)}
        tables |= {name: state.arrow(table.rows) for name, table in job.sides.items()}
        tables |= {f"seen-{name}": self._seen(name, latest) for name in _SIDES.values()}
        nothing = [np.zeros(0, np.int64)] * len(REQUESTS)
        requests = nothing if self._requests is None else [column.to_numpy() for column in self._requests.get_columns()]
        tables |= {"requests": newest_table(requests), **dict(sweep_tables.tables(past.sweep, past.values))}
        for name, table in tables.items():
            arrow_file.write(folder / f"{name}.arrow", table)
        about = state.describe(job.spec, past.sweep, origins=job.origins, sides=job.sides, happened=job.described)
        write_json(folder / "state.json", about)

    def _forget(self, past: PointInTime) -> None:
        self._open.forget(past.sweep.forgotten - self._forgotten)
        self._forgotten = past.sweep.forgotten

    def _seen(self, table: str, latest: LatestRows) -> pa.Table:
        """The last values of impressions for each user, or for each item."""
        spec, job = self._job.spec, self._job
        columns = {name: side.rows.columns for name, side in job.sides.items()}
        origins = UserColumns.of(job.code, job.origins, columns).origins
        stored_fields = [
            field for side in _SIDES for field in fields(spec, side) if table_of(spec, origins, field) == table
        ]
        stored_fields = [field for field in stored_fields if origins[field.column].table == "impressions"]
        side = next(side for side, name in _SIDES.items() if name == table)
        if side not in latest.newest or not stored_fields:
            return pa.table(
                {KEY: pa.nulls(0), SEEN: pa.array([], pa.int64())}
                | {f.name: pa.nulls(0, f.kind) for f in stored_fields}
            )
        newest, key = latest.newest[side], str(spec.keys.user if side == "context" else spec.keys.item)
        rows = newest.rows()
        rows_of_key = {KEY: rows[key].to_arrow(), SEEN: pa.array(newest.times())}
        return pa.table(rows_of_key | {field.name: field.of(spec, rows[field.column]) for field in stored_fields})
