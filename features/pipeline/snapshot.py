"""The store's first rows: the latest row of every user and every item, just after the log's end.

    store/context.arrow      @key  @as_of  @seen  + the context's fields, one row per user
    store/candidates.arrow   @key  @as_of  @seen  + the candidates' fields, one row per item

Counts, rates and histories are as of the end of the log (`@as_of`), and so is what side tables say; other features have
the value of the last impression, which was at `@seen`: their fields are marked (OF_LAST). Both moments are null in logs
without timestamps. Users and items that are only in a side table and were never shown are included; nothing of theirs
is older than `@as_of`. Sorted by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.hashing import LINE
from features.pipeline.job import BuildJob
from features.pipeline.point_in_time import Columns, Keys, PointInTime
from features.pipeline.prepare import PreparedSlice
from features.pipeline.side_columns import SideColumns
from features.sweep.events import RequestKeys
from features.sweep.newest_rows import NewestRows
from features.transforms import attributes
from features.transforms.counters import asked_by
from features.transforms.joins import SideTable, column_of
from rec.data import arrow_file
from rec.data.session_table import TIME, field_type, side_fields
from rec.data.stored_rows import AS_OF, KEY, OF_LAST, SEEN
from rec.errors import SpecError
from rec.spec import Id, Kept, Spec

_TABLES = {"context": "users", "candidates": "items"}


class LatestRows:
    """The last impression of every user and of every item."""

    def __init__(self, job: BuildJob) -> None:
        """Nobody was shown anything."""
        self._job = job
        keys = {"context": job.spec.keys.user, "candidates": job.spec.keys.item}
        self.newest = {side: NewestRows() for side, key in keys.items() if key is not None}
        self._keys = keys
        self._read_columns = {side: job.read_by(side) for side in self.newest}

    def add(self, prepared: PreparedSlice, past: PointInTime) -> dict[str, np.ndarray]:
        """The impressions of a slice; the rows of their users and of their items, by side."""
        rows_of = {}
        for side, newest in self.newest.items():
            columns = [column for column in self._read_columns[side] if column in prepared.rows.columns]
            code, known = past.hashed(str(self._keys[side]), prepared)
            rows = prepared.rows.select(columns)
            rows_of[side] = newest.add(code, known, rows, prepared.moments, prepared.rows[LINE].to_numpy())
        return rows_of

    def everybody(self, side: str, sides: Mapping[str, SideColumns], time: int) -> pl.DataFrame:
        """The newest rows of a side's keys, those never shown included, with the columns of its table as of `time`."""
        key, name = str(self._keys[side]), _TABLES[side]
        newest = self.newest[side]
        rows = newest.rows().with_columns(pl.Series(SEEN, newest.times()))
        if name not in sides:
            return rows
        table, table_columns = sides[name].table, self._job.of(name)
        rows = rows.drop([column for column in table_columns if column in rows.columns])
        never = table.latest().join(rows.select(key), on=key, how="anti").select(key)
        rows = pl.concat([rows, never], how="diagonal")
        rows = table.joined(rows, table_columns, np.full(len(rows), time))
        other = {n: side_columns.table for n, side_columns in sides.items() if n != name}
        return _with_nothing(rows, other, self._job, side)


def as_of(past: PointInTime, side: str, rows: pl.DataFrame, time: int) -> Columns:
    """What a sweep says of a side's keys as of `time`, after which nothing is fed."""
    sweep, count, keys = past.sweep, len(rows), {}
    for per, (code, known) in keys_of(past.job, side, rows).items():
        keys[per] = sweep.groups[per].table.find(code, known)
    if side == "candidates":
        nobody, offsets = np.full(1, -1, np.int32), np.array([0, count])
        moment = np.array([time])
        _, columns = past.answered(sweep.ask(RequestKeys(moment, offsets, {}, keys, nobody, nobody)), moment)
        return columns
    people = sweep.people.find(hashing.hashed(rows[str(past.job.spec.keys.user)]))
    nobody, offsets, moments = np.full(count, -1, np.int32), np.zeros(count + 1, np.int64), np.full(count, time)
    return past.answered(sweep.ask(RequestKeys(moments, offsets, keys, {}, people, nobody)), moments)[0]


