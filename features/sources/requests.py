"""Your own logs, one row per request with lists: the shown items, and the items of each kind of event.

    request  user_id  time   shown      clicked_items  dwells
    r1       7        10:00  [3, 9, 4]  [9]            [41.0]

    [source]
    kind = "requests"
    files = "requests.parquet"
    shown = "shown"
    [source.events.clicked]          gives a column `clicked` of 0 and 1
    items = "clicked_items"
    values = { dwell = "dwells" }    one value per clicked item gives a column `dwell`

Each shown item becomes one impression row with its `position`, from 1, and the list's length, `shown_length` unless the
spec calls it otherwise. The list itself, `shown`, and every other column of the request are repeated on its rows, for
features and for columns made by code. An event of an item shown twice belongs to the first position; an event of an
item that was not shown is a bad row. A request that showed nothing leaves no row. Of requests without any list of
events nobody knows what happened. A single item is a list of it. `keys.request` may name a column that the files lack:
then a request's id is its row number, prefixed by the file's number if there are several files. A CSV writes lists as
`[3, 9, 4]`, or as `split` says; of whole numbers also as `3|9|4`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import polars as pl
from pydantic import Field

from features.logs.dtypes import Notation, cast, failed
from features.logs.files import refuse_since, scan, side
from features.logs.list_types import element_types
from features.logs.logs import BAD, Finding, Logs, Piece, columns_in
from features.logs.paths import paths_of
from features.transforms import joins, user_columns
from rec.errors import SpecError, nearest
from rec.spec import Spec, Strict

_ROW, _NTH = "@request", "@nth"
KEYS = ("user", "item", "time", "request", "session")


class EventLists(Strict):
    """The list of an event's items, and aligned lists of values: name of the column -> list column."""

    items: str = Field(description="the list column of items it happened to")
    values: dict[str, str] = Field(default={}, description="column to make = list column with one value per item")


class Options(Strict):
    """Files by path, glob or address (docs/your-logs.md), the list of shown items, and events by name."""

    files: str | list[str] = Field(description="one row per request")
    shown: str = Field(description="the list column of items shown")
    events: dict[str, EventLists] = Field(description="what happened to which of them")
    position: str = Field(default="position", description="name of the column made from the place in the list")
    length: str | None = Field(default=None, description="name of the column of the list's length; none: SHOWN_length")
    split: str | None = Field(default=None, description='what separates a list in text, such as "|"; none: [a, b] only')
    users: str | list[str] | None = Field(default=None, description="one row per user, joined by keys.user")
    users_since: str | None = Field(default=None, description="several rows per user: the timestamp a row holds from")
    items: str | list[str] | None = Field(default=None, description="one row per item, joined by keys.item")
    items_since: str | None = Field(default=None, description="several rows per item: the timestamp a row holds from")


@dataclass(frozen=True)
class _RequestLayout:
    """How a request is unnested to impressions: the names in the spec, and the element types of its lists."""

    item: str
    request: str
    prefix: str  # of a request's id that is made of its row
    kept: tuple[str, ...]  # lists that the spec reads as they are
    inner: Mapping[str, pl.DataType]
    options: Options
    how: Notation


def refuse(options: Options, spec: Spec) -> None:
    """SpecError for a spec without keys.item and keys.request."""
    if spec.keys.item is None or spec.keys.request is None:
        raise SpecError('keys: source "requests" needs keys.item (a name for what is shown) and keys.request')
    refuse_since(options.users, options.users_since, "source.users")
    refuse_since(options.items, options.items_since, "source.items")
    lists = {c: name for name, event in options.events.items() for c in (event.items, *event.values.values())}
    for name, event in options.events.items():
        for column in (name, *event.values):
            if column in (options.shown, *lists):
                raise SpecError(
                    f"source.events.{name}: makes a column {column!r} of the rows, and a list of the files is called "
                    f"so; call what it makes otherwise, such as {'is' if column == name else 'its'}_{column}"
                )
    for use in joins.needs(spec):
        if use.column in lists and use.column != options.shown:
            event = f"a list of source.events.{lists[use.column]}"
            raise SpecError(f"{use.place}: reads {use.column!r}, {event}; the model would be given the answer")
    columns = [options.position, _length_name(options), *options.events]
    columns += [column for event in options.events.values() for column in event.values]
    keys = {column: key for key in KEYS if (column := getattr(spec.keys, key)) is not None}
    for place, column in enumerate(columns):
        if column in keys or column in columns[:place]:
            other = f"keys.{keys[column]}" if column in keys else "another column that is made of the lists"
            raise SpecError(f"source: {column!r} is {other} already; call one of them otherwise")


