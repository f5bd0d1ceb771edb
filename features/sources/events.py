"""Your own logs, one table per kind of event: impressions, clicks, purchases, attributed by user, item and time.

    impressions.csv                clicks.csv                 [source]
    user_id,item_id,time           uid,sku,at,seconds         kind = "events"
    7,3,10:00                      7,3,10:02,41               impressions = "impressions.csv"
                                                              [source.events.clicked]
                                                              files = "clicks.csv"
                                                              user = "uid"
                                                              item = "sku"
                                                              time = "at"
                                                              within = "1h"
                                                              values = { dwell = "seconds" }

An event is attributed to the latest impression of the same user and item (and of its request, if it names one) at most
`within` before it (features/transforms/attribution.py). Impressions get the columns `clicked` (0 or 1), `clicked_time`,
`clicked_count` and the values of the first event. One file may hold impressions and events, separated by `where`:

    impressions = "behaviour.parquet"
    where = "type = 0"
    events.bought = { files = "behaviour.parquet", where = "type = 1", within = "30d" }
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import Field

from features.logs.dtypes import Notation
from features.logs.files import condition, refuse_since, scan, side, where_true
from features.logs.forms import EXTRA
from features.logs.logs import EventLog, Finding, Logs, Piece, columns_in
from rec.errors import DataError, SpecError, nearest
from rec.spec import Duration, Keys, Spec, Strict


class EventTable(Strict):
    """A table of events: its files, and its key columns if their names differ from the impressions'."""

    files: str | list[str] = Field(description="one row per event")
    user: str | None = Field(default=None, description="its column, where not called as in the impressions")
    item: str | None = Field(default=None, description="its column, where not called as in the impressions")
    time: str | None = Field(default=None, description="its column, where not called as in the impressions")
    request: str | None = Field(default=None, description="its column, where not called as in the impressions")
    within: Duration | None = Field(default=None, description="how long after its impression an event may come")
    where: str | None = Field(default=None, description="SQL: a row of which it is not true is no such event")
    values: dict[str, str] = Field(default={}, description="column to make = column of the event")
    unmatched: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="share of the events that may belong to no impression; more is refused"
    )


class Options(Strict):
    """The table of impressions and tables of events by name; files by path, glob or address (docs/your-logs.md)."""

    impressions: str | list[str] = Field(description="one row per impression")
    where: str | None = Field(default=None, description="SQL: a row of which it is not true is no impression")
    events: dict[str, EventTable] = Field(description="a table for each kind of event")
    users: str | list[str] | None = Field(default=None, description="one row per user, joined by keys.user")
    users_since: str | None = Field(default=None, description="several rows per user: the timestamp a row holds from")
    items: str | list[str] | None = Field(default=None, description="one row per item, joined by keys.item")
    items_since: str | None = Field(default=None, description="several rows per item: the timestamp a row holds from")


def refuse(options: Options, spec: Spec) -> None:
    """SpecError for a spec without the keys of attribution, and for invalid SQL."""
    keys = spec.keys
    if keys.user is None or keys.item is None or keys.time is None:
        raise SpecError(
            'keys: source "events" needs keys.user, keys.item and keys.time, by which events find their impression'
        )
    for name, event in options.events.items():
        where = f"source.events.{name}"
        if event.request is not None and keys.request is None:
            raise SpecError(f"{where}.request: needs keys.request, the impressions' column with it")
        condition(event.where, f"{where}.where")
    condition(options.where, "source.where")
    refuse_since(options.users, options.users_since, "source.users")
    refuse_since(options.items, options.items_since, "source.items")


def read(options: Options, spec: Spec, base: Path) -> Logs:
    """The impressions and the event logs."""
    keys = spec.keys
    assert keys.user is not None, "refused before"
    assert keys.item is not None, "refused before"
    assert keys.time is not None, "refused before"
    pieces, findings = scan(options.impressions, base, "source.impressions", spec.logs)
    _require(pieces, [key for key in (keys.user, keys.item, keys.time, keys.request) if key], "source.impressions")
    happened: dict[str, EventLog] = {}
    for name, event in options.events.items():
        happened[name], event_findings = _happened(name, event, spec, base)
        findings += event_findings
    return Logs(
        impressions=where_true(pieces, options.where, "source.where", Notation.of(spec)),
        users=side(options.users, options.users_since, base, "source.users", spec.logs),
        items=side(options.items, options.items_since, base, "source.items", spec.logs),
        happened=happened,
        findings=findings,
    )


def _happened(name: str, event: EventTable, spec: Spec, base: Path) -> tuple[EventLog, tuple[Finding, ...]]:
    """An event log with key columns renamed to the impressions' names."""
    where = f"source.events.{name}"
    pieces, findings = scan(event.files, base, f"{where}.files", spec.logs)
    renames = {**_called(event, spec.keys), **event.values}
    _require(pieces, list(renames.values()), f"{where}.files")
    chosen = where_true(pieces, event.where, f"{where}.where", Notation.of(spec))
    pieces = tuple(_renamed(piece, renames) for piece in chosen)
    return EventLog(pieces, tuple(event.values), event.within, event.request is not None, event.unmatched), findings


def _called(event: EventTable, keys: Keys) -> dict[str, str]:
    """The impressions' name of every key -> the events' name of it."""
    own = {keys.user: event.user, keys.item: event.item, keys.time: event.time}
    own |= {keys.request: event.request} if event.request else {}
    return {key: column or key for key, column in own.items() if key is not None}


def _renamed(piece: Piece, renames: Mapping[str, str]) -> Piece:
    """A piece with only the wanted columns, renamed; columns that it lacks stay absent."""
    has = {into: column for into, column in renames.items() if column in piece.kinds}
    chosen = [pl.col(column).alias(into) for into, column in has.items()]
    extra = [EXTRA] if piece.text else []
    kinds = {into: piece.kinds[column] for into, column in has.items()}
    return replace(piece, frame=piece.frame.select(*chosen, *extra), kinds=kinds)


def _require(pieces: Sequence[Piece], columns: Sequence[str], where: str) -> None:
    """DataError naming the first of `columns` that no piece has, and the nearest existing name."""
    present = columns_in(pieces)
    for column in columns:
        if column not in present:
            hint = nearest(column, present) or "; it has " + ", ".join(present)
            raise DataError(f"{where}: no column {column!r}{hint}")
