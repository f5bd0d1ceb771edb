"""Ingest: rows fed to the store, converted to its columns and types, timestamps parsed, duplicates dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features.logs import column_types, timestamps
from features.logs.dtypes import Notation, cast, cleaned, failed
from features.logs.logs import EventLog
from features.logs.timestamps import MOMENT, TIME, moments
from features.store.repeats import FedRows
from features.transforms import joins
from features.transforms import user_columns as code
from features.transforms.joins import ColumnOrigin, SideTable
from features.transforms.sessions import coded_context
from rec.errors import DataError, SpecError, nearest
from rec.spec import Spec

CODE = "code"  # where columns made by code come from
SINCE = "@since"  # the timestamp from which a row of a side table holds


@dataclass(frozen=True)
class UserColumns:
    """Columns made by code: the folder, and where each column comes from as far as a store is concerned.

    What reads nothing but a side table is as good as a column of that table; what reads more is known of an impression
    when it is fed, and of a request when it is sent.
    """

    folder: Path | None
    origins: Mapping[str, ColumnOrigin]
    names: tuple[str, ...]

    @classmethod
    def of(
        cls, folder: Path | None, origins: Mapping[str, ColumnOrigin], sides: Mapping[str, Sequence[str]]
    ) -> UserColumns:
        """Of the columns that `origins` says are made by code; `sides` are the columns of side tables."""
        names = tuple(column for column, origin in origins.items() if origin.table == CODE)
        if names and folder is None:
            raise SpecError(f"logs.columns: {names[0]!r} is made by code, and no folder of such columns is given")
        settled = dict(origins)
        for name in names:
            reads = set(code.load(folder)[name].reads)
            table = next((side for side, columns in sides.items() if reads <= set(columns)), "impressions")
            settled[name] = ColumnOrigin(table, origins[name].per_request)
        return cls(folder, settled, names)

    def of_side(self, table: str, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows of a side table with the columns made of it."""
        return code.evaluate(self.folder, [name for name in self.names if self.origins[name].table == table], rows)

    def of_context(self, spec: Spec, rows: pl.DataFrame) -> pl.DataFrame:
        """Impressions with those that part requests."""
        return code.evaluate(self.folder, coded_context(spec, self.folder, self.names, rows.columns), rows)

    def of_all(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Impressions with all such columns."""
        return code.evaluate(self.folder, self.names, rows)


def impressions(
    spec: Spec,
    rows: pl.DataFrame | pa.Table,
    *,
    like: pl.DataFrame,
    origins: Mapping[str, ColumnOrigin],
    logs: Mapping[str, EventLog],
) -> pl.DataFrame:
    """The columns of impressions that `like` has, those of side tables aside, of its types; and their timestamp.

    Columns of events that are logged apart, and those that only training reads, may be absent. Raises DataError for
    others that are, for values of another type, and for rows without an item or a timestamp.
    """
    given = pl.DataFrame(rows)
    absent = absences(logs) | dict.fromkeys(training_columns(spec))
    frames = [given[TIME] if TIME in given.columns else _moment(spec, given, "impressions")]
    for column, kind in like.schema.items():
        if column == TIME or (column in origins and origins[column].table != "impressions"):
            continue
        if column == spec.keys.time and kind == MOMENT:
            frames.append(frames[0].alias(column))
        elif column in given.columns:
            frames.append(typed(given, column, kind, spec))
        elif column in absent:
            frames.append(pl.Series(column, [absent[column]], kind).new_from_index(0, len(given)))
        else:
            raise DataError(f"impressions: no column {column!r}{nearest(column, given.columns)}")
    read = pl.DataFrame(frames)
    for column in (spec.keys.item, spec.keys.request, TIME):
        if column is not None and read[column].null_count():
            raise DataError(f"impressions: {column}: {read[column].null_count()} of {len(read)} rows have none")
    return read


def events(spec: Spec, rows: pl.DataFrame | pa.Table, name: str, log: EventLog, like: pl.DataFrame) -> pl.DataFrame:
    """Events of a log: their keys in the impressions' types, their timestamps and values."""
    given, keys = pl.DataFrame(rows), spec.keys
    key_columns = [keys.user, keys.item, keys.request if log.by_request else None]
    frames = []
    for column in [*(key for key in key_columns if key is not None), *log.values]:
        if column not in given.columns:
            raise DataError(f"{name}: no column {column!r}{nearest(column, given.columns)}")
        frames.append(typed(given, column, like.schema[column], spec) if column in like.columns else given[column])
    moment = given[TIME] if TIME in given.columns else _moment(spec, given, name)
    return pl.DataFrame([*frames, moment])


def absences(logs: Mapping[str, EventLog]) -> dict[str, int | None]:
    """The columns that events add to impressions, and their values without an event."""
    counts: dict[str, int | None] = {}
    for name, log in logs.items():
        counts |= {name: 0, f"{name}_count": 0, f"{name}_time": None, **dict.fromkeys(log.values)}
    return counts


def training_columns(spec: Spec) -> list[str]:
    """The columns that a store of features does without: the one that says the split, and those of weights alone."""
    others = {use.column for use in joins.needs(spec) if not use.place.endswith(joins.WEIGHT)}
    weights = [use.column for use in joins.needs(spec) if use.column not in others]
    return weights if spec.split.column is None else [spec.split.column, *weights]


def without_repeats(
    spec: Spec, rows: pl.DataFrame, known: pl.DataFrame, logs: Mapping[str, EventLog], fed: FedRows
) -> pl.DataFrame:
    """The rows that are not alike, in every column but what events made, to one before them, `known` or `fed` lately.

    Two rows of nobody, in no request that they name, may be of two people: they stay.
    """
    if spec.keys.user is None and spec.keys.request is None:
        return rows
    absent, nobody = absences(logs), spec.keys.request is None
    columns = [column for column in rows.columns if column not in absent]
    code = rows.select(columns).hash_rows()
    new = pl.Series(fed.fresh(rows.select(columns)), dtype=pl.Boolean)
    if not known.is_empty() and not rows.is_empty():
        since = known.filter(pl.col(TIME) >= rows[TIME].min())
        new &= ~code.is_in(since.select(columns).hash_rows().implode())
    return rows.filter(new | rows[str(spec.keys.user)].is_null() if nobody else new)


def described(spec: Spec, name: str, side: SideTable, rows: pl.DataFrame | pa.Table, since: str | None) -> pl.DataFrame:
    """Rows for a side table, with its columns and of its types; each key once, or once a timestamp."""
    given = pl.DataFrame(rows)
    if side.changing != (since is not None):
        raise DataError(f"{name}: expected rows {'with' if side.changing else 'without'} a timestamp they hold from")
    if since is not None:
        where = f"{name}: column {since!r}"
        began = moments(
            given[since], unit=spec.keys.time_unit, where=where, form=spec.keys.time_format, zone=spec.keys.time_zone
        )
        given = given.with_columns(began.alias(SINCE))
    for column in side.rows.columns:
        if column not in given.columns:
            raise DataError(f"{name}: no column {column!r}{nearest(column, given.columns)}")
    frame = pl.DataFrame([typed(given, column, kind, spec) for column, kind in side.rows.schema.items()])
    by = [side.key] if since is None else [side.key, SINCE]
    return frame.filter(pl.col(side.key).is_not_null()).unique(by, keep="last", maintain_order=True)


def joined(
    rows: pl.DataFrame,
    sides: Mapping[str, SideTable],
    origins: Mapping[str, ColumnOrigin],
    *,
    begin: np.ndarray,
    like: pl.DataFrame,
    computed: UserColumns,
) -> pl.DataFrame:
    """Impressions with the columns of items, and of users where candidates need them, as their request saw them."""
    for name in ("items", "users"):
        if name in sides:
            side_columns = [c for c, origin in origins.items() if origin.table == name and c in like.columns]
            rows = sides[name].joined(rows, side_columns, begin)
    return computed.of_all(rows).select(like.columns)


def merged(rows: pl.DataFrame, events: pl.DataFrame, name: str, log: EventLog) -> pl.DataFrame:
    """Impressions with columns of new events: of several events the first in time gives the timestamp and values."""
    time, count = f"{name}_time", f"{name}_count"
    new = events.select(pl.col(name, time, count, *log.values).name.prefix("@new."))
    both = rows.hstack(new)
    came = pl.col(f"@new.{name}") == 1
    if time in rows.columns:
        first = came & (pl.col(time).is_null() | (pl.col(f"@new.{time}") < pl.col(time)))
    else:
        first = came & (pl.col(name) == 0)
    changed = [pl.when(came).then(1).otherwise(pl.col(name)).cast(rows.schema[name]).alias(name)]
    if count in rows.columns:
        changed.append((pl.col(count) + pl.col(f"@new.{count}")).alias(count))
    for column in (time, *log.values):
        if column in rows.columns:
            value = pl.col(f"@new.{column}").cast(rows.schema[column])
            changed.append(pl.when(first).then(value).otherwise(pl.col(column)).alias(column))
    return both.with_columns(changed).select(rows.columns)


def typed(rows: pl.DataFrame, column: str, kind: pl.DataType, spec: Spec) -> pl.Series:
    """A column as another type; DataError for a value that cannot be one."""
    values, keys, how = rows[column], spec.keys, Notation.of(spec)
    if kind == MOMENT and not isinstance(values.dtype, pl.Datetime):
        raw = cleaned(values, how.missing)
        values_typed = timestamps.of_outcomes(raw, raw.dtype, keys.time_unit, keys.time_format, keys.time_zone)
    else:
        key = column in (keys.user, keys.item, keys.request, keys.session)
        values_typed = cast(values, kind, how, split=column_types.split_of(spec, column), key=key)
    lost = failed(values, values_typed, how)
    if lost.any():
        raise DataError(f"{column}: expected {kind}, got {values.filter(lost)[0]!r}")
    return values_typed


def _moment(spec: Spec, rows: pl.DataFrame, where: str) -> pl.Series:
    column = str(spec.keys.time)
    if column not in rows.columns:
        raise DataError(f"{where}: no column {column!r}{nearest(column, rows.columns)}")
    where = f"{where}: column {column!r}"
    keys, values = spec.keys, cleaned(rows[column], spec.logs.missing)
    return moments(values, unit=keys.time_unit, where=where, form=keys.time_format, zone=keys.time_zone).alias(TIME)
