"""What `multigate check` checks: the spec, every slice of the logs, and the session tables built from them.

    of_spec         features made of a label's column
    of_slice    unknown users, keys that the side tables lack, contexts that change, timestamps after their request
    merged          the findings of several slices as one list
    of_tables       leaks, outcomes, drift, unknown ids, empty or constant features, splits, clocks (a sample of DATA)

A Finding fails, warns, or notes something that a rule handled. A column that the spec names and the logs lack is a
SpecError, not a finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.checks import drift, implications, leaks, quality, sample, target_leak
from features.checks.sample import Sample
from features.logs.logs import Finding
from features.logs.timestamps import TIME, moments
from features.transforms import joins, labels, sessions
from features.transforms.joins import SideTable
from rec.spec import Ids, Number, Spec

LEVELS = ("note", "warn", "fail")
_ADVICE = re.compile(";|, got")

__all__ = ["Finding", "TableReport", "merged", "of_slice", "of_spec", "of_tables"]


@dataclass(frozen=True)
class TableReport:
    """The findings in built session tables, with the samples and the data card's statistics.

    `drift` is PSI by feature, `missing` the share of rows without a value by split and feature.
    """

    findings: list[Finding]
    drift: Mapping[str, float]
    missing: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, Sample]


def of_spec(spec: Spec) -> Finding:
    """Label leak: no feature reads a column of a label."""
    leaking = labels.leaks(spec)
    total = sum(len(features) for _, features in spec.sides())
    return Finding("labels", not leaking, len(leaking), total, tuple(leaking[:3]), "features made of a label's column")


def of_slice(
    spec: Spec, grouped: sessions.Sessions, rows: pl.DataFrame, sides: Mapping[str, SideTable]
) -> list[Finding]:
    """The findings in one partition: its requests, its impressions [N] with joined columns, the side tables by name."""
    time = grouped.time[grouped.owner()]
    findings = [*_unknown_users(spec, rows)]
    findings += [_missing_keys(spec, rows, name, sides[name], time) for name in ("users", "items") if name in sides]
    findings += _changing_context(spec, grouped, rows)
    findings += _later(spec, grouped, rows, sides.get("users"))
    return findings


def merged(of_slices: Iterable[Sequence[Finding]]) -> list[Finding]:
    """Findings of one name and text as one: counts added, the first examples kept, in the order first met.

    Texts are equal if they agree up to a `;` or `, got`, where advice begins; the first with a count above 0 is kept. A
    side table without a row for any key fails, which cannot be decided per partition.
    """
    by_text: dict[tuple[str, str], Finding] = {}
    for finding in (finding for findings in of_slices for finding in findings):
        key = finding.name, _ADVICE.split(finding.text)[0]
        before = by_text.get(key, replace(finding, count=0, total=0, examples=(), passed=True, level="note"))
        by_text[key] = replace(
            before if before.count else finding,
            passed=before.passed and finding.passed,
            count=before.count + finding.count,
            total=before.total + finding.total,
            examples=(*before.examples, *finding.examples)[:3],
            level=max(before.level, finding.level, key=LEVELS.index),
        )
    return [_failing_where_all_are_missing(finding) for finding in by_text.values()]


def of_tables(
    spec: Spec, data: Path, *, unseen: Mapping[str, Mapping[str, float]], counts: Mapping[str, Mapping[str, Any]]
) -> TableReport:
    """The findings in the session tables of DATA.

    `unseen` is the share of unknown ids by split and feature, `counts` what a split holds, both of all rows. The rest
    is found in a sample of about sample.SIZE candidates per split (leaks and outcomes in one of FEWER), the same
    however DATA was made.
    """
    samples, fewer = sample.nested(spec, data, sample.SIZE, sample.FEWER)
    some = sample.together(fewer)
    with ThreadPoolExecutor() as threads:
        moved = threads.submit(drift.of, spec, samples)
        found = threads.map(
            lambda check: list(check()),
            (
                lambda: leaks.separating(spec, some),
                lambda: [*implications.findings(spec, some), implications.names(spec, some)],
                lambda: target_leak.statistics(spec, samples),
                lambda: [*quality.contents(spec, samples), quality.ranges(spec, samples)],
                lambda: [quality.unknown(unseen), *quality.splits(spec, counts), *quality.weights(spec, counts)],
                lambda: [*quality.clock(spec, samples), *drift.findings(spec, moved.result())],
            ),
        )
        findings = [finding for several in found for finding in several]
    return TableReport(findings, moved.result(), quality.missing(spec, samples), samples)


def _failing_where_all_are_missing(finding: Finding) -> Finding:
    if finding.name in ("users", "items") and 0 < finding.total == finding.count:
        return replace(finding, passed=False, level="fail")
    return finding


def _unknown_users(spec: Spec, rows: pl.DataFrame) -> Iterator[Finding]:
    user = spec.keys.user
    if user is not None:
        places = np.flatnonzero(rows[user].is_null().to_numpy())
        shown = labels.examples(spec, rows, places)
        text = f"impressions without a {user}: kept, with an empty history"
        yield Finding("keys.user", True, len(places), len(rows), shown, text, "note")


def _missing_keys(spec: Spec, rows: pl.DataFrame, name: str, table: SideTable, time: np.ndarray) -> Finding:
    """Impressions whose key is not in the side table as of their time."""
    keys = rows.select(table.key)
    places = np.flatnonzero((table.lacks(keys, time) & keys[table.key].is_not_null()).to_numpy())
    text = f"impressions whose {table.key} is not in the {name} table: its columns are null there"
    shown = labels.examples(spec, rows, places)
    return Finding(name, True, len(places), len(rows) - keys[table.key].null_count(), shown, text, "warn")


def _changing_context(spec: Spec, grouped: sessions.Sessions, rows: pl.DataFrame) -> Iterator[Finding]:
    """Context columns are constant within a request, if the logs have request ids."""
    if spec.keys.request is None:
        return
    first = grouped.offsets[:-1][grouped.owner()]
    for column in sessions.context_columns(spec, rows):
        places = np.flatnonzero(rows[column].ne_missing(rows[column].gather(first)).to_numpy())
        text = f"impressions whose {column} differs from the first of their request: it belongs to [candidates]"
        shown = labels.examples(spec, rows, places)
        yield Finding(f"context column {column}", not len(places), len(places), len(rows), shown, text)


def _later(spec: Spec, grouped: sessions.Sessions, rows: pl.DataFrame, users: SideTable | None) -> Iterator[Finding]:
    """No timestamp that a feature reads, scalar or list, is after the request."""
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
                latest = _latest_timestamp(of[column], feature, spec, f"{side}.{name}")
                if latest is not None:
                    places = np.flatnonzero((latest > pl.Series(time)).fill_null(False).to_numpy())
                    shown = labels.examples(spec, of, places)
                    text = "timestamps after their request"
                    yield Finding(f"{side}.{name}", not len(places), len(places), len(of), shown, text)


def _latest_timestamp(values: pl.Series, feature: Number | Ids, spec: Spec, where: str) -> pl.Series | None:
    """The latest timestamp of each row, microseconds; None for a column without timestamps."""
    if isinstance(feature, Number) and feature.make == "age":
        return moments(values, unit=spec.keys.time_unit, where=where, zone=spec.keys.time_zone).dt.timestamp("us")
    if isinstance(values.dtype, pl.List) and values.dtype.inner.is_temporal():
        return moments(values.list.max(), unit=spec.keys.time_unit, where=where, zone=spec.keys.time_zone).dt.timestamp(
            "us"
        )
    return None
