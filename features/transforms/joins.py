"""The log columns that a spec needs, and the point-in-time joins of side tables (users, items).

A column is looked up among the impressions, then in the tables of users and items; if both of these have it, the
spec says `users.age` or `items.age`. Columns of a user that only the context needs are joined to requests, not to
impressions, so that a long list per user is never repeated per candidate. A side table with a timestamp `since` has
several rows per key; a request is joined with the last one valid before it (as-of join).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.logs import side_files
from features.logs.logs import Finding, LazySideTable, Logs, columns_in
from features.logs.reserved import reserved
from features.logs.timestamps import MOMENT
from features.transforms import labels, sample_weights
from features.transforms.user_columns import UserColumn, refuse_early
from rec.errors import DataError, SpecError, nearest
from rec.spec import AnyFeature, Ids, Number, Spec
from rec.spec.features import PAST, keys_of, matching_of, value_of

SINCE = "@since"  # the timestamp from which a row of a side table holds
WEIGHT = ".sample_weight"  # ends the place of a column that only a weight reads
_AT, _PLACE, _HAS = "@at", "@place", "@has"


@dataclass(frozen=True)
class ColumnUse:
    """A needed column, and the place in the spec that names it; `per_request` when candidates do not need it."""

    column: str
    place: str
    per_request: bool = False


@dataclass(frozen=True)
class ColumnOrigin:
    """The table that has a column (impressions, users or items), and whether only requests need it."""

    table: str
    per_request: bool


@dataclass(frozen=True)
class SideTable:
    """Users or items, only the needed columns: one row per key, or several, each valid from its timestamp `@since`.

    `repeats` is how many rows were left out, since another is equal to them in all of these columns; `doubts` are
    values that may be meant otherwise than they are read.
    """

    rows: pl.DataFrame
    key: str
    repeats: int = 0
    doubts: tuple[Finding, ...] = ()

    @property
    def changing(self) -> bool:
        """Whether a key may have several rows, each valid from a timestamp on."""
        return SINCE in self.rows.columns

    @property
    def columns(self) -> list[str]:
        """What can be joined."""
        return [column for column in self.rows.columns if column not in (self.key, SINCE)]

    def joined(self, rows: pl.DataFrame, columns: Sequence[str], time: np.ndarray) -> pl.DataFrame:
        """Rows with some of the table's columns, as of `time` (microseconds [rows]); null for an unknown key."""
        columns = [column for column in columns if column not in rows.columns]
        if not columns:
            return rows
        if not self.changing:
            return rows.join(self.rows.select(self.key, *columns), on=self.key, how="left", maintain_order="left")
        queries = rows.select(self.key, pl.Series(_AT, time).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
        matches = (
            queries.with_row_index(_PLACE)
            .sort(_AT)
            .join_asof(
                self.rows.select(self.key, SINCE, *columns),
                left_on=_AT,
                right_on=SINCE,
                by=self.key,
                allow_exact_matches=False,
                check_sortedness=False,
            )
        )
        return rows.hstack(matches.sort(_PLACE).select(columns))

    def lacks(self, keys: pl.DataFrame, time: np.ndarray) -> pl.Series:
        """Whether each row's key is missing from the table as of `time` (microseconds [rows])."""
        if not self.changing:
            return ~keys[self.key].is_in(self.rows[self.key].implode())
        marked = SideTable(self.rows.with_columns(pl.lit(value=True).alias(_HAS)), self.key)
        return marked.joined(keys, [_HAS], time)[_HAS].is_null()

    def latest(self) -> pl.DataFrame:
        """One row per key: the latest valid one."""
        if not self.changing:
            return self.rows
        return self.rows.unique(self.key, keep="last", maintain_order=True).drop(SINCE)


def column_of(feature: AnyFeature, name: str, spec: Spec) -> str:
    """The column a feature reads: `column`, or its own name; for a history the item key."""
    if isinstance(feature, Ids) and feature.make in ("history", "gaps"):
        return feature.column or spec.keys.item or name
    return feature.column or name


def needs(spec: Spec) -> Iterator[ColumnUse]:
    """Every column the spec names, with where it names it."""
    for key in ("user", "item", "time", "request", "session"):
        if getattr(spec.keys, key) is not None:
            yield ColumnUse(getattr(spec.keys, key), f"keys.{key}")
    if spec.split.column is not None:
        yield ColumnUse(spec.split.column, "split.column")
    for side, features in spec.sides():
        for name, feature in features.items():
            for column, late in _read_by(spec, side, name, feature):
                place = f"{side}.{name}.per" if column in _per(feature) else f"{side}.{name}"
                yield ColumnUse(column, place, late)
    yield from _of_outcomes(spec)


def _of_outcomes(spec: Spec) -> Iterator[ColumnUse]:
    for kind, behaviours in (("tasks", spec.tasks), ("events", spec.events)):
        for name, behaviour in behaviours.items():
            if behaviour.time:
                yield ColumnUse(behaviour.time, f"{kind}.{name}.time")
            yield from (ColumnUse(c, f"{kind}.{name}.label") for c in labels.columns(f"{kind}.{name}", behaviour.label))
    for name in spec.tasks:
        yield from (ColumnUse(c, f"tasks.{name}{WEIGHT}") for c in sample_weights.columns(spec, name))


def refuse_reserved(spec: Spec) -> None:
    """SpecError for a column that is called as one of ours, which stand beside those of the logs."""
    for use in needs(spec):
        if reserved([use.column]) is not None:
            raise SpecError(f"{use.place}: column {use.column!r} is a name of ours; rename it in the logs")
        if use.column == "*" or (use.column.startswith("^") and use.column.endswith("$")):
            raise SpecError(
                f"{use.place}: column {use.column!r} is a pattern of names to polars; rename it in the logs"
            )


def _per(feature: AnyFeature) -> tuple[str, ...]:
    columns = (*keys_of(feature), *matching_of(feature)) if isinstance(feature, Number) and feature.make in PAST else ()
    return tuple(dict.fromkeys(columns))


def _read_by(spec: Spec, side: str, name: str, feature: AnyFeature) -> Iterator[tuple[str, bool]]:
    """The columns a feature reads, and whether for the context only."""
    make = getattr(feature, "make", "column")
    if make in PAST:
        valued = value_of(feature)
        yield from ((column, False) for column in (*_per(feature), *([] if valued is None else [valued])))
    elif make in ("column", "age", "tokens"):
        yield column_of(feature, name, spec), side == "context"
    elif make in ("history", "gaps"):
        yield column_of(feature, name, spec), False


def origins(
    spec: Spec,
    schemas: Mapping[str, Mapping[str, pl.DataType]],
    coded: Mapping[str, UserColumn] | None = None,
    *,
    absent: Collection[str] = (),
) -> dict[str, ColumnOrigin]:
    """The table of each needed column; `schemas` are those of impressions, users and items.

    `absent` are columns of labels that no table has, and that are not looked for.
    A user column (`coded`) has the table "code", and the columns that it reads are needed too.
    Raises SpecError for a column that no table has, with the nearest name.
    """
    sources: dict[str, ColumnOrigin] = {}
    known = coded or {}
    needed = [need for need in needs(spec) if need.column not in absent]
    own = [need for need in needed if need.column in known]
    refuse_early((need.place, need.column) for need in own)
    read = [ColumnUse(column, f"{use.column}.py") for use in own for column in known[use.column].reads]
    sources |= {need.column: ColumnOrigin("code", per_request=False) for need in own}
    for need in [*(need for need in needed if need.column not in known), *read]:
        table = _origin(need, schemas)
        before = sources.get(need.column)
        sources[need.column] = ColumnOrigin(table, need.per_request and (before is None or before.per_request))
    return sources


def of_label(use: ColumnUse) -> bool:
    """Whether a label reads a column, or the timestamp of its event."""
    return use.place.startswith(("tasks.", "events."))


def absent_labels(
    spec: Spec, schemas: Mapping[str, Mapping[str, pl.DataType]], coded: Mapping[str, UserColumn] | None = None
) -> tuple[str, ...]:
    """The columns of labels that no table has, if no task has all of its own: rows to be scored have no labels."""
    has = {column for schema in schemas.values() for column in schema} | set(coded or {})
    has |= {f"{side}.{column}" for side in ("users", "items") for column in schemas.get(side, {})}
    uses = list(needs(spec))
    others = {use.column for use in uses if not of_label(use)}
    of_labels = [use for use in uses if of_label(use) and not use.place.endswith(WEIGHT)]
    lacking = {use.place.split(".")[1]: use for use in of_labels if use.column not in has}
    if not all(name in lacking for name in spec.tasks):
        return ()
    absent = [use.column for use in uses if of_label(use) and use.column not in has and use.column not in others]
    return tuple(dict.fromkeys(absent))


def _origin(need: ColumnUse, schemas: Mapping[str, Mapping[str, pl.DataType]]) -> str:
    if need.column in schemas["impressions"]:
        return "impressions"
    known = list(schemas["impressions"])
    if not need.place.startswith("keys.") and not _is_time(need.place):
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


def _is_time(place: str) -> bool:
    """Whether a place of the spec names the timestamp of an outcome, which only impressions have."""
    return place.startswith(("tasks.", "events.")) and place.endswith(".time")


def _bare(side: str, column: str) -> str:
    return column.removeprefix(f"{side}.")


def side_schemas(spec: Spec, logs: Logs) -> dict[str, Mapping[str, pl.DataType]]:
    """The columns of the side tables with a join key."""
    sides = {"users": (logs.users, spec.keys.user), "items": (logs.items, spec.keys.item)}
    return {name: columns_in(side.parts(name)) for name, (side, key) in sides.items() if side is not None and key}


def side_table(
    spec: Spec,
    name: str,
    side: LazySideTable | None,
    sources: Mapping[str, ColumnOrigin],
    *,
    key_kind: pl.DataType | None,
) -> SideTable | None:
    """The needed columns of users or items, without rows of null key; keys have the impressions' type `key_kind`.

    Raises DataError for a table without the key, with keys of another type, or with several rows per key and no
    valid-from column.
    """
    key = spec.keys.user if name == "users" else spec.keys.item
    if side is None or key is None or key_kind is None:
        return None
    schema = columns_in(side.parts(name))
    if key not in schema:
        raise DataError(f"{name}: no column {key!r}, by which it is joined (keys.{name[:-1]}){nearest(key, schema)}")
    if side.since is not None and side.since not in schema:
        raise DataError(
            f"{name}: no column {side.since!r}, the timestamp from which a row holds{nearest(side.since, schema)}"
        )
    kinds = {key: key_kind} | ({} if side.since is None else {SINCE: MOMENT})
    own = {key: key} | ({} if side.since is None else {SINCE: side.since})
    own |= {column: _bare(name, column) for column, origin in sources.items() if origin.table == name}
    rows, doubts = side_files.typed(spec, name, side.parts(name), own, kinds)
    rows, by = rows.filter(pl.col(key).is_not_null()), [key]
    count = len(rows)
    if spec.logs.duplicates == "drop":
        rows = rows.filter(pl.struct(pl.all()).is_first_distinct())
    repeats = count - len(rows)
    if side.since is not None:
        rows, by = rows.filter(pl.col(SINCE).is_not_null()).sort(SINCE, maintain_order=True), [key, SINCE]
    repeated = rows.filter(pl.struct(by).is_duplicated())
    if not repeated.is_empty():
        raise DataError(
            f"{name}: expected one row per {' and '.join(by[:1] + [str(side.since)] * (len(by) - 1))}, "
            f"got several of {repeated[key][0]!r} ({len(repeated)} such rows)"
        )
    return SideTable(rows, key, repeats, tuple(doubts))


def repeats(spec: Spec, sides: Mapping[str, SideTable]) -> list[Finding]:
    """How many rows of each side table are duplicates of another, and values that may be meant otherwise."""
    doubts = [doubt for side in sides.values() for doubt in side.doubts]
    if spec.logs.duplicates == "keep":
        return doubts
    text = "duplicates of another row in every column that is read: the first is kept"
    return doubts + [
        Finding(name, True, side.repeats, side.repeats + len(side.rows), (), text, "note")
        for name, side in sides.items()
    ]
