"""When the event of a label happened: a column that the spec names, one that a log of events makes, or a guess.

    [tasks.buy]
    label = "bought"
    time = "bought_at"       in any form that keys.time may have; false: the logs do not say

Without `time`, it is taken from a column called as one of the label's with `_time`, `_at`, `_ts`, `_timestamp`, `_date`
or `_datetime` behind it, or from the label itself where that is a moment; `multigate check` warns of the guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from features.logs.logs import Finding
from features.logs.timestamps import MOMENT, TIME
from features.transforms import label_sql
from rec.spec import Event, Spec, Task

SUFFIXES = ("_time", "_at", "_ts", "_timestamp", "_date", "_datetime")
_TIME = re.compile(rf"\w*({'|'.join(SUFFIXES)}|timestamp)", re.IGNORECASE)

LooksLikeMoments = Callable[[str], bool]


@dataclass(frozen=True)
class OutcomeTimes:
    """The columns that hold outcomes' timestamps, by the place of a behaviour in the spec, and which are guesses."""

    declared: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    guessed: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    attributed: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    others: tuple[str, ...] = ()

    def columns(self) -> list[str]:
        """Those of the logs of impressions."""
        groups = (self.declared, self.guessed)
        return list(dict.fromkeys(c for group in groups for several in group.values() for c in several))

    def sure(self) -> dict[str, bool]:
        """The same columns, and whether the spec names them."""
        named = {column for several in self.declared.values() for column in several}
        return {column: column in named for column in self.columns()}


def behaviours(spec: Spec) -> Iterator[tuple[str, Task | Event]]:
    """Everything with a label, by its place in the spec."""
    for kind, group in (("tasks", spec.tasks), ("events", spec.events)):
        for name, behaviour in group.items():
            yield f"{kind}.{name}", behaviour


def of_rows(where: str, behaviour: Task | Event, rows: pl.DataFrame) -> list[str]:
    """The columns of rows that hold the timestamps of a behaviour's event."""
    if behaviour.time is not None:
        return [behaviour.time] if behaviour.time else []
    has = {column: kind for column, kind in rows.schema.items() if isinstance(kind, pl.Datetime)}
    return list(_beside(where, behaviour, has, lambda _column: True))


def early(spec: Spec, where: str, behaviour: Task | Event, rows: pl.DataFrame) -> np.ndarray:
    """Where a behaviour's event is before its impression [N] bool; a date is some time of its day."""
    early_N = np.zeros(len(rows), bool)
    for time in of_rows(where, behaviour, rows):
        if rows.schema.get(time) == MOMENT:
            before = (rows[time] < rows[TIME]).fill_null(value=False)
            if before.any():
                shown, happened = (rows[column].dt.convert_time_zone(spec.keys.time_zone) for column in (TIME, time))
                early_N |= (before & (happened != shown.dt.truncate("1d"))).fill_null(value=False).to_numpy()
    return early_N


def planned(
    spec: Spec, own: Mapping[str, pl.DataType], events: Mapping[str, pl.DataType], looks: LooksLikeMoments
) -> OutcomeTimes:
    """Where the timestamps of outcomes come from: `own` are the impressions' columns, `events` those of logs of events.

    `looks` answers whether the values of a column of impressions look like timestamps.
    """
    declared: dict[str, tuple[str, ...]] = {}
    guessed: dict[str, tuple[str, ...]] = {}
    attributed: dict[str, tuple[str, ...]] = {}
    for where, behaviour in behaviours(spec):
        if behaviour.time is not None:
            named = (behaviour.time,) if behaviour.time else ()
            declared[where] = tuple(column for column in named if column not in events)
            attributed[where] = tuple(column for column in named if column in events)
            continue
        has = {column: kind for column, kind in own.items() if column not in events and column != spec.keys.time}
        of_events = {column: kind for column, kind in events.items() if isinstance(kind, pl.Datetime)}
        attributed[where] = tuple(_beside(where, behaviour, of_events, lambda _column: True))
        guessed[where] = tuple(c for c in _beside(where, behaviour, has, looks) if c not in attributed[where])
    taken = {c for group in (declared, guessed, attributed) for several in group.values() for c in several}
    read = {column for where, behaviour in behaviours(spec) for column in label_sql.columns(where, behaviour.label)}
    for _, features in spec.sides():
        read |= {getattr(feature, "column", None) or name for name, feature in features.items()}
    others = [
        c for c in own if c not in {*taken, *read, spec.keys.time} and (own[c].is_temporal() or _TIME.fullmatch(c))
    ]
    return OutcomeTimes(declared, guessed, attributed, tuple(c for c in others if looks(c)))


def _beside(
    where: str, behaviour: Task | Event, has: Mapping[str, pl.DataType], looks: LooksLikeMoments
) -> Iterator[str]:
    """The columns that are a label's moment by their names, or that the label itself reads as a moment."""

    def is_time(column: str) -> bool:
        return column in has and (has[column].is_temporal() or looks(column))

    for column in label_sql.columns(where, behaviour.label):
        if label_sql.is_moment(behaviour.label, column) and is_time(column):
            yield column
            continue
        near = [column + suffix for suffix in SUFFIXES if is_time(column + suffix)]
        yield from near[:1]


def findings(spec: Spec, times: OutcomeTimes) -> list[Finding]:
    """For each task and event, where its moment comes from; a guess is a warning."""
    return [_finding(where, behaviour, times) for where, behaviour in behaviours(spec)]


def _finding(where: str, behaviour: Task | Event, times: OutcomeTimes) -> Finding:
    named, name = times.declared.get(where, ()), f"{where}.time"
    guessed, of_events = times.guessed.get(where, ()), times.attributed.get(where, ())
    if behaviour.time is False:
        return _note(name, "the spec says that no column tells when it happened")
    if named:
        return _note(name, f"when it happened is in {_listed(named)}, as the spec says")
    if guessed:
        better = f'say time = "{guessed[0]}", or time = false if it is something else'
        text = f"when it happened is taken from {_listed(guessed)}, by its name; {better}"
        return Finding(name, True, len(guessed), len(guessed), (), text, "warn")
    if of_events:
        return _note(name, f"when it happened is in {_listed(of_events)}, of its log of events")
    text = "no column tells when it happened: an event after its window is not told from one inside it"
    if times.others and behaviour.window:
        text += f'; is it {_listed(times.others[:3])}? say time = "...", or time = false'
        return Finding(name, True, 1, 1, (), text, "warn")
    return _note(name, text)


def _note(name: str, text: str) -> Finding:
    return Finding(name, True, 0, 1, (), text, "note")


def _listed(columns: Sequence[str]) -> str:
    return " and ".join(map(repr, columns))