def read(options: Options, spec: Spec, base: Path) -> Logs:
    """One row per shown item."""
    item, request = spec.keys.item, spec.keys.request
    assert item is not None, "refused before"
    assert request is not None, "refused before"
    pieces, findings = scan(options.files, base, "source.files", spec.logs, index=_ROW)
    has = columns_in(pieces)
    if not any(event.items in has for event in options.events.values()):
        options = options.model_copy(update={"events": {}})  # requests to be scored: nobody knows what happened
    ids = [options.shown, *(event.items for event in options.events.values())]
    inner = element_types(spec, pieces, _lists(options), ids=ids, split=options.split)
    hint = nearest(request, [column for column in has if column != _ROW])
    if request not in has:
        text = f"no column {request!r} in the logs{hint}: the number of a row is its request's id"
        findings += (Finding("keys.request", True, 1, 1, (), text, "warn" if hint else "note"),)
    several = len(paths_of(options.files, base, "source.files")) > 1
    kept = tuple(column for column in (options.shown,) if column in _read_columns(spec, base))
    impressions = []
    for piece in pieces:
        prefix = f"{piece.file}-" if several else ""
        way = _RequestLayout(item, request, prefix, kept, inner, options, Notation.of(spec))
        impressions.append(_turned(piece, way))
    return Logs(
        impressions=tuple(impressions),
        users=side(options.users, options.users_since, base, "source.users", spec.logs),
        items=side(options.items, options.items_since, base, "source.items", spec.logs),
        findings=findings,
    )


def _read_columns(spec: Spec, base: Path) -> set[str]:
    """The columns that the spec names, and those that columns made by code read."""
    code = user_columns.load(None if spec.logs.columns is None else (base / spec.logs.columns).absolute())
    own = {use.column for use in joins.needs(spec)}
    return own | {column for name in own & set(code) for column in code[name].reads}


def _lists(options: Options) -> list[str]:
    """Every list column, the shown items first."""
    of_events = (c for event in options.events.values() for c in (event.items, *event.values.values()))
    return list(dict.fromkeys([options.shown, *of_events]))


def _turned(piece: Piece, way: _RequestLayout) -> Piece:
    known = {name: event for name, event in way.options.events.items() if event.items in piece.kinds}
    way = replace(way, options=way.options.model_copy(update={"events": known}))
    lists = [column for column in _lists(way.options) if column in piece.kinds]
    if len(lists) < len(_lists(way.options)):
        return piece  # the columns made of its lists are not there, and it is left out with that reason
    turn = partial(_impressions, way=way)
    typed = {name: kind for name, kind in piece.kinds.items() if name not in (*lists, _ROW)}
    empty = pl.DataFrame(schema={**typed, _ROW: pl.UInt32, **{c: pl.List(way.inner[c]) for c in lists}})
    kinds = {name: kind for name, kind in turn(empty).schema.items() if name != BAD}
    return replace(piece, turn=turn, reads=(*lists, _ROW), kinds=kinds)


