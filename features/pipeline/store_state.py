"""The feature store's initial state, written by a build: by partitions of users and buckets of keys, then concatenated.

    of_partition   impressions with open windows, totals of keys that include the user, histories, sessions
    of_bucket      totals of the other keys
    write          all of it concatenated, as `features.store.state` loads it

The state is as of just after the last impression. Later events in the logs, such as a purchase in a window that is
still open, are stored with the impressions with open windows, and are counted when the store's clock reaches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.logs.timestamps import TIME
from features.pipeline.job import BuildJob
from features.pipeline.prepare import Partition, key_of
from features.store import state
from features.store.aggregates import Aggregates, HistorySource
from features.store.entities import KEY, SEEN, fields, table_of
from features.store.ingest import UserColumns
from features.store.sessions import follows, marks, newest, newest_table, sits, sittings_table, who_sits
from features.store.totals import totals_table, track_table
from features.transforms.base_rates import BaseRates
from features.transforms.counters import EventIndex
from features.transforms.joins import SideTable
from rec.atomic import read_json, write_json
from rec.data import arrow_file
from rec.request import spans
from rec.spec import Spec
from rec.spec.tasks import behaviours

_US = timedelta(microseconds=1)
_SIDES = ("context", "candidates")


def of_partition(job: BuildJob, index: int, shard: Partition) -> None:
    """Write the state of a partition of users."""
    clock, memory = job.last + 1, Aggregates(job.spec)
    order = hashing.order(shard.moments, shard.grouped.place)
    rows = shard.impressions(order)
    labels = {name: label[order] for name, label in shard.labels.items()}
    recent = rows.filter(pl.Series(shard.moments[order] + memory.horizon(job.described) >= clock))
    _save(job, "recent", index, state.arrow(recent.select(_like(job).columns)))
    for per in job.local:
        past, _ = _past(per, rows, labels)
        _save(job, f"total-{list(memory.totals).index(per)}", index, totals(memory, per, past, clock))
    if memory.tracks:
        past, kept = _past((str(job.spec.keys.user),), rows, labels)
        for number, of in enumerate(memory.tracks):
            table = history(memory, of, past, rows=rows[kept], labels=_taken(labels, kept), clock=clock)
            _save(job, f"track-{number}", index, table)
    for name, table in seen(job, rows).items():
        _save(job, f"seen-{name}", index, table)
    _save(job, "requests", index, requests(job, shard))
    _save(job, "sittings", index, sessions(job, shard))
    plain = {name: one.plain() for name, one in hours(job.spec, rows, labels, clock).items()}
    write_json(_aside(job, "hours", index), plain)


def of_bucket(job: BuildJob, group: int, bucket: int, past: EventIndex) -> None:
    """Write the totals of a bucket of a key's values; `group` is the key's place in `job.foreign`."""
    memory, per = Aggregates(job.spec), job.foreign[group]
    name = f"total-{list(memory.totals).index(per)}"
    _save(job, name, bucket, totals(memory, per, past, job.last + 1))


def write(job: BuildJob, folder: Path) -> None:
    """Write the state of the whole log into a folder."""
    memory = Aggregates(job.spec)
    folder.mkdir(parents=True)
    recent = pl.concat([pl.DataFrame(one) for one in _found(job, "recent")])
    by = [key for key in (TIME, job.spec.keys.user, job.spec.keys.item) if key is not None]
    arrow_file.write(
        folder / "recent.arrow", state.arrow(recent.sort(by, maintain_order=True))
    )  # whatever the partitions
    names = ["requests", "sittings", *(f"track-{number}" for number in range(len(memory.tracks)))]
    names += [f"total-{number}" for number in range(len(memory.totals))]
    for name in names:
        whole = pa.concat_tables(_found(job, name))
        whole = whole.sort_by("key") if name.startswith("total") else whole
        arrow_file.write(folder / f"{name}.arrow", whole.combine_chunks())
    for name in ("users", "items"):
        whole = pl.concat([pl.DataFrame(one) for one in _found(job, f"seen-{name}")])
        last = whole.sort(SEEN, maintain_order=True).unique(KEY, keep="last", maintain_order=True)
        arrow_file.write(folder / f"seen-{name}.arrow", state.arrow(last))
    sides = _sides(job)
    for name, side in sides.items():
        arrow_file.write(folder / f"{name}.arrow", state.arrow(side.rows))
    parts = [read_json(_aside(job, "hours", index)) for index in range(job.division.sizes[0])]
    bases = {name: BaseRates.merged(BaseRates.from_plain(part[name]) for part in parts) for name in memory.bases}
    told = state.about(
        job.spec, clock=job.last + 1, bases=bases, origins=job.origins, sides=sides, happened=job.described
    )
    write_json(folder / "state.json", told)


def totals(memory: Aggregates, per: tuple[str, ...], past: EventIndex, clock: int) -> pa.Table:
    """The totals of every value of a key just before `clock` (microseconds), of all its events."""
    layout, lag = memory.totals[per], memory.lags
    places, at = np.arange(len(past.keys)), np.full(len(past.keys), clock)
    sums = []
    for task, window in layout.place:
        sums += past.count(task, places, at - lag[task], window)
    return totals_table(past.keys, sums, [past.last(task, places, at - lag[task]) for task in layout.last_place])


def history(
    memory: Aggregates,
    of: HistorySource,
    past: EventIndex,
    *,
    rows: pl.DataFrame,
    labels: Mapping[str, np.ndarray],
    clock: int,
) -> pa.Table:
    """The last values of every user just before `clock`; `rows` [N] and `labels` are the events of `past`."""
    kept = rows[of.column].is_not_null().to_numpy()
    kept = kept if of.task is None else kept & (labels[of.task] == 1)
    events = past.order[kept[past.order]]
    before = np.concatenate([[0], np.cumsum(kept[past.order])])
    places = np.arange(len(past.keys))
    first, last = past.between(places, np.full(len(places), clock - memory.lags[of.task]), None)
    end = before[last]
    length = np.minimum(end - before[first], memory.tracks[of].last)
    taken = events[spans(end - length, length)]
    time = rows[TIME].dt.timestamp("us").to_numpy()[taken]
    return track_table(past.keys, np.append(0, np.cumsum(length)), time, memory.values(of, rows[of.column][taken]))


def hours(spec: Spec, rows: pl.DataFrame, labels: Mapping[str, np.ndarray], clock: int) -> dict[str, BaseRates]:
    """The hours in which outcomes became known before `clock`, of every behaviour."""
    made, time = {}, rows[TIME].dt.timestamp("us").to_numpy()
    for name, one in behaviours(spec).items():
        known = time + one.window // _US
        past = known < clock
        made[name] = BaseRates.of(known[past], labels[name][past])
    return made


def seen(job: BuildJob, rows: pl.DataFrame) -> dict[str, pa.Table]:
    """The last values of impressions, ordered by time, for each user and for each item."""
    spec = job.spec
    origins = UserColumns.of(
        job.code, job.origins, {name: side.rows.columns for name, side in _sides(job).items()}
    ).origins
    made = {}
    for table, key in (("users", spec.keys.user), ("items", spec.keys.item)):
        wanted = [field for side in _SIDES for field in fields(spec, side) if table_of(spec, origins, field) == table]
        wanted = [field for field in wanted if origins[field.column].table == "impressions"]
        last = rows.clear()
        if key is not None and wanted:
            last = rows.filter(pl.col(key).is_not_null()).unique(key, keep="last", maintain_order=True)
        columns = {
            KEY: last[key].to_arrow() if key is not None else pa.nulls(0),
            SEEN: last[TIME].dt.timestamp("us").to_arrow(),
        }
        made[table] = pa.table(columns | {field.name: field.of(spec, last[field.column]) for field in wanted})
    return made


def requests(job: BuildJob, shard: Partition) -> pa.Table:
    """The newest requests of every user, the newest last."""
    spec, grouped = job.spec, shard.grouped
    if not follows(spec, _sides(job)):
        return newest_table(*(np.zeros(0, np.int64) for _ in range(4)))
    last = grouped.offsets[1:] - 1
    user = np.append(np.flatnonzero(grouped.code[1:] != grouped.code[:-1]), len(last) - 1)
    later = np.repeat(user, np.diff(user, prepend=-1)) - np.arange(len(last))
    kept = np.flatnonzero(later < newest(spec))
    mark = marks(spec, shard.impressions(last[kept]).select(*job.impressions.kinds, TIME))
    return newest_table(grouped.code[kept], mark, grouped.time[kept], shard.moments[last[kept]])


def sessions(job: BuildJob, shard: Partition) -> pa.Table:
    """The sessions that requests of the logs belong to: all where they have ids, otherwise the newest of every user."""
    spec, grouped = job.spec, shard.grouped
    if not sits(spec):
        return sittings_table(*(np.zeros(0, np.int64) for _ in range(4)))
    who, known = who_sits(spec, shard.impressions(grouped.offsets[:-1]))
    who, time = who[known], grouped.time[known]
    order = hashing.order(who, time)
    who, time = who[order], time[order]
    other = who[1:] != who[:-1]
    new = np.ones(len(who), bool)
    new[1:] = other if spec.keys.session is not None else other | (np.diff(time) > spec.sessions.gap // _US)
    start = np.flatnonzero(new)
    end = np.append(start[1:], len(who))
    newest_of = np.append(who[start][1:] != who[start][:-1], True)[: len(start)]
    start, end = start[newest_of], end[newest_of]
    return sittings_table(who[start], time[start], time[end - 1], end - start)


def _past(per: tuple[str, ...], rows: pl.DataFrame, labels: Mapping[str, np.ndarray]) -> tuple[EventIndex, np.ndarray]:
    """The events of a key, for the rows that have one (their places)."""
    code, missing = key_of(per, rows)
    kept = np.flatnonzero(~missing)
    time = rows[TIME].dt.timestamp("us").to_numpy()[kept]
    return EventIndex(code[kept], time, _taken(labels, kept), place_E=kept), kept


def _taken(labels: Mapping[str, np.ndarray], places: np.ndarray) -> dict[str, np.ndarray]:
    return {name: label[places] for name, label in labels.items()}


def _like(job: BuildJob) -> pl.DataFrame:
    events = state.events_of(job.described, {name: log.kinds for name, log in job.happened.items()})
    return state.like({**job.impressions.kinds, **events}, _sides(job), job.origins, job.code)


def _sides(job: BuildJob) -> dict[str, SideTable]:
    return {name: side for name in ("users", "items") if (side := job.side(name)) is not None}


def _aside(job: BuildJob, name: str, index: int) -> Path:
    folder = job.work / "state" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{index:05d}"


def _save(job: BuildJob, name: str, index: int, table: pa.Table) -> None:
    arrow_file.write(_aside(job, name, index), table)


def _found(job: BuildJob, name: str) -> list[pa.Table]:
    return [
        arrow_file.read(path, what="part of a store's state") for path in sorted((job.work / "state" / name).iterdir())
    ]
