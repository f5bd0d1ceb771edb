"""Labels: SQL expressions over the columns of an impression, as 1 (it happened), 0 (it did not) or -1 (not observed).

    label = "clicked AND dwell >= 30"

A column of 0 and 1 may be used as an SQL condition. The label of a regression task is a number of 0 or more, or NaN if
it is not observed; if the task's parent did not happen it is 0.

    label = "play_time_ms / 1000"    predict = "ordinal"    given = "click"
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta

import numpy as np
import polars as pl

from features.logs.dtypes import cleaned
from features.logs.logs import Finding
from features.logs.timestamps import TIME
from features.logs.unlabelled import UNLABELLED
from features.transforms import outcome_times
from features.transforms.label_sql import columns, evaluated, is_moment
from rec.errors import SpecError
from rec.spec import AnyFeature, Event, Ids, Number, Spec, Task
from rec.spec.features import PAST, keys_of, matching_of, value_of
from rec.spec.tasks import UNOBSERVED, in_order, regression_tasks


def read(spec: Spec, rows: pl.DataFrame) -> dict[str, np.ndarray]:
    """Labels of all impressions: int8 [N] of behaviours, float32 [N] of regression tasks; parents before children.

    Raises SpecError for an expression that cannot be evaluated or is not one 0/1, or one number, per impression.
    """
    labels: dict[str, np.ndarray] = {}
    for name in in_order(spec.tasks):
        task, where = spec.tasks[name], f"tasks.{name}"
        unknown = _unknown(spec, name, rows)
        if unknown is not None and unknown.all():
            nothing = (np.float32("nan"), np.float32) if task.predict != "event" else (UNOBSERVED, np.int8)
            labels[name] = np.full(len(rows), *nothing)
            continue
        event = task.predict == "event"
        label = _event(spec, where, task.label, rows) if event else _quantity(spec, where, task, rows, labels)
        labels[name] = label if unknown is None else _masked(label, unknown)
    for name, event in spec.events.items():
        unknown = _unknown(spec, name, rows)
        if unknown is not None and unknown.all():
            labels[name] = np.full(len(rows), UNOBSERVED, np.int8)
            continue
        label = _event(spec, f"events.{name}", event.label, rows)
        labels[name] = label if unknown is None else _masked(label, unknown)
    return labels


def _unknown(spec: Spec, name: str, rows: pl.DataFrame) -> np.ndarray | None:
    """Where a label's columns are not in the file of a row [N] bool; None where all files have them."""
    if UNLABELLED not in rows.columns:
        return None
    place = [where.partition(".")[2] for where, _ in outcome_times.behaviours(spec)].index(name)
    return (rows[UNLABELLED].to_numpy() >> place & 1).astype(bool)


