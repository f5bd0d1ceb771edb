"""What `multigate check` looks at: the spec, every partition of the logs, and the session tables made of them.

    of_spec      features made of a label's column
    of_shard     nobody named, keys that the side tables lack, contexts that change, moments after their request
    merged       what several partitions found, as one list
    of_tables    leaks, hindsight, drift, unknown ids, features without content, clocks (a sample of DATA)

A Finding fails, warns, or notes a fact that was dealt with. A column that the spec names and the logs lack is a
SpecError, here as anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from features.checks import drift, leaks, quality, sample, target_leak
from features.checks.sample import Sample
from features.logs.logs import Finding
from features.logs.timestamps import TIME, moments
from features.transforms import joins, labels, sessions
from features.transforms.joins import SideTable
from rec.spec import Ids, Number, Spec

LEVELS = ("note", "warn", "fail")
_ADVICE = re.compile(";|, got")

__all__ = ["Finding", "Looked", "merged", "of_shard", "of_spec", "of_tables"]


@dataclass(frozen=True)
class Looked:
    """What a look at built tables gave: what was found, the sample it was found in, and what a card says of it.

    `drift` is PSI by feature, `missing` the share of rows without a value by split and feature.
    """

    findings: list[Finding]
    drift: Mapping[str, float]
    missing: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, Sample]


def of_spec(spec: Spec) -> Finding:
    """No feature reads what a label is made of."""
    found = labels.leaks(spec)
    total = sum(len(features) for _, features in spec.sides())
    return Finding("labels", not found, len(found), total, tuple(found[:3]), "features made of a label's column")


def of_shard(
    spec: Spec, grouped: sessions.Sessions, rows: pl.DataFrame, sides: Mapping[str, SideTable]
) -> list[Finding]:
    """What a partition can tell: its requests, its impressions [N] with joined columns, the side tables by name."""
    time = grouped.time[grouped.owner()]
    found = [*_nobody(spec, rows)]
    found += [_missed(spec, rows, name, sides[name], time) for name in ("users", "items") if name in sides]
    found += _one_context(spec, grouped, rows)
    found += _later(spec, grouped, rows, sides.get("users"))
    return found


def merged(found: Iterable[Sequence[Finding]]) -> list[Finding]:
    """Findings of one name and text as one: counts added, the first examples kept, in the order first met.

    Of texts that are alike up to a `;` or `, got`, where advice begins, the first that counts any row stays. A side
    table that has nothing for any row fails, which no partition alone can say.
    """
    made: dict[tuple[str, str], Finding] = {}
    for one in (finding for findings in found for finding in findings):
        key = one.name, _ADVICE.split(one.text)[0]
        before = made.get(key, replace(one, count=0, total=0, examples=(), passed=True, level="note"))
        made[key] = replace(
            before if before.count else one,
            passed=before.passed and one.passed,
            count=before.count + one.count,
            total=before.total + one.total,
            examples=(*before.examples, *one.examples)[:3],
            level=max(before.level, one.level, key=LEVELS.index),
        )
    return [_judged(one) for one in made.values()]


def of_tables(spec: Spec, data: Path, *, unseen: Mapping[str, Mapping[str, float]]) -> Looked:
    """What the session tables of DATA tell; `unseen` is the share of unknown ids by split and feature.

    A sample of about sampled.SIZE candidates per split is looked at (for leaks, of FEWER), the same however DATA was
    made.
    """
    samples, fewer = sample.nested(spec, data, sample.SIZE, sample.FEWER)
    moved = drift.of(spec, samples)
    found = [
        *leaks.separating(spec, sample.together(fewer)),
        *target_leak.statistics(spec, samples),
        *quality.contents(spec, samples),
        quality.ranges(spec, samples),
        quality.unknown(unseen),
        quality.labels(spec, samples),
        *quality.clock(spec, samples),
        *drift.findings(spec, moved),
    ]
    return Looked(found, moved, quality.missing(spec, samples), samples)


def _judged(one: Finding) -> Finding:
    if one.name in ("users", "items") and 0 < one.total == one.count:
        return replace(one, passed=False, level="fail")
    return one


def _nobody(spec: Spec, rows: pl.DataFrame) -> Iterator[Finding]:
    user = spec.keys.user
    if user is not None:
        places = np.flatnonzero(rows[user].is_null().to_numpy())
        shown = labels.examples(spec, rows, places)
        text = f"impressions without {user}: of somebody unknown, without a past"
        yield Finding("keys.user", True, len(places), len(rows), shown, text, "note")


def _missed(spec: Spec, rows: pl.DataFrame, name: str, table: SideTable, time: np.ndarray) -> Finding:
    """Impressions of a key that the table lacks, or did not have yet."""
    keys = rows.select(table.key)
    places = np.flatnonzero((table.lacks(keys, time) & keys[table.key].is_not_null()).to_numpy())
    text = f"impressions whose {table.key} the table of {name} does not have: its columns are missing there"
    shown = labels.examples(spec, rows, places)
    return Finding(name, True, len(places), len(rows) - keys[table.key].null_count(), shown, text, "warn")


def _one_context(spec: Spec, grouped: sessions.Sessions, rows: pl.DataFrame) -> Iterator[Finding]:
    """Inside a request of the logs' own, the context's columns do not change."""
    if spec.keys.request is None:
        return
    first = grouped.offsets[:-1][grouped.owner()]
    for column in sessions.context_columns(spec, rows):
        places = np.flatnonzero(rows[column].ne_missing(rows[column].gather(first)).to_numpy())
        text = f"impressions whose {column} is not that of their request's first: it belongs to [candidates]"
        shown = labels.examples(spec, rows, places)
        yield Finding(f"context column {column}", not len(places), len(places), len(rows), shown, text)


def _later(spec: Spec, grouped: sessions.Sessions, rows: pl.DataFrame, users: SideTable | None) -> Iterator[Finding]:
    """No moment a feature reads, alone or in a list, is after the request."""
    if TIME not in rows.columns:
        return
    first = rows[grouped.offsets[:-1]]
    for side, features in spec.sides():
        for name, feature in features.items():
            if isinstance(feature, Number | Ids) and feature.make in ("age", "column"):
                column = joins.column_of(feature, name, spec)
                of, time = (first, grouped.time) if side == "context" else (rows, grouped.time[grouped.owner()])
                if column not in of.columns and users is not None:
                    of = users.joined(of, [column], time)
                latest = _latest_moment(of[column], feature, spec, f"{side}.{name}")
                if latest is not None:
                    places = np.flatnonzero((latest > pl.Series(time)).fill_null(False).to_numpy())
                    shown = labels.examples(spec, of, places)
                    text = "moments after their request"
                    yield Finding(f"{side}.{name}", not len(places), len(places), len(of), shown, text)


def _latest_moment(values: pl.Series, feature: Number | Ids, spec: Spec, where: str) -> pl.Series | None:
    """The latest moment of each row, microseconds; None for a column that says nothing about when."""
    if isinstance(feature, Number) and feature.make == "age":
        return moments(values, unit=spec.keys.time_unit, where=where).dt.timestamp("us")
    if isinstance(values.dtype, pl.List) and values.dtype.inner.is_temporal():
        return moments(values.list.max(), unit=spec.keys.time_unit, where=where).dt.timestamp("us")
    return None
