"""Labels: SQL expressions over the columns of an impression, as 1 (it happened), 0 (it did not) or -1 (not observed).

    label = "clicked AND dwell >= 30"

A column of 0 and 1 may stand where SQL wants a condition. Of a task that predicts a quantity the label is a number of 0
or more, or NaN where it is not observed; where the task's parent did not happen there is nothing of it: 0.

    label = "play_time_ms / 1000"    predict = "ordinal"    given = "click"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import polars as pl

from features.logs import Finding
from features.moments import TIME
from rec.errors import DataError, SpecError, nearest
from rec.spec import Number, Spec, Task
from rec.tasks import UNOBSERVED, in_order, quantities

_TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|[A-Za-z_][\w.]*|[0-9.]+|<>|!=|<=|>=|\s+|.", re.DOTALL)
_BEFORE = {"", "(", "AND", "OR", "NOT", "WHEN"}
_AFTER = {"", ")", "AND", "OR", "THEN"}
_JOINING = {"AND", "OR", "NOT", "WHEN", "THEN"}


def columns(name: str, task: Task) -> list[str]:
    """The columns a task's label reads; SpecError when it is not an SQL expression."""
    try:
        return list(dict.fromkeys(pl.sql_expr(task.label).meta.root_names()))
    except pl.exceptions.PolarsError as error:
        raise SpecError(f"tasks.{name}.label: not an SQL expression: {str(error).splitlines()[0]}") from None


def read(spec: Spec, rows: pl.DataFrame) -> dict[str, np.ndarray]:
    """Every task's label of every impression, parents first: int8 [N] of events, float32 [N] of quantities.

    Raises SpecError for an expression that cannot be worked out or is not one 0/1, or one number, per impression.
    """
    found: dict[str, np.ndarray] = {}
    for name in in_order(spec.tasks):
        task = spec.tasks[name]
        found[name] = _event(name, task, rows) if task.predict == "event" else _quantity(name, task, rows, found)
    return found


def leaks(spec: Spec) -> list[str]:
    """One line for every feature that reads a column a label is made of (a column carried as `kept` is no input)."""
    outcomes = {column: task for task, one in spec.tasks.items() for column in columns(task, one)}
    found = []
    for side, features in spec.sides():
        for name, feature in features.items():
            make = getattr(feature, "make", "column")
            column = (
                feature.per if isinstance(feature, Number) and make in ("count", "rate") else feature.column or name
            )
            if feature.kind != "kept" and make in ("column", "age", "count", "rate") and column in outcomes:
                found.append(
                    f"{side}.{name}: reads {column!r}, of which the label of task {outcomes[column]!r} is made"
                )
    return found


def orphans(spec: Spec, labels: Mapping[str, np.ndarray], rows: pl.DataFrame) -> list[Finding]:
    """For each task with a parent: impressions where it happened, or is above 0, although its parent did not."""
    found = []
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
            found.append(Finding(f"tasks.{name}", not len(wrong), len(wrong), total, examples(spec, rows, wrong), text))
    return found


def below_nothing(spec: Spec, labels: Mapping[str, np.ndarray], rows: pl.DataFrame) -> list[Finding]:
    """For each task that predicts a quantity: impressions where it is negative or infinite."""
    found = []
    for name in quantities(spec.tasks):
        wrong = np.flatnonzero((labels[name] < 0) | np.isinf(labels[name]))
        text = f"{name} is a number of 0 or more"
        if len(wrong):
            text += f", got {labels[name][wrong[0]]:g}; what it means where it is not must be said in its label"
        total = int((~np.isnan(labels[name])).sum())
        found.append(
            Finding(f"tasks.{name}.label", not len(wrong), len(wrong), total, examples(spec, rows, wrong), text)
        )
    return found