def _masked(label: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """A label that is not observed where it is `unknown` [N] bool."""
    return np.where(unknown, np.float32("nan") if label.dtype == np.float32 else np.int8(UNOBSERVED), label)


def settled(
    spec: Spec, labels: Mapping[str, np.ndarray], rows: pl.DataFrame, end: int | None
) -> tuple[dict[str, np.ndarray], list[Finding]]:
    """Labels as of the end of their windows, and findings on how many that changed.

    An event after its window counts as 0. A window still open at `end` (microseconds; None: logs without timestamps)
    makes the label unobserved: -1, or NaN for a regression task.
    """
    if end is None or TIME not in rows.columns:
        return dict(labels), []
    time_N = rows[TIME].dt.timestamp("us").to_numpy()
    closed, findings, too_late = {}, [], dict[str, np.ndarray]()
    for name, label in labels.items():
        behaviour = spec.tasks.get(name) or spec.events[name]
        kind = "tasks" if name in spec.tasks else "events"
        window = behaviour.window // timedelta(microseconds=1)
        late = _late(f"{kind}.{name}", behaviour, rows, time_N + window)
        early = outcome_times.early(spec, f"{kind}.{name}", behaviour, rows) & known(label) & (label != 0)
        if isinstance(behaviour, Task) and behaviour.given is not None:
            late |= too_late[behaviour.given]  # a child does not happen where its parent came too late
        # a late event counts as 0 even if its label is unobserved
        too_late[name] = late = late & (label != 0)
        is_open = (time_N + window > end) & (window > 0)
        unknown = np.float32("nan") if label.dtype == np.float32 else np.int8(UNOBSERVED)
        changed = np.where(late, label.dtype.type(0), label) if late.any() else label
        closed[name] = np.where(is_open, unknown, changed) if is_open.any() else changed
        where = f"{kind}.{name}.window"
        if early.any():
            text = f"{name} came before its impression, and is counted as happened; do the clocks agree?"
            shown = examples(spec, rows, np.flatnonzero(early))
            findings.append(Finding(where, True, int(early.sum()), len(rows), shown, text, "warn"))
        text = f"{name} came after its window of {behaviour.window}: counted as not happened"
        findings.append(_noted(where, late, spec, rows, text))
        text = f"{name} whose window had not closed at the end of the logs: not observed; logs.end says when that is"
        findings.append(_noted(where, is_open & known(label), spec, rows, text))
    return closed, findings


def known(label: np.ndarray) -> np.ndarray:
    """Where a label is observed [N] bool."""
    return ~np.isnan(label) if label.dtype == np.float32 else label >= 0


def _late(where: str, behaviour: Task | Event, rows: pl.DataFrame, last_N: np.ndarray) -> np.ndarray:
    """Where a behaviour's event is later than the window allows."""
    late = np.zeros(len(rows), bool)
    for time in outcome_times.of_rows(where, behaviour, rows):
        if time in rows.columns:
            known_N = rows[time].dt.timestamp("us")
            late |= known_N.fill_null(np.iinfo(np.int64).min).to_numpy() > last_N
    return late


def _noted(where: str, places: np.ndarray, spec: Spec, rows: pl.DataFrame, text: str) -> Finding:
    """A finding of level "note": the number of rows, and examples."""
    shown = examples(spec, rows, np.flatnonzero(places)) if places.any() else ()
    return Finding(where, True, int(places.sum()), len(rows), shown, text, "note")


def leaks(spec: Spec) -> list[str]:
    """One line for every model input that reads a column of a label; `kept` columns are no inputs."""
    outcomes = {column: (where.partition(".")[2], behaviour.window) for where, behaviour, column in _outcomes(spec)}
    problems = []
    for side, features in spec.sides():
        for name, feature in features.items():
            past = _remembers(feature)  # may be an outcome with a window of 0
            problems += [
                f"{side}.{name}: reads {column!r}, a column of the label of task {outcomes[column][0]!r}"
                for column in read_by(feature, name)
                if column in outcomes and (outcomes[column][1] or column not in past)
            ]
    return problems


def _outcomes(spec: Spec) -> Iterator[tuple[str, Task | Event, str]]:
    """Every column of a label or of its timestamp: the place in the spec, the behaviour, the column."""
    for where, behaviour in outcome_times.behaviours(spec):
        for column in (*columns(where, behaviour.label), *([behaviour.time] if behaviour.time else [])):
            yield where, behaviour, column


def leaks_of_code(spec: Spec, reads: Mapping[str, Collection[str]]) -> list[str]:
    """One line for every model input made by code of a label's column; `reads` are the columns that code reads."""
    outcomes = {column for _, _, column in _outcomes(spec)} - {spec.keys.user, spec.keys.item, spec.keys.time}
    return [
        f"{side}.{name}: reads {column!r}, which is made of {min(outcomes & set(reads[column]))!r}, a column of a label"
        for side, features in spec.sides()
        for name, feature in features.items()
        for column in read_by(feature, name)
        if outcomes & set(reads.get(column, ()))
    ]


def read_by(feature: AnyFeature, name: str) -> tuple[str, ...]:
    """The columns of its own impression that a feature reads, or the key columns that it aggregates by."""
    make = getattr(feature, "make", "column")
    if isinstance(feature, Ids | Number) and (make == "history" or make in PAST):
        # most often the same ones, and then told of once
        keys = tuple(dict.fromkeys([*keys_of(feature), *matching_of(feature)])) if isinstance(feature, Number) else ()
        return (*keys, *(_remembers(feature) if feature.task is None else ()))  # what was shown has no window
    return (feature.column or name,) if feature.kind != "kept" and make in ("column", "age", "tokens") else ()


def _remembers(feature: AnyFeature) -> tuple[str, ...]:
    """The column whose values a history holds, or a mean, a sum or a last one is of."""
    history = isinstance(feature, Ids) and feature.make == "history" and feature.column
    valued = value_of(feature)
    if valued is not None and isinstance(feature, Number) and valued not in keys_of(feature):
        return (valued,)
    return (history,) if history else ()


def too_early(spec: Spec, event: str, event_columns: Collection[str]) -> list[str]:
    """One line for every feature that would read an event log's columns before the event happened.

    `event_columns` are the columns that attribution adds for `event`. Only a history, or
    a mean, sum or last value, of a behaviour whose label reads them may hold them.
    """
    needs = {
        name
        for kind, group in (("tasks", spec.tasks), ("events", spec.events))
        for name, behaviour in group.items()
        if set(columns(f"{kind}.{name}", behaviour.label)) & set(event_columns)
    }
    problems = []
    for side, features in spec.sides():
        for name, feature in features.items():
            read = read_by(feature, name)
            if _remembers(feature) and getattr(feature, "task", None) not in needs:
                read = (*read, *(column for column in _remembers(feature) if column not in read))
            problems += [f"{side}.{name}: reads {c!r} of source.events.{event}" for c in read if c in event_columns]
    return problems


def orphans(spec: Spec, labels: Mapping[str, np.ndarray], rows: pl.DataFrame) -> list[Finding]:
    """For each task with a parent: impressions where it is above 0 although its parent did not happen."""
    findings = []
    for name, task in spec.tasks.items():
        if task.given is not None:
            wrong = np.flatnonzero((labels[name] > 0) & (labels[task.given] == 0))
            total = int((labels[name] > 0).sum())
            text = f"{name} without {task.given}"
            if len(wrong):
                parent = spec.tasks[task.given].label
                better = f"({parent}) AND ({task.label})"
                if task.predict != "event":
                    better = f"CASE WHEN {parent} THEN {task.label} END"
                text += f"; write its label as '{better}'"
            findings.append(
                Finding(f"tasks.{name}", not len(wrong), len(wrong), total, examples(spec, rows, wrong), text)
            )
    return findings


def below_nothing(spec: Spec, labels: Mapping[str, np.ndarray], rows: pl.DataFrame) -> list[Finding]:
    """For each regression task: impressions where its label is negative or infinite."""
    problems = []
    for name in regression_tasks(spec.tasks):
        wrong = np.flatnonzero((labels[name] < 0) | np.isinf(labels[name]))
        text = f"{name} is a number of 0 or more"
        if len(wrong):
            text += f", got {labels[name][wrong[0]]:g}; what it means elsewhere must be defined in its label"
        total = int((~np.isnan(labels[name])).sum())
        problems.append(
            Finding(f"tasks.{name}.label", not len(wrong), len(wrong), total, examples(spec, rows, wrong), text)
        )
    return problems


def examples(spec: Spec, rows: pl.DataFrame, places: np.ndarray, *, most: int = 3) -> tuple[str, ...]:
    """Examples of rows by their keys: `user_id=7 item_id=3 time=...`."""
    keys = [
        key
        for key in (spec.keys.request, spec.keys.user, spec.keys.item, spec.keys.time)
        if key is not None and key in rows.columns
    ]
    if not keys:
        return tuple(f"row {place}" for place in places[:most])
    return tuple(
        " ".join(f"{k}={v}" for k, v in row.items()) for row in rows.select(keys)[places[:most]].iter_rows(named=True)
    )


def _event(spec: Spec, place: str, label: str, rows: pl.DataFrame) -> np.ndarray:
    where = f"{place}.label"
    result = evaluated(spec, place, label, rows, _is_condition)
    if result.dtype.is_temporal() and all(is_moment(label, column) for column in columns(place, label)):
        result = result.is_not_null()  # it happened where there is a moment at which it did
    if result.dtype != pl.Boolean and not result.dtype.is_numeric():
        got = f"got {result.dtype}; write a comparison, such as \"{label} = 'yes'\""
        raise SpecError(f"{where}: expected 0 or 1, {got}")
    values = cleaned(result.cast(pl.Float64))
    odd = values.filter(~values.is_in([0.0, 1.0]).fill_null(value=True))
    if len(odd):
        raise SpecError(f"{where}: expected 0 or 1, got {odd[0]:g}; write a comparison, such as '{label} > 0'")
    return values.fill_null(UNOBSERVED).to_numpy().astype(np.int8)


def _quantity(spec: Spec, place: str, task: Task, rows: pl.DataFrame, labels: Mapping[str, np.ndarray]) -> np.ndarray:
    where = f"{place}.label"
    result = evaluated(spec, place, task.label, rows, _is_number)
    if not result.dtype.is_numeric():
        raise SpecError(f'{where}: expected a number, got {result.dtype}; a condition goes with predict = "event"')
    values = result.cast(pl.Float32).fill_null(float("nan")).to_numpy()
    if task.given is None:
        return values
    return np.where(np.isnan(values) & (labels[task.given] == 0), np.float32(0), values)


def _is_condition(kind: pl.DataType) -> bool:
    """Whether values of a type say that something happened: 0 and 1, or when it did."""
    return kind == pl.Boolean or kind.is_numeric() or kind.is_temporal()


def _is_number(kind: pl.DataType) -> bool:
    return kind.is_numeric()
