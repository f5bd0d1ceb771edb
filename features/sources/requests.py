"""Your own logs, one row per request with lists: what was shown, and what happened to which of it.

    request  user_id  time   shown      clicked_items  dwells
    r1       7        10:00  [3, 9, 4]  [9]            [41.0]

    [source]
    kind = "requests"
    files = "requests.parquet"
    shown = "shown"
    [source.events.clicked]          gives a column `clicked` of 0 and 1
    items = "clicked_items"
    values = { dwell = "dwells" }    one value per clicked item gives a column `dwell`

Each shown item becomes one impression row with its `position`, from 1. An item shown twice in a request is clicked
where it stood first; an item that was not shown cannot have been clicked, is left out, and is a finding of `check`.
Every other column of the request is repeated on its rows. `keys.request` may name a column that the files lack: then
a row's number is its request's id. A CSV writes lists as `3|9|4` or `[3, 9, 4]`.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
from pydantic import Field

from features.logs import Finding, Logs, collect, listed, require, scan
from rec.errors import DataError, SpecError, nearest
from rec.spec import Spec, Strict

_ROW = "@request"


class Event(Strict):
    """The list of items something happened to, and lists of values beside it: name of the column -> list column."""

    items: str = Field(description="the list column of items it happened to")
    values: dict[str, str] = Field(default={}, description="column to make = list column with one value per item")


class Options(Strict):
    """Files, the list of what was shown, and events by name."""

    files: str | list[str] = Field(description="one row per request")
    shown: str = Field(description="the list column of items shown")
    events: dict[str, Event] = Field(description="what happened to which of them")
    position: str = Field(default="position", description="name of the column made from the place in the list")
    users: str | list[str] | None = Field(default=None, description="one row per user, joined by keys.user")
    items: str | list[str] | None = Field(default=None, description="one row per item, joined by keys.item")


def read(options: Options, spec: Spec, base: Path) -> Logs:
    """One row per shown item."""
    item = spec.keys.item
    if item is None or spec.keys.request is None:
        raise SpecError('keys: source "requests" needs keys.item (a name for what is shown) and keys.request')
    frame = scan(options.files, base, "source.files")
    lists = [options.shown, *(c for event in options.events.values() for c in (event.items, *event.values.values()))]
    require(frame, lists, "source.files")
    rows = _same_ids(_listed(collect(frame, "source.files"), lists), options).with_row_index(_ROW)
    rows = _with_id(rows, spec.keys.request)
    shown = _shown(rows, options, item)
    findings = []
    for name, event in options.events.items():
        happened = _happened(rows, name, event, item)
        findings.append(_never_shown(name, happened, shown, item))
        shown = shown.join(happened, on=[_ROW, item, "@nth"], how="left", maintain_order="left")
        shown = shown.with_columns(pl.col(name).fill_null(0))
    return Logs(
        impressions=shown.drop(_ROW, "@nth").lazy(),
        users=None if options.users is None else scan(options.users, base, "source.users"),
        items=None if options.items is None else scan(options.items, base, "source.items"),
        findings=tuple(findings),
    )


def _listed(rows: pl.DataFrame, lists: list[str]) -> pl.DataFrame:
    """The list columns as lists, those of a CSV split and read as numbers where they are."""
    for column in dict.fromkeys(lists):
        kind = rows.schema[column]
        if kind != pl.String and not isinstance(kind, pl.List):
            raise DataError(f"source.files: column {column!r}: expected lists, got {kind}")
        rows = rows.with_columns(listed(column, kind))
        if kind == pl.String:
            rows = rows.with_columns(_numbers(rows[column]))
    return rows


def _same_ids(rows: pl.DataFrame, options: Options) -> pl.DataFrame:
    """What was shown and what was clicked as lists of one type, int64 or text, so that they meet."""
    inner = rows.schema[options.shown]
    whole = isinstance(inner, pl.List) and pl.Series([], dtype=inner.inner).dtype.is_integer()
    for column in dict.fromkeys([options.shown, *(event.items for event in options.events.values())]):
        try:
            rows = rows.with_columns(pl.col(column).cast(pl.List(pl.Int64() if whole else pl.String())))
        except pl.exceptions.PolarsError:
            raise DataError(
                f"source.files: column {column!r}: {rows.schema[column]}, but {options.shown!r} is {inner}"
            ) from None
    return rows


def _numbers(words: pl.Series) -> pl.Series:
    for kind in (pl.Int64, pl.Float64):
        try:
            return words.cast(pl.List(kind))
        except pl.exceptions.PolarsError:
            continue
    return words


def _with_id(rows: pl.DataFrame, request: str) -> pl.DataFrame:
    if request in rows.columns:
        return rows
    hint = nearest(request, rows.columns)
    if hint:
        raise SpecError(f"keys.request: no column {request!r} in the logs{hint}")
    return rows.with_columns(pl.col(_ROW).cast(pl.String).alias(request))


def _shown(rows: pl.DataFrame, options: Options, item: str) -> pl.DataFrame:
    """One row per shown item, with its position and how often it stood before in the same request."""
    lists = {options.shown, *(c for event in options.events.values() for c in (event.items, *event.values.values()))}
    taken = {options.position, *options.events, *(c for event in options.events.values() for c in event.values)}
    kept = [c for c in rows.columns if c not in lists and c not in taken | {item}]
    flat = rows.select(*kept, pl.col(options.shown).alias(item)).explode(item).filter(pl.col(item).is_not_null())
    position = pl.int_range(1, pl.len() + 1).over(_ROW).alias(options.position)
    nth = pl.int_range(pl.len()).over(_ROW, item).alias("@nth")
    return flat.with_columns(position, nth)


def _happened(rows: pl.DataFrame, name: str, event: Event, item: str) -> pl.DataFrame:
    """One row per request and item an event happened to: its first values."""
    lists = {item: event.items, **event.values}
    for values in event.values.values():
        torn = rows.filter(pl.col(values).list.len() != pl.col(event.items).list.len())
        if not torn.is_empty():
            raise DataError(
                f"source.events.{name}.values: request row {torn[_ROW][0]}: "
                f"expected one of {values!r} per item of {event.items!r}, "
                f"got {len(torn[values][0])} for {len(torn[event.items][0])}"
            )
    flat = rows.select(_ROW, *(pl.col(column).alias(into) for into, column in lists.items()))
    flat = flat.filter(pl.col(item).list.len() > 0).explode(list(lists)).filter(pl.col(item).is_not_null())
    first = flat.unique([_ROW, item], keep="first", maintain_order=True)
    return first.with_columns(pl.lit(1, pl.Int8).alias(name), pl.lit(0, pl.Int64).alias("@nth"))


def _never_shown(name: str, happened: pl.DataFrame, shown: pl.DataFrame, item: str) -> Finding:
    lost = happened.join(shown, on=[_ROW, item], how="anti")
    examples = tuple(f"request row {row} {item}={of}" for row, of in lost.select(_ROW, item).head(3).iter_rows())
    text = f"{name} of items that the request did not show; these are left out"
    return Finding(f"source.events.{name}", lost.is_empty(), len(lost), len(happened), examples, text)
