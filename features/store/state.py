"""State of a feature store on disk: Arrow files and a little JSON, written whole or not at all.

    state/recent.arrow          impressions with open windows, columns of side tables joined, in the order of the queue
    state/queue.arrow           what the sweep has queued of them
    state/key-0.arrow ...       totals of each key that counters are per, in the spec's order
    state/people.arrow          users, history-0.arrow ... their last values, words-0.arrow ... text that these hold
    state/open_sessions.arrow        sessions, waiting.arrow requests that come to them
    state/users.arrow           side tables; items.arrow
    state/seen-users.arrow      latest rows, for columns of impressions; seen-items.arrow
    state/requests.arrow        newest requests of every user
    state/fed-0.arrow ...       hashes of rows that were fed lately: impressions, then each log of events
    state/state.json            timestamp of the state, base rates, where columns come from

Keys are stored as 64-bit hashes.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from features import hashing
from features.logs import reader
from features.logs.logs import EventLog, Logs, columns_in
from features.logs.moments import looks_like_moments
from features.logs.timestamps import MOMENT, TIME
from features.store.entities import KEY, SEEN
from features.store.ingest import CODE
from features.store.store import FeatureStore
from features.sweep import sweep_tables
from features.sweep.sweep import Sweep
from features.transforms import joins, outcome_times, user_columns
from features.transforms.joins import ColumnOrigin, SideTable
from rec.atomic import read_json, whole_folder, write_json
from rec.data import arrow_file
from rec.errors import BundleError
from rec.spec import Spec, dump

FORMAT = 3
_US = timedelta(microseconds=1)
_READ = ("keys", "requests", "sessions", "context", "candidates", "events", "tasks")  # what a state depends on


def empty(spec: Spec, logs: Logs) -> FeatureStore:
    """A store that knows the side tables of some logs and the columns of their impressions, but no impression."""
    has = {name: columns_in(log.pieces) for name, log in logs.happened.items()}
    own, events = columns_in(logs.impressions), events_of(logs.happened, has)
    sides = joins.side_schemas(spec, logs)
    origins = joins.origins(spec, {"impressions": {**own, **events}, **sides}, user_columns.load(logs.columns))
    impression_columns = [
        column for column, origin in origins.items() if origin.table == "impressions" and column not in events
    ]
    times = outcome_times.planned(spec, own, events, partial(looks_like_moments, spec, logs.impressions))
    columns = list(dict.fromkeys([*impression_columns, *times.columns()]))
    kinds = reader.plan(spec, logs.impressions, columns, "impressions", moments=times.sure()).kinds
    tabled = {}
    for name, side, key in (("users", logs.users, spec.keys.user), ("items", logs.items, spec.keys.item)):
        table = joins.side_table(spec, name, side, origins, key_kind=kinds.get(key or ""))
        if table is not None:
            tabled[name] = table
    shape = like({**kinds, **events}, tabled, origins, logs.columns)
    return FeatureStore(spec, shape, origins, sides=tabled, happened=logs.happened, code=logs.columns)


def events_of(
    happened: Mapping[str, EventLog], kinds: Mapping[str, Mapping[str, pl.DataType]]
) -> dict[str, pl.DataType]:
    """The columns that impressions get from logs of events, and their types; `kinds` are those of the logs' columns."""
    schema: dict[str, pl.DataType] = {}
    for name, log in happened.items():
        schema |= {name: pl.Int8(), f"{name}_time": MOMENT, f"{name}_count": pl.Int64()}
        schema |= {value: kinds[name][value] for value in log.values}
    return schema


def like(
    kinds: Mapping[str, pl.DataType],
    sides: Mapping[str, SideTable],
    origins: Mapping[str, ColumnOrigin],
    folder: Path | None,
) -> pl.DataFrame:
    """An empty table of impressions: columns of the log, of events, of side tables and by code, and the timestamp."""
    kinds_of = {**kinds, TIME: MOMENT}
    for name, side in sides.items():
        schema = side.rows.schema
        joined = [
            c for c, origin in origins.items() if origin.table == name and not (name == "users" and origin.per_request)
        ]
        kinds_of |= {column: schema[column] for column in joined}
    return user_columns.evaluate(
        folder, [c for c, origin in origins.items() if origin.table == CODE], pl.DataFrame(schema=kinds_of)
    )


def save(store: FeatureStore, folder: Path) -> None:
    """Write a store into a folder, whole or not at all."""
    store.settle()
    with whole_folder(folder) as beside:
        for name, table in _tables(store):
            arrow_file.write(beside / f"{name}.arrow", table)
        about = describe(store.spec, store.sweep, origins=store.origins, sides=store.sides, happened=store.logs)
        write_json(beside / "state.json", about)


