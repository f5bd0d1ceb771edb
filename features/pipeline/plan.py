"""What is read from where: the columns of every log and table that a spec needs, before any row of them is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from features.logs import reader
from features.logs.logs import EventLog, Logs, columns_in
from features.logs.moments import looks_like_moments
from features.pipeline.job import BuildJob
from features.store import state
from features.store.state import events_of
from features.transforms import fit, joins, label_sql, labels, outcome_times, sample_weights, user_columns
from features.transforms.joins import ColumnOrigin
from rec.errors import SpecError
from rec.spec import Spec


def planned(spec: Spec, logs: Logs, work: Path, *, latest: int | None, snapshot: bool, rows: int) -> BuildJob:
    """Which columns are read from where; side tables are read at once."""
    own = columns_in(logs.impressions)
    events: dict[str, pl.DataType] = {}
    for name, log in logs.happened.items():
        schemas = events_of({name: log}, {name: columns_in(log.pieces)})
        events |= schemas
        early = labels.too_early(spec, name, schemas)
        if early:
            raise SpecError(f"{early[0]}, which is not known when it is shown; the model would be given the answer")
    sides = joins.side_schemas(spec, logs)
    schemas, coded = {"impressions": {**own, **events}, **sides}, user_columns.load(logs.columns)
    leaking = labels.leaks_of_code(spec, {name: column.reads for name, column in coded.items()})
    if leaking:
        raise SpecError(f"{leaking[0]}; the model would be given the answer")
    weighing = sample_weights.leaks(spec, {name: column.reads for name, column in coded.items()})
    if weighing:
        raise SpecError(weighing[0])
    absent = joins.absent_labels(spec, schemas, coded)
    origins = joins.origins(spec, schemas, coded, absent=absent)
    impression_columns = [
        column for column, origin in origins.items() if origin.table == "impressions" and column not in events
    ]
    times = outcome_times.planned(spec, own, events, partial(looks_like_moments, spec, logs.impressions))
    columns = list(dict.fromkeys([*impression_columns, *times.columns()]))
    of_labels = _of_labels(spec, origins, own, absent)
    moments = times.sure()
    impressions = reader.plan(spec, logs.impressions, columns, "impressions", moments=moments, of_labels=of_labels)
    paths = {}
    for name, side, key in (("users", logs.users, spec.keys.user), ("items", logs.items, spec.keys.item)):
        paths[name] = joins.side_table(spec, name, side, origins, key_kind=impressions.kinds.get(key or ""))
    happened = {name: _plan_events(spec, name, log, impressions.kinds) for name, log in logs.happened.items()}
    described = {name: replace(log, pieces=()) for name, log in logs.happened.items()}
    logged = (impressions, happened, described)
    tables = {name: table for name, table in paths.items() if table is not None}
    shape = state.like({**impressions.kinds, **events}, tables, origins, logs.columns).schema
    fit.refuse_unfit(
        spec, {**{c: kind for side in tables.values() for c, kind in side.rows.schema.items()}, **shape, **own}
    )
    return BuildJob(
        spec, work, *logged, origins=origins, sides=tables, code=logs.columns, times=times, absent=absent,
        latest=latest, snapshot=snapshot, rows=rows,
    )  # fmt: skip


def _of_labels(
    spec: Spec, origins: Mapping[str, ColumnOrigin], own: Mapping[str, pl.DataType], absent: Collection[str]
) -> dict[str, int]:
    """The columns of impressions that labels alone read, with the bits of these labels; `absent` are in no file."""
    others = {use.column for use in joins.needs(spec) if not joins.of_label(use)}
    bits = _bits(spec)
    alone = [c for c in bits if c in own and c not in others and origins[c].table == "impressions"]
    return {column: bits[column] for column in (*alone, *absent)}


def _bits(spec: Spec) -> dict[str, int]:
    """The columns of labels and of their sample weights, each with a bit for every label not known without it."""
    of_column: dict[str, int] = {}
    for place, (where, behaviour) in enumerate(outcome_times.behaviours(spec)):
        weight = getattr(behaviour, "sample_weight", None)
        read = label_sql.columns(where, behaviour.label)
        read += [behaviour.time] if behaviour.time else []
        read += [] if weight is None else label_sql.columns(where, weight, key="sample_weight")
        for column in read:
            of_column[column] = of_column.get(column, 0) | 1 << place
    return of_column


def _plan_events(spec: Spec, name: str, log: EventLog, kinds: Mapping[str, pl.DataType]) -> reader.ReadPlan:
    named = [spec.keys.user, spec.keys.item, spec.keys.request if log.by_request else None]
    by = [key for key in named if key is not None]
    return reader.plan(spec, log.pieces, [*by, *log.values], f"source.events.{name}", kinds={k: kinds[k] for k in by})
