"""Label leaks in built session tables: features that predict a task's label by themselves.

    value     the number itself, or the target encoding of an id or of a number's bin (from the other half of requests)
    change    increase since the key's last row: a counter that includes its own row increases where the label is 1
    holds     a list of the context contains the candidate: a history that includes its own request does if clicked
    length    of a list

A context feature is evaluated per request, against whether the event happened in it; a candidate feature per candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.checks.sample import Sample, lengths
from features.logs.logs import Finding
from features.transforms.joins import column_of
from rec.evaluation import regression
from rec.spec import AnyFeature, Id, Ids, Kept, Number, Spec
from rec.spec.features import PAST, keys_of

# What one honest feature reaches alone: on the data sets whose specs ship, an AUC of 0.98 at most (`multigate check
# specs/census_three.toml` names it), 0.8 where people choose. From 0.99 on there is hardly anything left to learn.
FAILS, WARNS = 0.99, 0.95
ENOUGH = 20  # rows of either outcome: below it a high AUC may be chance
BINS = 64
CONCORDANCE_ROWS = 20_000
_AT = "@at"

__all__ = ["TaskLabels", "code_of_key", "separating", "task_labels"]


Before = dict[tuple[str, tuple[str, ...]], np.ndarray | None]  # side and keys: the row before each


@dataclass(frozen=True)
class View:
    """A ranking of a side's rows by a feature: ranks [rows], or categories [rows] to be ranked by mean label.

    Rows of code -1 are not evaluated.
    """

    side: str
    feature: str
    how: str
    code: np.ndarray
    ordered: bool


@dataclass(frozen=True)
class TaskLabels:
    """A task's labels and the rows of a side where they are known; `space`: where that parent happened, or all."""

    task: str
    space: str
    known: np.ndarray
    label: np.ndarray


@dataclass(frozen=True)
class Suspect:
    """A feature, and how well it alone ranks a task's labels."""

    feature: str
    figure: float
    text: str


def separating(spec: Spec, sample: Sample) -> list[Finding]:
    """One finding per task: the features that alone rank its labels implausibly well.

    AUC (Fawcett 2006), or concordance (regression); FAILS or more is a leak, WARNS or more a warning. A column that
    equals the label up to renaming its values is reported as such.
    """
    suspects: dict[str, list[Suspect]] = {task: [] for task in spec.tasks}
    count, before = 0, Before()
    labels = {side: list(task_labels(spec, sample, side)) for side in ("context", "candidates")}
    for side, features in spec.sides():
        for name, feature in features.items():
            count += 1
            for view in _views(spec, sample, side, name, feature=feature, before=before):
                for of_task in labels[view.side]:
                    figure = _figure(view, of_task, event=spec.tasks[of_task.task].predict == "event")
                    if figure is not None and figure >= WARNS:
                        suspects[of_task.task].append(_suspect(spec, sample, view, of_task, figure))
    return [_finding(spec, task, of_task, count) for task, of_task in suspects.items()]


def _finding(spec: Spec, task: str, suspects: list[Suspect], total: int) -> Finding:
    best: dict[str, Suspect] = {}
    for suspect in sorted(suspects, key=lambda suspect: -suspect.figure):
        best.setdefault(suspect.feature, suspect)
    leaks = [suspect for suspect in best.values() if suspect.figure >= FAILS]
    shown = leaks or list(best.values())
    what = f"whether {task} happened" if spec.tasks[task].predict == "event" else f"how large {task} is"
    return Finding(
        f"leaks.{task}",
        not leaks,
        len(shown),
        total,
        tuple(suspect.text for suspect in shown[:3]),
        f"features that alone predict {what}; were they recorded after it?",
        "fail" if leaks else "warn",
    )


def _views(spec: Spec, sample: Sample, side: str, name: str, *, feature: AnyFeature, before: Before) -> Iterator[View]:
    if isinstance(feature, Kept) or name not in (sample.context if side == "context" else sample.candidates):
        return  # the model never sees it, or it is a matter of the clock alone
    if isinstance(feature, Number):
        values = sample.numbers(side, name)
        distinct, place = _placed(values)
        yield View(side, name, "", _ranks(distinct, place), ordered=True)
        yield View(side, name, "", _bins(distinct, place), ordered=False)
        yield from _changes(spec, sample, side, name, values=values, before=before)
    elif isinstance(feature, Ids):
        long = lengths(sample.stored(side, name)).astype(np.float64)
        yield View(side, name, "length", _placed(long)[1], ordered=True)
        yield from _changes(spec, sample, side, name, values=long, before=before)
        if side == "context":
            yield from _holds(spec, sample, name)
    elif isinstance(feature, Id):
        yield View(side, name, "", sample.codes(side, name), ordered=False)


