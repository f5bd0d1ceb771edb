"""The store's first snapshot: what is known of every user and every item just after the log's end.

    store/context.arrow      key  + the context's fields, one row per user
    store/candidates.arrow   key  + the candidates' fields, one row per item

Counts, rates and histories are as of the end of the log; the rest is what was seen last. Users and items that were
never shown but stand in a side table are there too. Sorted by key.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features import columns, joins
from features.moments import TIME
from features.past import Behaviour
from features.sessions import Sessions
from rec import tables
from rec.arrow import field_type, side_fields
from rec.errors import SpecError
from rec.spec import Id, Kept, Spec


def write(folder: Path, spec: Spec, table: joins.Table, sessions: Sessions, past: Behaviour) -> None:
    """Write the snapshot of users and of items, each where the spec names its key."""
    folder.mkdir(parents=True)
    clock = sessions.rows[TIME].dt.timestamp("us").to_numpy() if TIME in sessions.rows.columns else sessions.time
    just_after = int(clock.max()) + 1
    for side, key, others in (("context", spec.keys.user, table.users), ("candidates", spec.keys.item, table.items)):
        if key is not None:
            kind = _key_type(spec, side, key)
            rows = _latest(sessions.rows, others, key).sort(
                pl.col(key).cast(pl.Int64 if kind == pa.int64() else pl.String)
            )
            rows = joins.with_users(spec, rows, table.users) if side == "context" else rows
            made = columns.side(spec, side, rows, np.full(len(rows), just_after), past)
            fields = [pa.field("key", kind), *side_fields(dict(spec.sides())[side])]
            _save(folder / f"{side}.arrow", {"key": rows[key].to_arrow().cast(kind), **made}, fields)


def _latest(rows: pl.DataFrame, others: pl.DataFrame | None, key: str) -> pl.DataFrame:
    """The last impression of every value of a key, then those that only the side table knows."""
    known = rows.filter(pl.col(key).is_not_null())
    known = known.sort(TIME, maintain_order=True) if TIME in rows.columns else known
    last = known.unique(key, keep="last", maintain_order=True)
    if others is not None:
        shared = [column for column in others.columns if column in rows.columns]
        last = pl.concat([last, others.select(shared).join(last, on=key, how="anti")], how="diagonal")
    return last


def _key_type(spec: Spec, side: str, key: str) -> pa.DataType:
    kind = field_type(dict(spec.sides())[side][key])
    feature = dict(spec.sides())[side][key]
    if not isinstance(feature, Id | Kept) or kind not in (pa.int64(), pa.string()):
        raise SpecError(f"{side}.{key}: expected an id or a kept int or string, since it is a key, got {feature.kind}")
    return kind


def _save(path: Path, made: dict[str, pa.Array], fields: list[pa.Field]) -> None:
    shape = pa.schema(fields)
    tables.write(path, pa.table([made[field.name] for field in fields], schema=shape))
