"""The store's first rows: the latest row of every user and every item, just after the log's end.

    store/context.arrow      key  + the context's fields, one row per user
    store/candidates.arrow   key  + the candidates' fields, one row per item

Counts, rates and histories are as of the end of the log; other features have their last seen value. Users and items
that are only in a side table and were never shown are included. Sorted by key.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features.hashing import CODE
from features.pipeline import aggregate
from features.pipeline.job import BuildJob
from features.pipeline.point_in_time import PointInTime, foreign_finals, nobodys
from features.pipeline.prepare import PLACE, Partition, key_of
from features.transforms import attributes
from features.transforms.joins import SideTable
from rec.data import arrow_file
from rec.data.session_table import field_type, side_fields
from rec.errors import SpecError
from rec.spec import Id, Ids, Kept, Spec

_TIME = "@moment"
_DENSE = 16  # int keys that span less than this many times the rows need no hashing to be grouped


def latest_users(job: BuildJob, index: int, past: PointInTime) -> None:
    """Write the latest rows of a partition's users, as of just after the log's end."""
    key, shard = job.spec.keys.user, past.shard
    if key is None:
        return
    last = _last(shard, ~past.nobody)
    rows = _joined(shard.impressions(last), job.side("users"), job.of("users"), job.last + 1)
    made = attributes.side(job.spec, "context", rows, past.users(rows, last, job.last + 1))
    _save(_aside(job, "context", index), _table(job.spec, "context", key, rows, made))


def latest_items(job: BuildJob, index: int, shard: Partition) -> None:
    """Write the last impression of every item of a partition."""
    key = job.spec.keys.item
    if key is None:
        return
    rows = shard.grouped.rows
    code = rows[CODE] if CODE in rows.columns else pl.Series(np.zeros(len(rows), np.uint64))
    kept = shard.rows.drop([column for column in job.of("items") if column in shard.rows.columns])
    marked = kept.with_columns(
        pl.Series(_TIME, shard.moments), code.alias(CODE), pl.Series(PLACE, shard.grouped.place)
    ).filter(pl.col(key).is_not_null())
    _save(_aside(job, "candidates", index), _newest(marked, key).to_arrow(compat_level=pl.CompatLevel.oldest()))


def write(job: BuildJob, folder: Path) -> None:
    """The snapshot of users and of items, each if the spec names its key, from what partitions wrote."""
    folder.mkdir(parents=True)
    partitions = range(job.division.sizes[0])
    if job.spec.keys.user is not None:
        known = pa.concat_tables([_load(_aside(job, "context", index)) for index in partitions])
        whole = pa.concat_tables([known, _never_shown_users(job, known)])
        arrow_file.write(folder / "context.arrow", whole.sort_by("key").combine_chunks())
    if job.spec.keys.item is not None:
        arrow_file.write(folder / "candidates.arrow", _items(job).sort_by("key").combine_chunks())


def _items(job: BuildJob) -> pa.Table:
    key = str(job.spec.keys.item)
    last: pl.DataFrame | None = None
    for index in range(job.division.sizes[0]):
        rows = pl.DataFrame(pl.from_arrow(_load(_aside(job, "candidates", index))))
        last = rows if last is None else _newest(pl.concat([last, rows]), key)
    assert last is not None, "there is always a partition"
    table = job.side("items")
    if table is not None:
        never = table.latest().join(last.select(key), on=key, how="anti").select(key)
        last = pl.concat([last, never], how="diagonal")
    rows = _joined(last, table, job.of("items"), job.last + 1)
    made = foreign_finals(job, "candidates", rows) | nobodys(job, "candidates", len(rows))
    return _table(job.spec, "candidates", key, rows, attributes.side(job.spec, "candidates", rows, made))


def _never_shown_users(job: BuildJob, known: pa.Table) -> pa.Table:
    """Users of the side table without any impression."""
    key, table = str(job.spec.keys.user), job.side("users")
    shape = known.schema
    if table is None:
        return shape.empty_table()
    seen = pl.DataFrame({key: pl.Series(pl.from_arrow(known["key"])).cast(table.rows.schema[key])})
    rows = table.latest().join(seen, on=key, how="anti").select(key)
    rows = _joined(rows, table, job.of("users"), job.last + 1)
    items = job.side("items")
    kinds = {**({} if items is None else items.rows.schema), **job.impressions.kinds}
    rows = rows.with_columns(pl.lit(None, kind).alias(c) for c, kind in kinds.items() if c not in rows.columns)
    made = {}
    for per in job.local:
        asked = [counter for counter in job.groups[per] if counter.side == "context"]
        missing = key_of(per, rows)[1] if asked else np.zeros(len(rows), bool)
        made |= {
            c.name: np.where(missing, aggregate.nothing(c, 1)[0], aggregate.unseen(c, len(rows), job)) for c in asked
        }
    made |= foreign_finals(job, "context", rows)
    for name, feature in job.spec.context.items():
        if isinstance(feature, Ids) and feature.make in ("history", "gaps"):
            made[name] = pa.array([[]] * len(rows), field_type(feature))
        elif getattr(feature, "make", "").startswith("session_"):
            made[name] = np.zeros(len(rows))
    return _table(job.spec, "context", key, rows, attributes.side(job.spec, "context", rows, made))


def _last(shard: Partition, kept: np.ndarray) -> np.ndarray:
    """The place of the last impression of every user [users], of those that are kept."""
    code, rows = np.repeat(shard.grouped.code, np.diff(shard.grouped.offsets)), np.flatnonzero(kept)
    for by in (shard.moments, shard.grouped.place):  # of those of one timestamp, the one that stands last in the logs
        rows = rows[_largest(code[rows], by[rows])]
    return rows


def _largest(code: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Whether each number is the largest of its code's, which lie together [n] bool."""
    begin = np.flatnonzero(np.append(True, code[1:] != code[:-1])[: len(code)])
    return by == np.repeat(np.maximum.reduceat(by, begin), np.diff(begin, append=len(code)))


