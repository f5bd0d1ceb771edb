"""Impressions with what the side tables say about them: only the columns the spec asks for.

A column is looked for among the impressions, then in the tables of users and items; where both of these have it, the
spec says `users.age` or `items.age`. What only the context needs of a user is joined to requests, not to impressions,
so that a long list per user is never repeated per candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from features import labels
from features.logs import Logs, collect, columns_of
from features.moments import TIME, moments
from rec.errors import DataError, SpecError, nearest
from rec.spec import Id, Ids, Kept, Number, Spec


@dataclass(frozen=True)
class Table:
    """Impressions in the order of the logs, item columns joined; and one row per user and per item."""

    rows: pl.DataFrame
    users: pl.DataFrame | None
    items: pl.DataFrame | None


@dataclass(frozen=True)
class Need:
    """A column, and the place in the spec that names it; `per_request` when candidates do not need it."""

    column: str
    place: str
    per_request: bool = False


def read(spec: Spec, logs: Logs) -> Table:
    """The columns the spec needs, joined.

    Raises SpecError for a column nothing has, DataError for side tables that do not fit and for moments that are none.
    """
    sides = {"users": (logs.users, spec.keys.user), "items": (logs.items, spec.keys.item)}
    schemas = {"impressions": columns_of(logs.impressions, "impressions")}
    schemas |= {
        side: columns_of(frame, side) for side, (frame, key) in sides.items() if frame is not None and key is not None
    }
    origins = _origins(spec, schemas)
    tables = {side: _side_table(side, *sides[side], origins, schemas) for side in ("users", "items")}
    own = [column for column, (origin, _) in origins.items() if origin == "impressions"]
    keys = [key for key in (spec.keys.user, spec.keys.item) if key is not None]
    chosen = [_key(c, schemas["impressions"][c]) if c in keys else pl.col(c) for c in _with_outcome_times(own, schemas)]
    rows = collect(logs.impressions.select(chosen), "impressions")
    for side, (_, key) in sides.items():
        # items are joined to impressions whoever asks: a request has several
        wanted = [c for c, (origin, late) in origins.items() if origin == side and not (late and side == "users")]
        rows = _joined(rows, tables[side], key, wanted)
    if spec.keys.time is not None:
        where = f"keys.time: column {spec.keys.time!r}"
        rows = rows.with_columns(moments(rows[spec.keys.time], unit=spec.keys.time_unit, where=where).alias(TIME))
    return Table(rows, tables["users"], tables["items"])


def with_users(spec: Spec, rows: pl.DataFrame, users: pl.DataFrame | None) -> pl.DataFrame:
    """Rows, one per request, with the columns of their user that no candidate needed."""
    if users is None:
        return rows
    return _joined(rows, users, spec.keys.user, [c for c in users.columns if c not in rows.columns])


def column_of(feature: Id | Ids | Number | Kept, name: str, spec: Spec) -> str:
    """The column a feature reads: its own name unless it says otherwise; a history is of items."""
    if isinstance(feature, Ids) and feature.make == "history":
        return feature.column or spec.keys.item or name
    return feature.column or name


def needs(spec: Spec) -> Iterator[Need]:
    """Every column the spec names, with where it names it."""
    for key in ("user", "item", "time", "request"):
        if getattr(spec.keys, key) is not None:
            yield Need(getattr(spec.keys, key), f"keys.{key}")
    if spec.split.column is not None:
        yield Need(spec.split.column, "split.column")
    for side, features in spec.sides():
        for name, feature in features.items():
            make = getattr(feature, "make", "column")
            if isinstance(feature, Number) and feature.per is not None and make in ("count", "rate"):
                yield Need(feature.per, f"{side}.{name}.per")
            elif make in ("column", "age", "history"):
                per_request = side == "context" and make != "history"
                yield Need(column_of(feature, name, spec), f"{side}.{name}", per_request)
    for name, task in spec.tasks.items():
        for column in labels.columns(name, task):
            yield Need(column, f"tasks.{name}.label")


def _origins(spec: Spec, schemas: Mapping[str, pl.Schema]) -> dict[str, tuple[str, bool]]:
    """For each column: the table that has it, and whether only requests need it."""
    origins: dict[str, tuple[str, bool]] = {}
    for need in needs(spec):
        origin = _origin(need, schemas)
        before = origins.get(need.column)
        origins[need.column] = (origin, need.per_request and (before is None or before[1]))
    return origins


def _origin(need: Need, schemas: Mapping[str, pl.Schema]) -> str:
    if need.column in schemas["impressions"]:
        return "impressions"
    known = list(schemas["impressions"])
    if not need.place.startswith("keys."):
        having = [side for side, schema in schemas.items() if _bare(side, need.column) in schema]
        if len(having) > 1:
            raise SpecError(
                f"{need.place}: column {need.column!r} is in users and in items; "
                f"say users.{need.column} or items.{need.column}"
            )
        if having:
            return having[0]
        known = [column for schema in schemas.values() for column in schema]
    raise SpecError(f"{need.place}: no column {need.column!r} in the logs{nearest(need.column, known)}")


def _bare(side: str, column: str) -> str:
    return column.removeprefix(f"{side}.")


def _with_outcome_times(columns: Sequence[str], schemas: Mapping[str, pl.Schema]) -> list[str]:
    """Where a column `click` has a moment beside it, `click_time`, the moment is read too: for windows are checked."""
    beside = [f"{column}_time" for column in columns if f"{column}_time" in schemas["impressions"]]
    return list(dict.fromkeys([*columns, *beside]))


def _side_table(
    side: str,
    frame: pl.LazyFrame | None,
    key: str | None,
    origins: Mapping[str, tuple[str, bool]],
    schemas: Mapping[str, pl.Schema],
) -> pl.DataFrame | None:
    """The needed columns of users or items, one row per key, rows without a key left out."""
    if frame is None or key is None:
        return None
    schema, own = schemas[side], schemas["impressions"]
    if key not in schema:
        raise DataError(f"{side}: no column {key!r}, by which it is joined (keys.{side[:-1]}){nearest(key, schema)}")
    if schema[key].is_numeric() != own[key].is_numeric():
        raise DataError(
            f"{side}: column {key!r} is {schema[key]}, but {own[key]} among the impressions; they cannot be joined"
        )
    wanted = [pl.col(_bare(side, c)).alias(c) for c, (origin, _) in origins.items() if origin == side]
    rows = collect(frame.select(_key(key, schema[key]), *wanted), side).filter(pl.col(key).is_not_null())
    repeated = rows.filter(pl.col(key).is_duplicated())
    if not repeated.is_empty():
        raise DataError(
            f"{side}: expected one row per {key}, got several of {repeated[key][0]!r} ({len(repeated)} such rows)"
        )
    return rows


def _key(column: str, kind: pl.DataType) -> pl.Expr:
    """A key as int64 or text, so that tables that store it in other widths still meet."""
    return pl.col(column).cast(pl.Int64 if kind.is_numeric() or kind == pl.Boolean else pl.String)


def _joined(rows: pl.DataFrame, side: pl.DataFrame | None, key: str | None, columns: Sequence[str]) -> pl.DataFrame:
    if side is None or key is None or not columns:
        return rows
    return rows.join(side.select(key, *columns), on=key, how="left", maintain_order="left")
