"""A slice of the log before the sweep: repeats dropped, events joined, requests, side tables, labels.

rows in order of time -> repeats dropped -> requests -> those that are over -> side tables joined -> labels

A request that may still go on waits for the next slice, and so do all that began after it: the sweep asks in order of
time. How long to wait is the longest pause that a request may hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np
import polars as pl

from features import checks, hashing
from features.hashing import CODE, LINE
from features.logs.logs import Finding
from features.logs.timestamps import TIME
from features.pipeline import repeats
from features.pipeline.job import BuildJob
from features.pipeline.side_columns import PlacedSide, SideColumns
from features.sweep import requests
from features.sweep.key_rows import KeyRows, hashed
from features.sweep.requests import Grouping, Numbering, Pauses
from features.transforms import joins, labels, sample_weights, user_columns
from features.transforms.sessions import Sessions, coded_context
from rec.spec import Ids, Number, Spec

FOREVER = 1 << 62
_PAUSE = timedelta(minutes=10)  # the longest inside a request with an id, unless a log shows a longer one
_US = timedelta(microseconds=1)


class LongPauseError(Exception):
    """A request goes on after a longer pause than was waited for."""


@dataclass(frozen=True)
class PreparedSlice:
    """Requests [B] that are over, their impressions [N] with joined columns, and labels [N]; `number` is the slice's.

    Sample weights of tasks are beside the labels, by `rec.spec.tasks.weight_column`.
    `places` are the rows of the side tables: of "items" [N], of "users" [B]. `by_time` are the impressions in order of
    time [N]. `fresh` are the slice's new rows in order of time, of requests that are over or not. `hashes` keeps those
    of columns [N] that were asked for.
    """

    number: int
    grouped: Sessions
    labels: Mapping[str, np.ndarray]
    places: Mapping[str, np.ndarray]
    by_time: np.ndarray
    fresh: pl.DataFrame
    hashes: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict[str, tuple[np.ndarray, np.ndarray]])

    def light(self) -> PreparedSlice:
        """The slice without what only the sweep needs, so that it does not lie in memory until it is written."""
        return replace(self, by_time=self.by_time[:0], fresh=self.fresh.clear(), hashes={})

    @property
    def rows(self) -> pl.DataFrame:
        """The impressions [N]."""
        return self.grouped.rows

    @property
    def moments(self) -> np.ndarray:
        """The timestamp of each impression [N], microseconds."""
        return moments_of(self.rows)

    @property
    def first(self) -> np.ndarray:
        """The first impression of every request [B]."""
        return self.grouped.offsets[:-1]


def moments_of(rows: pl.DataFrame) -> np.ndarray:
    """The timestamps of impressions, microseconds since 1970; 0 if the logs have no time."""
    return rows[TIME].dt.timestamp("us").to_numpy() if TIME in rows.columns else np.zeros(len(rows), np.int64)


def first_pause(spec: Spec) -> int:
    """The longest pause inside a request that is waited for, unless a log shows a longer one."""
    if spec.keys.request is not None:
        return _PAUSE // _US if spec.keys.time is not None else FOREVER
    if spec.keys.user is None:
        return -1
    return spec.requests.gap // _US if spec.keys.time is not None else FOREVER


def longest_pause(spec: Spec, slices: Iterable[pl.DataFrame]) -> int:
    """The longest pause between two impressions of one request, in microseconds; every slice of the log is read."""
    pauses = Pauses()
    for rows in slices:
        pauses.add(hashing.hashed(rows[str(spec.keys.request)]), rows[TIME].to_physical().to_numpy())
    return pauses.longest


class Preparer:
    """Slices one after the other; what is not over is carried from one to the next."""

    def __init__(
        self,
        job: BuildJob,
        sides: Mapping[str, SideColumns],
        *,
        pause: int,
        end: int | None,
        joined: Callable[[pl.DataFrame], pl.DataFrame],
    ) -> None:
        """`pause` is the longest inside a request, `end` until when outcomes were collected, both in microseconds.

        `joined` gives impressions the columns of events with logs of their own.
        """
        self._job, self._sides, self._pause, self._end, self._events = job, sides, pause, end, joined
        self._carried: pl.DataFrame | None = None
        self._numbers, self._over = Numbering(), KeyRows()
        self._read = _joined_columns(job)
        self._early = coded_context(job.spec, job.code, job.of("code"), job.of("impressions"))
        self._times = {*job.times.columns(), *_outcomes_of(job)}
        # the times of outcomes are read by labels alone; a store keeps them, for outcomes to come
        self._kept = {*job.origins} | ({*job.impressions.kinds, *_outcomes_of(job)} if job.snapshot else set())

    def prepared(self, number: int, rows: pl.DataFrame, *, last: bool) -> tuple[PreparedSlice, list[Finding]]:
        """The next slice, the `last` one or not; what was found in it.

        Raises LongPauseError where a request goes on that was taken for over.
        """
        spec = self._job.spec
        fresh, again = repeats.of_impressions(spec, rows)
        fresh = self._events(fresh)
        # a column of the context parts requests, whether it is logged or made by code
        coded = user_columns.evaluate(self._job.code, self._early, fresh)
        rows = coded if self._carried is None or self._carried.is_empty() else pl.concat([self._carried, coded])
        grouping = requests.group(spec, rows, moments_of(rows))
        if spec.keys.request is not None and self._over.find(grouping.mark).any():
            raise LongPauseError
        over = len(grouping) if last else self._finished(rows, grouping)
        self._carried = rows[np.sort(grouping.order[grouping.offsets[over] :])]
        grouping = grouping.head(over)
        grouped = self._grouped(rows, grouping)
        piece, findings = self._labelled(number, grouped, _by_time(grouping.order, len(rows)), fresh)
        return piece, [*([] if again is None else [again]), *findings]

    def _finished(self, rows: pl.DataFrame, grouping: Grouping) -> int:
        """How many requests are over, before the first that may still go on."""
        axis = rows[TIME if TIME in rows.columns else LINE].to_physical().to_numpy()
        going = axis[grouping.order[grouping.offsets[1:] - 1]] > axis[-1] - self._pause
        if not going.any():
            return len(grouping)
        began = axis[grouping.first()]
        return int(np.searchsorted(began, began[going].min()))

    def _grouped(self, rows: pl.DataFrame, grouping: Grouping) -> Sessions:
        spec, first = self._job.spec, grouping.first()
        names = requests.ids(spec, rows, grouping, self._numbers)
        if CODE in rows.columns and spec.keys.request is None:
            self._numbers.add(grouping.mark)
        elif CODE in rows.columns:
            self._over.add(grouping.mark)
        time = moments_of(rows.select(TIME)[first]) if TIME in rows.columns else np.zeros(len(first), np.int64)
        return Sessions(rows[grouping.order], grouping.offsets, time, names)

    def _labelled(
        self, number: int, grouped: Sessions, by_time: np.ndarray, fresh: pl.DataFrame
    ) -> tuple[PreparedSlice, list[Finding]]:
        job, spec, rows = self._job, self._job.spec, grouped.rows
        every, first = np.arange(len(grouped) + 1), grouped.offsets[:-1]
        places, checked = {}, {}
        for name, side in self._sides.items():
            of, offsets = (rows, grouped.offsets) if name == "items" else (rows[first], every)
            key = of[side.table.key]
            places[name] = side.held(grouped.time, offsets, hashed(key), key.is_not_null().to_numpy())
            of_impression = places[name] if name == "items" else places[name][grouped.owner()]
            checked[name] = PlacedSide(side, of_impression, places[name][first] if name == "items" else places[name])
            side_columns = [column for column in self._read[name] if column not in rows.columns]
            rows = rows.with_columns(side.column(column, of_impression).alias(column) for column in side_columns)
        rows = user_columns.evaluate(job.code, [name for name in job.of("code") if name not in rows.columns], rows)
        label, noted = labels.settled(spec, labels.read(spec, rows), rows, self._end)
        weight = sample_weights.read(spec, rows, label)
        grouped = Sessions(rows, grouped.offsets, grouped.time, grouped.ids)
        findings = checks.of_slice(spec, grouped, rows, checked)
        findings += [*noted, *labels.below_nothing(spec, label, rows), *labels.orphans(spec, label, rows)]
        findings += sample_weights.findings(spec, weight, label, rows)
        rows = rows.drop([column for column in self._times if column in rows.columns and column not in self._kept])
        grouped = Sessions(rows, grouped.offsets, grouped.time, grouped.ids)
        return PreparedSlice(number, grouped, {**label, **weight}, places, by_time, fresh), findings


def _outcomes_of(job: BuildJob) -> set[str]:
    """The times of events with logs of their own."""
    return {f"{name}_time" for name in job.described}


def _by_time(order: np.ndarray, rows: int) -> np.ndarray:
    """The places in `order` [N] of rows that are in order of time, some of `rows` in all."""
    place = np.full(rows, -1)
    place[order] = np.arange(len(order))
    return place[place >= 0]


def _joined_columns(job: BuildJob) -> dict[str, list[str]]:
    """Columns of items and users that are needed beside impressions: by labels, by code, by checks."""
    spec = job.spec
    read = {column for name in job.of("code") for column in user_columns.load(job.code)[name].reads}
    for kind, group in (("tasks", spec.tasks), ("events", spec.events)):
        read |= {
            column for name, behaviour in group.items() for column in labels.columns(f"{kind}.{name}", behaviour.label)
        }
    read |= {column for name in spec.tasks for column in sample_weights.columns(spec, name)}
    if spec.split.column is not None:
        read.add(spec.split.column)
    for side, features in spec.sides():
        for name, feature in features.items():
            checked = isinstance(feature, Number | Ids) and feature.make in ("age", "column")
            if checked and not (
                side == "context" and job.origins[joins.column_of(feature, name, spec)].table == "users"
            ):
                read.add(joins.column_of(feature, name, spec))
    if job.snapshot:  # a store keeps rows with all that is joined to impressions
        read |= {
            column
            for column, behaviour in job.origins.items()
            if not (behaviour.table == "users" and behaviour.per_request)
        }
    read |= {*job.read_by("context")} & {*job.of("items")} | {*job.read_by("candidates")} & {*job.of("users")}
    return {table: [column for column in job.of(table) if column in read] for table in ("items", "users")}