def _newest(rows: pl.DataFrame, key: str) -> pl.DataFrame:
    newest = rows.filter(_at_last(rows, key))  # mostly one per key
    return newest.sort(_TIME, CODE, PLACE, maintain_order=True).unique(key, keep="last", maintain_order=True)


def _at_last(rows: pl.DataFrame, key: str) -> pl.Series:
    """Whether each row has its key's last timestamp [n]; no key is missing."""
    if rows[key].dtype.is_integer() and len(rows):
        number, moment = rows[key].to_numpy().astype(np.int64), rows[_TIME].to_numpy()
        low, high = int(number.min()), int(number.max())
        if high - low < _DENSE * len(rows):
            last = np.full(high - low + 1, moment.min())
            np.maximum.at(last, number - low, moment)
            return pl.Series(moment == last[number - low])
    return rows.select(pl.col(_TIME) == pl.col(_TIME).max().over(key)).to_series()


def _joined(rows: pl.DataFrame, table: SideTable | None, wanted: list[str], time: int) -> pl.DataFrame:
    """Rows with the columns of a side table as of a timestamp."""
    if table is None:
        return rows
    return table.joined(rows.drop([c for c in wanted if c in rows.columns]), wanted, np.full(len(rows), time))


def _table(spec: Spec, side: str, key: str, rows: pl.DataFrame, made: dict[str, pa.Array]) -> pa.Table:
    kind = _key_type(spec, side, key)
    shape = pa.schema([pa.field("key", kind), *side_fields(dict(spec.sides())[side])])
    columns_of = {"key": rows[key].to_arrow().cast(kind), **made}
    return pa.table([columns_of[field.name] for field in shape], schema=shape)


def _key_type(spec: Spec, side: str, key: str) -> pa.DataType:
    feature = dict(spec.sides())[side][key]
    kind = field_type(feature)
    if not isinstance(feature, Id | Kept) or kind not in (pa.int64(), pa.string()):
        raise SpecError(f"{side}.{key}: expected an id or a kept int or string, since it is a key, got {feature.kind}")
    return kind


def _aside(job: BuildJob, side: str, index: int) -> Path:
    return job.work / "store" / side / f"{index:05d}.arrow"


def _save(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    arrow_file.write(beside, table)
    beside.replace(path)


def _load(path: Path) -> pa.Table:
    return arrow_file.read(path, what="part of the store")
