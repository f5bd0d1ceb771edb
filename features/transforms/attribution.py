"""Last-touch attribution: an event is credited to the latest impression of the same user and item at or before it.

    impressions   7  3  10:00  request a       event  7  3  10:07              -> the second, shown last
                  7  3  10:05  request b       event  7  3  10:07  request a   -> the first: same request
                  7  3  10:09  request c       event  7  3   9:58              -> none: it precedes all impressions

An impression gets four kinds of column from an event log called `clicked`: `clicked` (0 or 1), `clicked_time` (of its
first event), `clicked_count` (how many), and the values of its first event. Ties go to the later row of the logs.

A build attributes as its sweep goes by (features/sweep/last_touch.py); a store attributes to impressions with open
windows, here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import polars as pl

from features.logs.dtypes import cast
from features.logs.logs import EventLog, Finding
from features.logs.timestamps import MOMENT, TIME
from rec.spec import Spec

_ROW, _EVENT, _AT = "@impression", "@event", "@at"
_CLOCK = " (clock)"
_LOST = "events without an impression at or before them"


def attribute(
    spec: Spec,
    impressions: pl.DataFrame,
    happened: Mapping[str, pl.DataFrame],
    described: Mapping[str, EventLog],
) -> tuple[pl.DataFrame, list[Finding]]:
    """The impressions, in their order, with event columns; and findings on unmatched events.

    `happened` are the events of the same users by log, `described` the logs' definitions.
    """
    findings: list[Finding] = []
    for name, log in described.items():
        matched = _matched(spec, impressions, happened[name], log)
        taken = [name, f"{name}_time", f"{name}_count", *log.values]
        impressions = impressions.drop(taken, strict=False).hstack(_columns(name, matched, log, len(impressions)))
        findings += _unmatched(spec, name, impressions, matched, log)
    return impressions, findings


def checked(findings: Iterable[Finding], described: Mapping[str, EventLog]) -> list[Finding]:
    """The findings, of which too many events of a log without an impression are a failed check."""
    return [_checked(finding, described.get(finding.name.removeprefix("source.events."))) for finding in findings]


def _checked(finding: Finding, log: EventLog | None) -> Finding:
    if log is None or not finding.text.startswith(_LOST) or finding.count <= log.unmatched * finding.total:
        return finding
    allowed = f"{finding.name}.unmatched allows {log.unmatched:.0%}"
    text = f"{finding.text}; {allowed}; do the keys and clocks of both logs agree?"
    return replace(finding, passed=False, level="fail", text=text)


def _matched(spec: Spec, impressions: pl.DataFrame, events: pl.DataFrame, log: EventLog) -> pl.DataFrame:
    """Every event, ordered by time and log order, with the row of its impression; null if unmatched."""
    keys = spec.keys
    assert keys.user is not None, "a log of events has a user"
    assert keys.item is not None, "a log of events has an item"
    by = [keys.user, keys.item]
    wide = [*by, keys.request] if log.by_request and keys.request is not None else by
    shown = impressions.select(*wide, pl.col(TIME).alias(_AT)).with_row_index(_ROW).sort(_AT, _ROW)
    same = [cast(events[key], shown.schema[key]).alias(key) for key in wide]
    ordered = events.with_columns(same).sort(TIME, maintain_order=True).with_row_index(_EVENT)
    rows = _latest(shown, ordered, wide, log)
    if wide != by:
        rows = pl.select(pl.coalesce(rows, _latest(shown, ordered, by, log))).to_series()
    return ordered.with_columns(rows.alias(_ROW))


def _latest(shown: pl.DataFrame, events: pl.DataFrame, by: Sequence[str], log: EventLog) -> pl.Series:
    """For each event the row of the latest impression with the same keys, at or before it and within the window."""
    whole = pl.all_horizontal(pl.col([*by, TIME]).is_not_null())
    matches = events.filter(whole).join_asof(
        shown.select(*by, _AT, _ROW).drop_nulls(),
        left_on=TIME,
        right_on=_AT,
        by=list(by),
        strategy="backward",
        tolerance=log.within,
        check_sortedness=False,
    )
    empty = pl.Series(_ROW, [None], pl.UInt32()).new_from_index(0, len(events))
    return empty.scatter(matches[_EVENT], matches[_ROW])


def _columns(name: str, matched: pl.DataFrame, log: EventLog, rows: int) -> pl.DataFrame:
    """The event columns of impressions [rows]."""
    first = (
        matched.filter(pl.col(_ROW).is_not_null())
        .group_by(_ROW, maintain_order=True)
        .agg(
            pl.col(TIME).first().cast(MOMENT).alias(f"{name}_time"),
            pl.len().cast(pl.Int64).alias(f"{name}_count"),
            *(pl.col(value).first() for value in log.values),
        )
    )
    placed = pl.DataFrame({_ROW: pl.Series(range(rows), dtype=pl.UInt32)}).join(
        first, on=_ROW, how="left", maintain_order="left"
    )
    count = pl.col(f"{name}_count").fill_null(0)
    return placed.select((count > 0).cast(pl.Int8).alias(name), f"{name}_time", count, *log.values)


def _unmatched(spec: Spec, name: str, impressions: pl.DataFrame, matched: pl.DataFrame, log: EventLog) -> list[Finding]:
    """The events without an impression, and those of them whose user was shown their item only later."""
    without = matched.filter(pl.col(_ROW).is_null())
    by = [key for key in (spec.keys.user, spec.keys.item) if key is not None]
    first = impressions.group_by(by).agg(pl.col(TIME).min().alias(_AT))
    early = without.join(first, on=by, how="inner", maintain_order="left").filter(pl.col(TIME) < pl.col(_AT))
    return lost(spec, name, log, counts=(len(without), len(early), len(matched)), examples=(without, early))


def lost(
    spec: Spec,
    name: str,
    log: EventLog,
    *,
    counts: tuple[int, int, int],
    examples: tuple[pl.DataFrame, pl.DataFrame],
) -> list[Finding]:
    """Findings about events without an impression, and those of them that came before it, of so many in all."""
    by = [key for key in (spec.keys.user, spec.keys.item) if key is not None]
    within = "" if log.within is None else f" within {log.within}"
    where, (without, early, total) = f"source.events.{name}", counts
    early_text = "events that came before the impression of their user and item; do the clocks agree?"
    text = f"{_LOST}{within}; left out"
    return [
        Finding(where, True, without, total, _examples(examples[0], by), text, "warn"),
        Finding(where + _CLOCK, True, early, total, _examples(examples[1], by), early_text, "warn"),
    ]


def _examples(events: pl.DataFrame, by: Sequence[str]) -> tuple[str, ...]:
    rows = events.select(*by, pl.col(TIME).alias("time")).head(3).iter_rows(named=True)
    return tuple(" ".join(f"{key}={value}" for key, value in row.items()) for row in rows)