def keys_of(job: BuildJob, side: str, rows: pl.DataFrame) -> dict[tuple[str, ...], Keys]:
    """The hashes of the keys that a side's counters are per, and whether each row has one."""
    keys = {}
    for per in (per for per, own in job.groups.items() if any(counter.side == side for counter in own)):
        code, missing = hashing.together([rows[column] for column in asked_by(per)])
        # an item by itself is nobody's
        keys[per] = code, ~missing & (side != "candidates" or job.spec.keys.user not in asked_by(per))
    return keys


def write(job: BuildJob, finals: Mapping[str, tuple[pl.DataFrame, Columns]], time: int, folder: Path) -> None:
    """The rows of each side, and what the past says of them as of `time`, as the store's first rows."""
    folder.mkdir(parents=True)
    for side, (rows, past) in finals.items():
        table = _table(job, side, rows, attributes.side(job.spec, side, rows, past), time)
        arrow_file.write(folder / f"{side}.arrow", table.sort_by(KEY).combine_chunks())


def _with_nothing(rows: pl.DataFrame, sides: Mapping[str, SideTable], job: BuildJob, side: str) -> pl.DataFrame:
    """Rows with nulls in columns that only other tables have."""
    kinds = {column: kind for table in sides.values() for column, kind in table.rows.schema.items()}
    lacking = [column for column in job.read_by(side) if column not in rows.columns]
    return rows.with_columns(pl.lit(None, kinds.get(column, pl.Null())).alias(column) for column in lacking)


def _table(job: BuildJob, side: str, rows: pl.DataFrame, columns: dict[str, pa.Array], time: int) -> pa.Table:
    spec, kind = job.spec, _key_type(job.spec, side)
    key = str(spec.keys.user if side == "context" else spec.keys.item)
    last = _of_last_impression(job, side)
    fields = [field.with_metadata(OF_LAST) if field.name in last else field for field in _fields(spec, side)]
    shape = pa.schema([pa.field(KEY, kind), pa.field(AS_OF, TIME), pa.field(SEEN, TIME), *fields])
    moments = {AS_OF: pa.nulls(len(rows), TIME), SEEN: pa.nulls(len(rows), TIME)}
    if spec.keys.time is not None:
        as_of = pa.array(np.full(len(rows), time))
        moments = {AS_OF: as_of.cast(TIME), SEEN: rows[SEEN].fill_null(time).to_arrow().cast(TIME)}
    columns_of = {KEY: rows[key].to_arrow().cast(kind), **moments, **columns}
    return pa.table([columns_of[field.name] for field in shape], schema=shape)


def _fields(spec: Spec, side: str) -> list[pa.Field]:
    return side_fields(dict(spec.sides())[side])


def _of_last_impression(job: BuildJob, side: str) -> set[str]:
    """Features of a side that are values of the last impression: neither made of the past nor of the side's table."""
    return {
        name
        for name, feature in dict(job.spec.sides())[side].items()
        if getattr(feature, "make", "column") in ("column", "age", "tokens")
        and field_type(feature) is not None
        and job.origins[column_of(feature, name, job.spec)].table != _TABLES[side]
    }


def _key_type(spec: Spec, side: str) -> pa.DataType:
    key = str(spec.key_feature("user" if side == "context" else "item"))
    feature = dict(spec.sides())[side][key]
    kind = field_type(feature)
    if not isinstance(feature, Id | Kept) or kind not in (pa.int64(), pa.string()):
        raise SpecError(f"{side}.{key}: expected an id or a kept int or string, since it is a key, got {feature.kind}")
    return kind