def _changes(spec: Spec, sample: Sample, side: str, name: str, *, values: np.ndarray, before: Before) -> Iterator[View]:
    """The difference from the value in the previous row of the same key."""
    feature = dict(spec.sides())[side][name]
    if isinstance(feature, Number) and feature.make in PAST:
        keys = keys_of(feature)
    else:
        keys = ((spec.keys.user if side == "context" else spec.keys.item) or "",)
    if (side, keys) not in before:
        before[side, keys] = _row_before(spec, sample, side, keys)
    row = before[side, keys]
    if row is not None:
        change = np.where(row >= 0, values - values[row], np.nan)
        yield View(side, name, "change", _placed(change)[1], ordered=True)


def _row_before(spec: Spec, sample: Sample, side: str, keys: tuple[str, ...]) -> np.ndarray | None:
    """The previous row of the same key for every row of a side, -1 for none; None without keys or timestamps."""
    of_keys = {key: code_of_key(spec, sample, side, key) for key in keys}
    named = {key: code for key, code in of_keys.items() if code is not None}
    time = sample.moments(side)
    if len(named) < len(keys) or not len(time) or (time == time[0]).all():
        return None
    order = pl.DataFrame({**named, _AT: time}).select(pl.arg_sort_by([*named, _AT])).to_series().to_numpy()
    same = np.ones(len(order), bool)
    same[:1] = False
    for code in named.values():
        same[1:] &= np.diff(code[order]) == 0
    row = np.full(len(order), -1)
    row[order[same]] = order[np.flatnonzero(same) - 1]
    return row


def code_of_key(spec: Spec, sample: Sample, side: str, column: str) -> np.ndarray | None:
    """A key as int codes per row of a side, from the feature that holds it; candidates also have context keys."""
    for other, features in spec.sides():
        for name, feature in features.items():
            holds = isinstance(feature, Id | Kept) and column_of(feature, name, spec) == column
            if holds and side in (other, "candidates"):
                code = sample.codes(other, name)
                return sample.spread(other, code) if side == "candidates" else code
    return None


def _holds(spec: Spec, sample: Sample, name: str) -> Iterator[View]:
    """Whether a list contains the candidate's own id, for ids that share the list's embedding table."""
    table = spec.table_of("context", name)
    for other, feature in spec.candidates.items():
        column = isinstance(feature, Id) and feature.make == "column"
        if column and spec.table_of("candidates", other) == table:
            lists = pl.Series("lists", sample.context[name]).gather(sample.owner)
            frame = pl.DataFrame({"lists": lists, "id": pl.Series(sample.candidates[other])})
            holds = frame.select(pl.col("lists").list.contains(pl.col("id"), nulls_equal=False)).to_series()
            code = holds.fill_null(False).cast(pl.Int64).to_numpy()
            yield View("candidates", f"context.{name}", f"holds {other}", code, ordered=True)


def task_labels(spec: Spec, sample: Sample, side: str) -> Iterator[TaskLabels]:
    """The labels of every task over the rows of a side; for a child, also where its parent happened."""
    for name, task in spec.tasks.items():
        label = sample.label(name)
        spaces = {"": label}
        if task.given is not None:
            spaces[task.given] = np.where(sample.label(task.given) == 1, label, np.nan)
        for space, label_N in spaces.items():
            label_R = label_N if side == "candidates" else _largest(label_N, sample.owner, len(sample.time))
            known = np.flatnonzero(~np.isnan(label_R))
            if task.predict != "event":  # a concordance takes longer than an AUC
                known = known[:: max(1, len(known) // CONCORDANCE_ROWS)]
            yield TaskLabels(name, space, known, label_R[known])


def _figure(view: View, labels: TaskLabels, *, event: bool) -> float | None:
    """AUC or concordance of a view; for an ordered one, of the direction that is above 1/2."""
    code, label = view.code[labels.known], labels.label
    if code.min(initial=0) < 0:
        code, label = code[code >= 0], label[code >= 0]
    if not event:
        if len(code) < 2 * ENOUGH or not view.ordered:
            return None
        concordance = regression.concordance(code.astype(np.float64), label)
        return None if concordance is None else max(concordance, 1 - concordance)
    happened = label == 1
    positives = int(happened.sum())
    if min(positives, len(happened) - positives) < ENOUGH:
        return None
    if view.ordered:
        auc = _auc(code, happened)
        return max(auc, 1 - auc)
    return _auc_of_means(code, happened)


def _auc(code: np.ndarray, happened: np.ndarray) -> float:
    """AUC of small int ranks from 0, ties count half; by counting, so that a feature is sorted once for all tasks."""
    positive = np.bincount(code[happened], minlength=int(code.max()) + 1)
    return _auc_of_counts(positive, np.bincount(code, minlength=len(positive)) - positive)


def _auc_of_counts(positive: np.ndarray, negative: np.ndarray) -> float:
    """AUC from the number of positives and negatives at each rank."""
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))