def load(
    spec: Spec, folder: Path, *, happened: Mapping[str, EventLog] | None = None, columns: Path | None = None
) -> FeatureStore:
    """A store as it was saved.

    `happened` are logs of events whose columns the saved logs had among their impressions'; `columns` is the folder of
    columns made by code.
    Raises BundleError for a folder that is not whole, that another spec was meant by, or whose hashes are not ours.
    """
    about = read_json(folder / "state.json")
    _check(spec, about, folder)
    recent = _read(folder, "recent")
    origins = {column: ColumnOrigin(*origin) for column, origin in about["origins"].items()}
    keyed = {"users": spec.keys.user, "items": spec.keys.item}
    sides = {name: SideTable(_read(folder, name), str(keyed[name])) for name in about["sides"]}
    logs = {name: _happened(origin) for name, origin in about["happened"].items()} | dict(happened or {})
    clock = about["sweep"]["clock"]
    store = FeatureStore(spec, recent, origins, sides=sides, happened=logs, code=columns, clock=clock)
    sweep_tables.restore(store.sweep, store.coder.values, about["sweep"], lambda name: _table(folder, name))
    for name, latest in store.latest.items():
        seen = _table(folder, f"seen-{name}")
        named = [column for column in seen.column_names if column not in (KEY, SEEN)]
        latest.see(seen[KEY].to_pylist(), seen[SEEN].to_numpy(), {c: seen[c].combine_chunks() for c in named})
    store.requests.fill(_table(folder, "requests"))
    for number, fed in enumerate(store.fed.values()):
        if (folder / f"fed-{number}.arrow").exists():  # a build leaves none: rows with open windows tell its repeats
            fed.fill(_table(folder, f"fed-{number}"))
    store.restored(recent)
    return store


def describe(
    spec: Spec,
    sweep: Sweep,
    *,
    origins: Mapping[str, ColumnOrigin],
    sides: Iterable[str],
    happened: Mapping[str, EventLog],
) -> dict[str, Any]:
    """What state.json says."""
    return {
        "format": FORMAT,
        "spec": _digest(spec),
        "hash": _probe(),
        "sweep": sweep_tables.figures(sweep),
        "origins": {column: [origin.table, origin.per_request] for column, origin in origins.items()},
        "sides": list(sides),
        "happened": {name: _plain(log) for name, log in happened.items()},
    }


def arrow(rows: pl.DataFrame) -> pa.Table:
    """A frame as a table that any reader of Arrow files understands."""
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())


def _tables(store: FeatureStore) -> Iterator[tuple[str, pa.Table]]:
    yield "recent", arrow(store.open_windows.rows)
    for name, side in store.sides.items():
        yield name, arrow(side.rows)
    for name, latest in store.latest.items():
        yield f"seen-{name}", latest.table([field.name for field in store.seen(name)])
    yield "requests", store.requests.table()
    for number, fed in enumerate(store.fed.values()):
        yield f"fed-{number}", fed.table()
    yield from sweep_tables.tables(store.sweep, store.coder.values)


def _digest(spec: Spec) -> str:
    """The parts of a spec that a state depends on, as one hash."""
    parts = {name: value for name, value in tomllib.loads(dump(spec)).items() if name in _READ}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _probe() -> str:
    """What a word and a number hash to: another version of polars might hash words otherwise."""
    return str(hashing.combined([hashing.hashed(pl.Series(["probe"])), hashing.hashed(pl.Series([1]))])[0])


def _check(spec: Spec, saved: Mapping[str, Any], folder: Path) -> None:
    if saved.get("format") != FORMAT:
        raise BundleError(f"{folder}: expected a state of format {FORMAT}, got {saved.get('format')}")
    if saved["spec"] != _digest(spec):
        raise BundleError(f"{folder}: was written for a spec with other keys, features, events or tasks")
    if saved["hash"] != _probe():
        raise BundleError(f"{folder}: its keys were hashed by another version of polars; write it again")


def _plain(log: EventLog) -> dict[str, Any]:
    within = None if log.within is None else log.within // _US
    return {"values": list(log.values), "within": within, "by_request": log.by_request}


def _happened(plain: Mapping[str, Any]) -> EventLog:
    within = None if plain["within"] is None else plain["within"] * _US
    return EventLog((), tuple(plain["values"]), within, plain["by_request"])


def _read(folder: Path, name: str) -> pl.DataFrame:
    return pl.DataFrame(_table(folder, name))


def _table(folder: Path, name: str) -> pa.Table:
    return arrow_file.read(folder / f"{name}.arrow", what="table of a store's state")
