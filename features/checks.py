"""What `multigate check` looks at before anything is built: leaks, clocks, parents, keys, repeats.

Each check gives a Finding that passed or did not, with how many rows are wrong and the first few of them. A column that
the spec names and the logs lack is a SpecError, here as anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from features import columns, joins, labels, sessions
from features.logs import Finding, Logs, collect, columns_of
from features.moments import TIME, moments
from rec import amounts, metrics
from rec.errors import DataError
from rec.spec import Id, Ids, Number, Spec

SAMPLE = 100_000  # rows a separating column is looked for in
SEPARATES = 0.999  # an AUC beyond which a column is the label under another name
SEEN = 20  # rows per value below which the mean label of an id says nothing

__all__ = ["Finding", "check"]


def check(spec: Spec, logs: Logs) -> list[Finding]:
    """Everything that was looked at, in order; whoever prints decides what a failure means."""
    findings = [_label_columns(spec)]
    table = joins.read(spec, logs)
    rows = table.rows
    findings += [
        _nulls(spec, rows, key) for key in ("user", "item", "time", "request") if getattr(spec.keys, key) is not None
    ]
    findings += logs.findings
    findings.append(_repeats(spec, logs, rows))
    findings += _types(spec, rows, table.users)
    if not all(finding.passed for finding in findings if finding.name in ("keys.time", "keys.request")):
        return findings  # without them nobody can say what a request is
    grouped = sessions.group(spec, rows)
    label = labels.read(spec, grouped.rows)
    findings += labels.below_nothing(spec, label, grouped.rows)
    findings += labels.orphans(spec, label, grouped.rows)
    findings += labels.late(spec, label, grouped.rows)
    findings += _one_context(spec, grouped)
    findings += _later(spec, grouped, table.users)
    findings += _separating(spec, grouped, table.users, label)
    return findings


def _label_columns(spec: Spec) -> Finding:
    leaks = labels.leaks(spec)
    return Finding(
        "labels",
        not leaks,
        len(leaks),
        sum(len(f) for _, f in spec.sides()),
        tuple(leaks[:3]),
        "features made of a label's column",
    )


def _nulls(spec: Spec, rows: pl.DataFrame, key: str) -> Finding:
    column = TIME if key == "time" else str(getattr(spec.keys, key))
    places = np.flatnonzero(rows[column].is_null().to_numpy())
    shown = labels.examples(spec, rows, places)
    return Finding(
        f"keys.{key}", not len(places), len(places), len(rows), shown, f"impressions without {getattr(spec.keys, key)}"
    )


def _repeats(spec: Spec, logs: Logs, rows: pl.DataFrame) -> Finding:
    """Impressions that repeat another in every column of the log; without a clock two alike rows may be two."""
    text = "impressions that repeat another in every column of the log"
    if TIME not in rows.columns:
        return Finding(
            "duplicates", True, 0, len(rows), (), f"{text} (alike rows are nothing odd where there is no clock)"
        )
    flat = [column for column, kind in columns_of(logs.impressions, "impressions").items() if not kind.is_nested()]
    hashed = collect(logs.impressions.select(pl.struct(flat).hash().alias("hash")), "impressions")["hash"]
    again = np.flatnonzero(~hashed.is_first_distinct().to_numpy())
    return Finding("duplicates", not len(again), len(again), len(rows), labels.examples(spec, rows, again), text)


def _types(spec: Spec, rows: pl.DataFrame, users: pl.DataFrame | None) -> Iterator[Finding]:
    """Every id column is of the sort its feature says."""
    for side, features in spec.sides():
        for name, feature in features.items():
            if isinstance(feature, Id | Ids) and feature.make == "column":
                column = joins.column_of(feature, name, spec)
                values = (
                    rows[column] if column in rows.columns else users[column] if users is not None else pl.Series([])
                )
                wrong = _wrong_type(values, feature, f"{side}.{name}")
                yield Finding(
                    f"{side}.{name}",
                    wrong is None,
                    0 if wrong is None else len(values),
                    len(values),
                    (wrong,) if wrong else (),
                    f"ids are {feature.values}",
                )


def _wrong_type(values: pl.Series, feature: Id | Ids, where: str) -> str | None:
    try:
        columns.ids(values.head(SAMPLE), feature, where)
    except DataError as error:
        return str(error)
    return None


def _one_context(spec: Spec, grouped: sessions.Sessions) -> Iterator[Finding]:
    """Inside a request of the logs' own, the context's columns do not change."""
    if spec.keys.request is None:
        return
    owner, first = grouped.owner(), grouped.offsets[:-1]
    for column in sessions.context_columns(spec, grouped.rows):
        values = grouped.rows[column]
        places = np.flatnonzero(values.ne_missing(values.gather(first[owner])).to_numpy())
        text = f"impressions whose {column} is not that of their request's first: it belongs to [candidates]"
        yield Finding(
            f"context column {column}",
            not len(places),
            len(places),
            len(values),
            labels.examples(spec, grouped.rows, places),
            text,
        )


def _later(spec: Spec, grouped: sessions.Sessions, users: pl.DataFrame | None) -> Iterator[Finding]:
    """No moment a feature reads, alone or in a list, is after the request."""
    first = joins.with_users(spec, grouped.first(), users)
    owner_time = grouped.time[grouped.owner()]
    for side, features in spec.sides():
        rows, time = (first, grouped.time) if side == "context" else (grouped.rows, owner_time)
        for name, feature in features.items():
            if isinstance(feature, Number | Ids) and feature.make in ("age", "column") and TIME in grouped.rows.columns:
                latest = _latest_moment(rows[joins.column_of(feature, name, spec)], feature, spec, f"{side}.{name}")
                if latest is not None:
                    places = np.flatnonzero((latest > pl.Series(time)).fill_null(False).to_numpy())
                    yield Finding(
                        f"{side}.{name}",
                        not len(places),
                        len(places),
                        len(rows),
                        labels.examples(spec, rows, places),
                        "moments after their request",
                    )


def _latest_moment(values: pl.Series, feature: Number | Ids, spec: Spec, where: str) -> pl.Series | None:
    """The latest moment of each row, microseconds; None for a column that says nothing about when."""
    if isinstance(feature, Number) and feature.make == "age":
        return moments(values, unit=spec.keys.time_unit, where=where).dt.timestamp("us")
    if isinstance(values.dtype, pl.List) and values.dtype.inner.is_temporal():
        return moments(values.list.max(), unit=spec.keys.time_unit, where=where).dt.timestamp("us")
    return None


def _separating(
    spec: Spec, grouped: sessions.Sessions, users: pl.DataFrame | None, label: Mapping[str, np.ndarray]
) -> Iterator[Finding]:
    """No attribute tells a task's 1 from its 0, or more from less, by itself; one that does was written afterwards."""
    step = max(1, len(grouped.rows) // SAMPLE)
    places = np.arange(0, len(grouped.rows), step)[:SAMPLE]
    rows = joins.with_users(spec, grouped.rows[places], users)
    for task in spec.tasks:
        label_N = label[task][places]
        known = label_N >= 0
        ordered, figure, what = metrics.auc, "AUC", f"whether {task} happened"
        if spec.tasks[task].predict != "event":
            ordered, figure, what = amounts.concordance, "concordance", f"how large {task} is"
        found = []
        for side, features in spec.sides():
            for name, feature in features.items():
                if isinstance(feature, Id | Number) and feature.make == "column":
                    score = _score(rows[joins.column_of(feature, name, spec)], label_N, as_id=isinstance(feature, Id))
                    auc = ordered(score[known], label_N[known])
                    if auc is not None and max(auc, 1 - auc) >= SEPARATES:
                        found.append(f"{side}.{name}: {figure} {max(auc, 1 - auc):.4f}")
        text = f"features that alone tell {what}; were they written after it?"
        yield Finding(
            f"tasks.{task}", not found, len(found), sum(len(f) for _, f in spec.sides()), tuple(found[:3]), text
        )


def _score(values: pl.Series, label_N: np.ndarray, *, as_id: bool) -> np.ndarray:
    """A number as it is, an id by the mean label of its value; missing and rare values get the overall mean."""
    if not as_id and values.dtype.is_numeric():
        numbers = values.cast(pl.Float64).fill_nan(None)
        middle = numbers.median()
        return numbers.fill_null(middle if isinstance(middle, float) else 0.0).to_numpy()
    frame = pl.DataFrame({"value": values, "label": pl.Series(label_N).cast(pl.Float64).fill_nan(None)})
    known = pl.col("label").filter(pl.col("label") >= 0)
    mean, count = known.mean().over("value"), known.len().over("value")
    return frame.select(pl.when(count >= SEEN).then(mean).otherwise(known.mean())).to_series().fill_null(0.0).to_numpy()
