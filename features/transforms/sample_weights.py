"""Sample weights of tasks: an SQL expression over the columns of an impression, a number of 0 or more.

    sample_weight = "weight"                            a column
    sample_weight = "CASE WHEN paid THEN 3 ELSE 1 END"  any expression of the impression's own row

Only training and evaluation read them: rows without labels, and requests, need none. No feature may be the column of a
weight. Every candidate with an observed label has one: a null, NaN, infinite or negative weight fails the check. What
a missing one means is said in the expression: `COALESCE(weight, 1)`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import polars as pl

from features.logs.dtypes import cleaned
from features.logs.logs import Finding
from features.transforms import label_sql
from features.transforms.labels import examples, known, read_by
from rec.errors import SpecError
from rec.spec import Spec
from rec.spec.tasks import weight_column, weighted

Range = Mapping[str, float | None]  # least, largest, and the number of zeros

_KEY = "sample_weight"
_LARGEST = 1e12  # sums of a batch of them are finite in float32, and so are their products with a loss
_NOTHING = 1e-30  # smaller ones, such as of a decay over many half-lives, are 0: a batch of them has no mean in float32


def columns(spec: Spec, name: str) -> list[str]:
    """The columns that a task's sample weight reads; SpecError when it is not an SQL expression."""
    expression = spec.tasks[name].sample_weight
    return [] if expression is None else label_sql.columns(f"tasks.{name}", expression, key=_KEY)


def own_columns(spec: Spec) -> dict[str, str]:
    """The columns that are the whole expression of a weight, and the task whose weight they are."""
    alone: dict[str, str] = {}
    for name in weighted(spec.tasks):
        read, expression = columns(spec, name), str(spec.tasks[name].sample_weight)
        if len(read) == 1 and re.fullmatch(rf"\s*\"?{re.escape(read[0])}\"?\s*", expression):
            alone.setdefault(read[0], name)
    return alone


def read(spec: Spec, rows: pl.DataFrame, labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{column of the session table: weights of all impressions, float32 [N]}; 0 where the label is not observed.

    NaN where a weight is not a number of 0 or more. Raises SpecError for an expression that cannot be evaluated.
    """
    weights = {}
    for name in weighted(spec.tasks):
        observed = known(labels[name])
        if not observed.any() and any(column not in rows.columns for column in columns(spec, name)):
            weights[weight_column(name)] = np.zeros(len(rows), np.float32)
            continue
        expression = str(spec.tasks[name].sample_weight)
        values = label_sql.evaluated(spec, f"tasks.{name}", expression, rows, _is_number, key=_KEY)
        if not values.dtype.is_numeric() and values.dtype != pl.Boolean:
            raise SpecError(f"tasks.{name}.{_KEY}: expected a number, got {values.dtype}")
        weight = cleaned(values.cast(pl.Float64)).fill_null(float("nan")).to_numpy()
        fine = (weight >= 0) & (weight <= _LARGEST)
        counted = observed & ~(fine & (weight < _NOTHING))
        weights[weight_column(name)] = np.where(counted, np.where(fine, weight, np.nan), 0).astype(np.float32)
    return weights


def findings(
    spec: Spec, weights: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], rows: pl.DataFrame
) -> list[Finding]:
    """For each task with weights: impressions whose weight cannot be used."""
    out = []
    for name in weighted(spec.tasks):
        weight, observed = weights[weight_column(name)], known(labels[name])
        wrong = np.flatnonzero(np.isnan(weight))
        text = f"sample weights of {name} are numbers from 0 to {_LARGEST:g}"
        if len(wrong):
            text += f", got {_shown(spec, name, rows, int(wrong[0]))}; {_advice(spec, name)}"
        where, total = f"tasks.{name}.{_KEY}", int(observed.sum())
        out.append(Finding(where, not len(wrong), len(wrong), total, examples(spec, rows, wrong), text))
    return out


def ranges(spec: Spec, labels: Mapping[str, np.ndarray]) -> dict[str, Range]:
    """By task: the least and the largest weight where its label is observed, and how many of them are 0."""
    out = {}
    for name in weighted(spec.tasks):
        weight = labels[weight_column(name)][known(labels[name])]
        weight = weight[~np.isnan(weight)]  # a check fails of these
        least, largest = (float(weight.min()), float(weight.max())) if len(weight) else (None, None)
        out[name] = {"least": least, "largest": largest, "zero": int((weight == 0).sum())}
    return out


def merged(parts: Iterable[Mapping[str, Range]]) -> dict[str, Range]:
    """The ranges of several parts as one."""
    out: dict[str, Range] = {}
    for part in parts:
        for name, of_part in part.items():
            both = [of_part, out[name]] if name in out else [of_part]
            least = [of["least"] for of in both if of["least"] is not None]
            largest = [of["largest"] for of in both if of["largest"] is not None]
            zero = sum(int(of["zero"] or 0) for of in both)
            out[name] = {"least": min(least, default=None), "largest": max(largest, default=None), "zero": zero}
    return out


def in_words(of: Range, observed: int) -> str:
    """The range of weights, and how many of `observed` are 0.

    >>> in_words({"least": 0.0, "largest": 3.0, "zero": 5}, 20)
    '0 to 3, 25.00% of them 0'
    """
    if of["least"] is None or of["largest"] is None or not observed:
        return "n/a"
    return f"{of['least']:g} to {of['largest']:g}, {(of['zero'] or 0) / observed:.2%} of them 0"


def leaks(spec: Spec, of_code: Mapping[str, Collection[str]]) -> list[str]:
    """One line for every feature that is the column of a sample weight; `of_code` are the columns that code reads."""
    alone = own_columns(spec)
    return [
        f"{side}.{name}: reads {column!r}, the sample weight of task {alone[column]!r}, which a request does not have; "
        "leave the feature out"
        for side, features in spec.sides()
        for name, feature in features.items()
        for read_column in read_by(feature, name)
        for column in (read_column, *of_code.get(read_column, ()))
        if column in alone
    ]


def _shown(spec: Spec, name: str, rows: pl.DataFrame, place: int) -> str:
    expression = str(spec.tasks[name].sample_weight)
    value = label_sql.evaluated(spec, f"tasks.{name}", expression, rows, _is_number, key=_KEY)[place]
    return "null" if value is None else f"{value:g}"


def _advice(spec: Spec, name: str) -> str:
    return (
        f'what a missing one means is said in the expression, such as "COALESCE({spec.tasks[name].sample_weight}, 1)"'
    )


def _is_number(kind: pl.DataType) -> bool:
    return kind.is_numeric() or kind == pl.Boolean