def _typed(rows: pl.DataFrame, way: _RequestLayout) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The requests with typed lists; and those of which a list holds what is not of its type, each as a bad row."""
    aligned = {column for event in way.options.events.values() for column in (event.items, *event.values.values())}
    items = {way.options.shown, *(event.items for event in way.options.events.values())}
    reason = pl.Series([None], dtype=pl.String).new_from_index(0, len(rows))
    columns = []
    for column in _lists(way.options):
        kind, raw = way.inner[column], rows[column]
        as_values = {"split": way.options.split, "key": column in items, "aligned": column in aligned}
        columns.append(cast(raw, pl.List(kind), way.how, **as_values))
        lost = failed(raw, columns[-1], way.how)
        if lost.any():
            what = "numbers" if kind.is_numeric() and column not in items else "ids"
            text = f"{column}: expected a list of {what}{' (int)' if kind == pl.Int64 and what == 'ids' else ''}"
            reason = reason.scatter((lost & reason.is_null()).arg_true(), text)
    rows = rows.with_columns(columns).with_columns(reason.alias(BAD))
    bad = rows.filter(pl.col(BAD).is_not_null()).drop(_lists(way.options))
    return rows.filter(pl.col(BAD).is_null()).drop(BAD), bad


def _impressions(rows: pl.DataFrame, way: _RequestLayout) -> pl.DataFrame:
    """One row per shown item, with its position and event columns; events of other items as bad rows."""
    options, item = way.options, way.item
    rows, unreadable = _typed(rows, way)
    if way.request not in rows.columns:
        rows = rows.with_columns((pl.lit(way.prefix) + pl.col(_ROW).cast(pl.String)).alias(way.request))
    shown = _shown(rows, options, item, way.kept)
    lost = [unreadable]
    for name, event in options.events.items():
        rows, torn = _whole(rows, name, event)
        happened = _happened(rows, event, item)
        lost += [torn, _never_shown(rows, happened, shown, item, f"source.events.{name}")]
        happened = happened.with_columns(pl.lit(1, pl.Int8).alias(name), pl.lit(0, pl.Int64).alias(_NTH))
        shown = shown.join(happened, on=[_ROW, item, _NTH], how="left", maintain_order="left")
        shown = shown.with_columns(pl.col(name).fill_null(0))
    return pl.concat([shown, *lost], how="diagonal").drop(_ROW, _NTH)


def _length_name(options: Options) -> str:
    return options.length or f"{options.shown}_length"


def _shown(rows: pl.DataFrame, options: Options, item: str, kept: Sequence[str]) -> pl.DataFrame:
    """One row per shown item, with its position and its number of earlier occurrences in the request.

    `kept` are lists that are columns of its impressions too.
    """
    lists = _lists(options)
    of_events = (column for event in options.events.values() for column in event.values)
    taken = {item, options.position, _length_name(options), *options.events, *of_events}
    repeated = [c for c in rows.columns if (c not in lists or c in kept) and c not in taken]
    shown = pl.col(options.shown)
    length = shown.list.drop_nulls().list.len().cast(pl.Int64).alias(_length_name(options))
    flat = rows.select(*repeated, length, shown.alias(item)).explode(item).filter(pl.col(item).is_not_null())
    position = pl.int_range(1, pl.len() + 1).over(_ROW).alias(options.position)
    nth = pl.int_range(pl.len()).over(_ROW, item).alias(_NTH)
    return flat.with_columns(position, nth)


def _whole(rows: pl.DataFrame, name: str, event: EventLists) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The requests, without values where these and the items differ in length: each is a bad row."""
    places = list(event.values.values())
    fits = pl.all_horizontal(pl.lit(value=True), *(_length(values) == _length(event.items) for values in places))
    torn = rows.filter(~fits)
    if torn.is_empty():
        return rows, torn.clear().select(pl.col(_ROW))
    reason = f"source.events.{name}.values: expected one of {places[0]!r} per item of {event.items!r}"
    unknown = pl.col(event.items).list.eval(pl.when(pl.lit(value=False)).then(pl.element()))
    nothing = [
        pl.when(fits).then(pl.col(column)).otherwise(unknown.cast(rows.schema[column])).alias(column)
        for column in places
    ]
    lists = [column for column, kind in rows.schema.items() if isinstance(kind, pl.List)]
    return rows.with_columns(nothing), torn.drop(lists).with_columns(pl.lit(reason).alias(BAD))


def _length(column: str) -> pl.Expr:
    return pl.col(column).list.len().fill_null(0)


def _happened(rows: pl.DataFrame, event: EventLists, item: str) -> pl.DataFrame:
    """One row per request and item with an event: its first values."""
    lists = {item: event.items, **event.values}
    flat = rows.select(_ROW, *(pl.col(column).alias(into) for into, column in lists.items()))
    flat = flat.filter(pl.col(item).list.len() > 0).explode(list(lists)).filter(pl.col(item).is_not_null())
    return flat.unique([_ROW, item], keep="first", maintain_order=True)


def _never_shown(
    rows: pl.DataFrame, happened: pl.DataFrame, shown: pl.DataFrame, item: str, where: str
) -> pl.DataFrame:
    """Events of items that the request did not show, with the columns of that request."""
    lost = happened.select(_ROW, item).join(shown, on=[_ROW, item], how="anti")
    flat = [column for column, kind in rows.schema.items() if not isinstance(kind, pl.List) and column != item]
    reason = f"{where}: an item that its request did not show"
    return lost.join(rows.select(flat), on=_ROW, how="left").with_columns(pl.lit(reason).alias(BAD))