def _auc_of_means(code: np.ndarray, happened: np.ndarray) -> float:
    """AUC of cross-fitted target encoding: a row's value is replaced by its mean label in the other half of the rows.

    Rows of one value and one half share their mean, so pairs of (value, half) are ranked instead of rows.
    """
    cell = code * 2 + np.arange(len(code)) % 2
    rows = np.bincount(cell, minlength=2 * int(code.max()) + 2)
    events = np.bincount(cell[happened], minlength=len(rows))
    of_other_half = (events + happened.mean()) / (rows + 1)
    _, rank = np.unique(of_other_half.reshape(-1, 2)[:, ::-1], return_inverse=True)
    counts = (np.bincount(rank.ravel(), weights=weights) for weights in (events, rows - events))
    return _auc_of_counts(*counts)


def _suspect(spec: Spec, sample: Sample, view: View, labels: TaskLabels, figure: float) -> Suspect:
    name = view.feature if "." in view.feature else f"{view.side}.{view.feature}"
    event = spec.tasks[labels.task].predict == "event"
    how = f" ({view.how})" if view.how else ""
    text = f"{name}{how}: {'AUC' if event else 'concordance'} {figure:.4f}"
    if labels.space:
        text += f" given {labels.space}"
    elif not view.how and _same_partition(view.code[labels.known], labels.label):
        text = f"{name}: is {labels.task} in other words"
        if event:
            value = sample.stored(view.side, view.feature)[int(labels.known[labels.label == 1][0])].as_py()
            text += f", {'missing' if value is None else repr(value)} where it happened"
    return Suspect(name, figure, text)


def _same_partition(code: np.ndarray, label: np.ndarray) -> bool:
    """Whether values and labels correspond one to one."""
    pairs = pl.DataFrame({"code": code, "label": label}).unique()
    return len(pairs) == pairs["code"].n_unique() == pairs["label"].n_unique()


def _placed(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sorted distinct numbers, and the index of every row's among them, -1 where missing."""
    known, place = ~np.isnan(values), np.full(len(values), -1)
    distinct, place[known] = np.unique(values[known], return_inverse=True)
    return distinct, place


def _ranks(distinct: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Ranks from 0 of the output of `_placed`; missing values are ranked in the middle."""
    known = place[place >= 0]
    if len(known) in (0, len(place)):
        return np.maximum(place, 0)
    median = np.median(distinct[known])
    middle = np.searchsorted(distinct, median)
    # every second rank is left free, for a median that is none of the numbers
    return np.where(place < 0, 2 * middle - (distinct[middle] != median), 2 * place)


def _bins(distinct: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Bins of about equal mass from 1, and 0 for missing, of the output of `_placed`."""
    ordered = np.repeat(distinct, np.bincount(place[place >= 0], minlength=len(distinct)))
    edges = np.unique(np.quantile(ordered, np.arange(1, BINS) / BINS)) if len(ordered) else np.zeros(0)
    return np.append(1 + np.searchsorted(edges, distinct, side="right"), 0)[place]


def _largest(label_N: np.ndarray, owner: np.ndarray, requests: int) -> np.ndarray:
    """The largest known label of every request [B], NaN where none is known."""
    largest = np.full(requests, -np.inf)
    known = ~np.isnan(label_N)
    np.maximum.at(largest, owner[known], label_N[known])
    return np.where(np.isinf(largest), np.nan, largest)