def late(spec: Spec, labels: Mapping[str, np.ndarray], rows: pl.DataFrame) -> list[Finding]:
    """For each task whose event has a moment (a column `click` with `click_time`): events after the task's window.

    Such an event would be counted in features before anybody could have known it.
    """
    if TIME not in rows.columns:
        return []
    time_N = rows[TIME].dt.timestamp("us").to_numpy()
    found = []
    for name, task in spec.tasks.items():
        for column in columns(name, task):
            moment = f"{column}_time"
            if moment in rows.columns and isinstance(rows[moment].dtype, pl.Datetime):
                known = rows[moment].dt.timestamp("us").fill_null(time_N.min()).to_numpy()
                wrong = np.flatnonzero((labels[name] > 0) & (known > time_N + task.window // timedelta(microseconds=1)))
                longest = timedelta(microseconds=int((known - time_N)[wrong].max())) if len(wrong) else task.window
                text = f"{moment} is later than tasks.{name}.window ({task.window}) allows; the latest needs {longest}"
                found.append(
                    Finding(
                        f"tasks.{name}.window", not len(wrong), len(wrong), len(rows), examples(spec, rows, wrong), text
                    )
                )
    return found


def refuse(findings: list[Finding]) -> None:
    """DataError for the first finding that did not pass."""
    for finding in findings:
        if not finding.passed:
            raise DataError(
                f"{finding.name}: {finding.count} of {finding.total}: {finding.text}; such as {finding.examples[0]}"
            )


def examples(spec: Spec, rows: pl.DataFrame, places: np.ndarray, *, most: int = 3) -> tuple[str, ...]:
    """The keys of the first few of some rows, to be shown: `user_id=7 item_id=3 time=...`."""
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


def _event(name: str, task: Task, rows: pl.DataFrame) -> np.ndarray:
    where = f"tasks.{name}.label"
    made = _made(where, task, rows)
    if made.dtype != pl.Boolean and not made.dtype.is_numeric():
        raise SpecError(
            f"{where}: expected 0 or 1, got {made.dtype}; write a comparison, such as \"{task.label} = 'yes'\""
        )
    values = made.cast(pl.Float64).fill_null(UNOBSERVED).fill_nan(UNOBSERVED).to_numpy()
    odd = values[~np.isin(values, (UNOBSERVED, 0.0, 1.0))]
    if len(odd):
        raise SpecError(f"{where}: expected 0 or 1, got {odd[0]:g}; write a comparison, such as '{task.label} > 0'")
    return values.astype(np.int8)


def _quantity(name: str, task: Task, rows: pl.DataFrame, labels: Mapping[str, np.ndarray]) -> np.ndarray:
    where = f"tasks.{name}.label"
    made = _made(where, task, rows)
    if not made.dtype.is_numeric():
        raise SpecError(f'{where}: expected a number, got {made.dtype}; a condition goes with predict = "event"')
    values = made.cast(pl.Float32).fill_null(float("nan")).to_numpy()
    if task.given is None:
        return values
    return np.where(np.isnan(values) & (labels[task.given] == 0), np.float32(0), values)


def _made(where: str, task: Task, rows: pl.DataFrame) -> pl.Series:
    """A label's expression worked out; one value per impression."""
    name = where.split(".")[1]
    for column in columns(name, task):
        if column not in rows.columns:
            raise SpecError(f"{where}: no column {column!r} in the logs{nearest(column, rows.columns)}")
    try:
        made = rows.select(pl.sql_expr(_conditions(task.label, rows.schema)).alias(name))[name]
    except pl.exceptions.PolarsError as error:
        raise SpecError(f"{where}: {task.label!r} cannot be worked out: {str(error).splitlines()[0]}") from None
    if len(made) != len(rows):
        raise SpecError(f"{where}: expected one value per impression, got {len(made)} for {len(rows)} impressions")
    return made


def _conditions(text: str, schema: Mapping[str, pl.DataType]) -> str:
    """The expression with every number column that stands as a condition compared to 0, as in many SQL dialects.

    >>> _conditions("clicked AND dwell >= 30", {"clicked": pl.Int8(), "dwell": pl.Int64()})
    '(clicked <> 0) AND dwell >= 30'
    """
    tokens: list[str] = _TOKEN.findall(text)
    places = [place for place, token in enumerate(tokens) if not token.isspace()]
    words = [tokens[place].upper() for place in places]
    for index, place in enumerate(places):
        column = tokens[place].strip('"')
        before = words[index - 1] if index else ""
        after = words[index + 1] if index + 1 < len(words) else ""
        between = before == "AND" and "BETWEEN" in words[max(0, index - 3) : index]
        stands = before in _BEFORE and after in _AFTER and bool({before, after} & _JOINING) and not between
        if stands and column in schema and schema[column].is_numeric():
            tokens[place] = f"({tokens[place]} <> 0)"
    return "".join(tokens)
