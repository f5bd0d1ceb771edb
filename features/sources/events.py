"""Your own logs, one table per kind of event: impressions, clicks, purchases, joined by user, item and time.

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

An event belongs to the latest impression of the same user and item (and request, where the event names one) at or
before it, and `within` of it. It gives the columns `clicked` (0 or 1), `clicked_time` (of its first) and the values of
its first. Events that belong to no impression are left out and are findings of `check`.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
from pydantic import Field

from features.logs import Finding, Logs, collect, require, scan
from features.moments import moments
from rec.errors import SpecError
from rec.spec import Duration, Keys, Spec, Strict

_ROW, _TIME = "@row", "@time"


class Event(Strict):
    """A table of events: its files, and its columns where they are not called as the impressions' keys."""

    files: str | list[str] = Field(description="one row per event")
    user: str | None = Field(default=None, description="its column, where not called as in the impressions")
    item: str | None = Field(default=None, description="its column, where not called as in the impressions")
    time: str | None = Field(default=None, description="its column, where not called as in the impressions")
    request: str | None = Field(default=None, description="its column, where not called as in the impressions")
    within: Duration | None = Field(default=None, description="how long after its impression an event may come")
    values: dict[str, str] = Field(default={}, description="column to make = column of the event")


class Options(Strict):
    """The table of impressions, and tables of events by name."""

    impressions: str | list[str] = Field(description="one row per impression")
    events: dict[str, Event] = Field(description="a table for each kind of event")
    users: str | list[str] | None = Field(default=None, description="one row per user, joined by keys.user")
    items: str | list[str] | None = Field(default=None, description="one row per item, joined by keys.item")


def read(options: Options, spec: Spec, base: Path) -> Logs:
    """One row per impression, with what came of it."""
    keys = spec.keys
    if keys.user is None or keys.item is None or keys.time is None:
        raise SpecError(
            'keys: source "events" needs keys.user, keys.item and keys.time, by which events find their impression'
        )
    frame = scan(options.impressions, base, "source.impressions")
    require(frame, [key for key in (keys.user, keys.item, keys.time, keys.request) if key], "source.impressions")
    rows = _keyed(
        collect(frame, "source.impressions"),
        [keys.user, keys.item, keys.request],
        keys.time,
        spec,
        "source.impressions",
    )
    rows = rows.with_row_index(_ROW)
    findings = []
    for name, event in options.events.items():
        events = _events(name, event, keys, spec, base)
        matched, finding = _matched(name, event, events, rows, _by(event, keys))
        findings.append(finding)
        rows = rows.join(matched, on=_ROW, how="left", maintain_order="left").with_columns(pl.col(name).fill_null(0))
    return Logs(
        impressions=rows.drop(_ROW, _TIME).lazy(),
        users=None if options.users is None else scan(options.users, base, "source.users"),
        items=None if options.items is None else scan(options.items, base, "source.items"),
        findings=tuple(findings),
    )


def _by(event: Event, keys: Keys) -> list[str]:
    by = [keys.user, keys.item, keys.request if event.request else None]
    return [key for key in by if key is not None]


def _events(name: str, event: Event, keys: Keys, spec: Spec, base: Path) -> pl.DataFrame:
    """The events with their keys called as the impressions' are."""
    where = f"source.events.{name}"
    if event.request is not None and keys.request is None:
        raise SpecError(f"{where}.request: needs keys.request, the impressions' column with it")
    frame = scan(event.files, base, f"{where}.files")
    called = {
        keys.user: event.user or keys.user,
        keys.item: event.item or keys.item,
        keys.time: event.time or keys.time,
    }
    called |= {keys.request: event.request} if event.request else {}
    wanted = {str(into): str(column) for into, column in {**called, **event.values}.items()}
    require(frame, list(wanted.values()), f"{where}.files")
    rows = collect(frame, f"{where}.files").select(pl.col(column).alias(into) for into, column in wanted.items())
    return _keyed(
        rows,
        [keys.user, keys.item, keys.request if event.request else None],
        str(keys.time),
        spec,
        f"{where}.{event.time or keys.time}",
    )


def _keyed(rows: pl.DataFrame, ids: list[str | None], time: str, spec: Spec, where: str) -> pl.DataFrame:
    """Ids as int64 or text, so that two files meet, and the moment parsed."""
    kinds = {key: pl.Int64() if rows.schema[key].is_numeric() else pl.String() for key in ids if key is not None}
    return rows.with_columns(pl.col(key).cast(kind) for key, kind in kinds.items()).with_columns(
        moments(rows[time], unit=spec.keys.time_unit, where=where).alias(_TIME)
    )


def _matched(
    name: str, event: Event, events: pl.DataFrame, rows: pl.DataFrame, by: list[str]
) -> tuple[pl.DataFrame, Finding]:
    """For each impression that has any: the first of its events; and the events that found no impression."""
    events = events.drop_nulls([*by, _TIME]).sort(_TIME, maintain_order=True)
    shown = rows.select(*by, _TIME, _ROW).drop_nulls().sort(_TIME, _ROW)
    found = events.join_asof(
        shown, on=_TIME, by=by, strategy="backward", tolerance=event.within, check_sortedness=False
    )
    lost = found.filter(pl.col(_ROW).is_null())
    first = found.filter(pl.col(_ROW).is_not_null()).unique(_ROW, keep="first", maintain_order=True)
    made = first.select(_ROW, pl.lit(1, pl.Int8).alias(name), pl.col(_TIME).alias(f"{name}_time"), *event.values)
    return made, _lost(name, event.within, lost=lost, shown=shown, total=len(events), by=by)


def _lost(
    name: str, within: timedelta | None, *, lost: pl.DataFrame, shown: pl.DataFrame, total: int, by: list[str]
) -> Finding:
    pairs = shown.group_by(by).agg(pl.col(_TIME).min().alias("@first"))
    early = lost.join(pairs, on=by, how="inner").filter(pl.col(_TIME) < pl.col("@first"))
    text = f"events without an impression at or before them{'' if within is None else f' within {within}'}"
    text += f"; {len(early)} came before the impression of their user and item: do the clocks agree?"
    examples = tuple(
        " ".join(f"{k}={v}" for k, v in row.items()) for row in lost.select(*by, _TIME).head(3).iter_rows(named=True)
    )
    return Finding(f"source.events.{name}", lost.is_empty(), len(lost), total, examples, text)
