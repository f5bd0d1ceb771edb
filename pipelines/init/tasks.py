"""Tasks a log may support, with windows and parents. A guess, for `multigate init`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from pipelines.init import columns
from pipelines.init.tables import LogLayout, spec_name
from rec.errors import DataError

_QUICK = re.compile(r"(is_)?(click|view|open|read|play|watch)\w*", re.IGNORECASE)
_SLOW = re.compile(r"(\w+_)?(buy|bought|purchase|order|conver|install|book|subscri|sale|paid|event_)\w*", re.IGNORECASE)
LOOKED = 100  # values of a column that an error shows some of
ALMOST = 0.98  # of an outcome's rows, where its parent happened too


@dataclass(frozen=True)
class TaskDraft:
    """A task: the SQL of its label, its window as the spec says it, and its parent."""

    name: str
    label: str
    window: str
    given: str | None = None


def outcomes(layout: LogLayout) -> list[TaskDraft]:
    """The tasks, the most frequent first; a task without which another never happens is its parent."""
    if layout.source == "impressions":
        return _labels(layout)
    names = [*layout.events, *layout.kinds] if layout.source == "events" else [name for name, _ in listed(layout)]
    names = sorted(names, key=lambda name: (not _QUICK.fullmatch(name), names.index(name)))
    first = names[0] if names and _QUICK.fullmatch(names[0]) else None
    drafts = []
    for name in names:
        child = first is not None and name != first and not _QUICK.fullmatch(name)
        label = f"{quoted(str(first))} AND {quoted(name)}" if child else quoted(name)
        drafts.append(TaskDraft(name, label, default_window(name), first if child else None))
    return drafts


def listed(layout: LogLayout) -> list[tuple[str, str]]:
    """Events of requests: a name, and the list of the items it happened to."""
    rows, shown = layout.shown.table.rows, columns.shown_list(layout.shown.roles)
    lists = [c for c in layout.shown.roles.lists if c != shown and columns.among(rows[c], rows[str(shown)])]
    return [(spec_name(re.sub(r"_?(items?|ids?|list)$", "", column) or column), column) for column in lists]


def default_window(name: str) -> str:
    """How late an outcome of that name usually comes."""
    return "7d" if _SLOW.fullmatch(name) else "1h"


def quoted(column: str) -> str:
    """A column as SQL says it: words of SQL's own go in quotes."""
    try:
        plain = pl.sql_expr(column).meta.root_names() == [column]
    except pl.exceptions.PolarsError:
        plain = False
    return column if plain else f'"{column}"'


def never(layout: LogLayout) -> list[str]:
    """Labels that are never 1 in the rows looked at."""
    rows = layout.shown.table.rows
    return [label for label in layout.shown.roles.labels if not happened_in(rows, label).any()]


def happened_in(rows: pl.DataFrame, label: str) -> pl.Series:
    """Where an outcome of 0 and 1, or false and true, is 1 [rows]; DataError where the column holds anything else."""
    column = rows[label]
    known = column.drop_nulls()
    if (
        not (column.dtype.is_numeric() or column.dtype == pl.Boolean)
        or not known.cast(pl.Float64).is_in([0.0, 1.0]).all()
    ):
        examples = ", ".join(list(dict.fromkeys(repr(value) for value in known.head(LOOKED).to_list()))[:3])
        raise DataError(f"--label {label}: expected a column of 0 and 1, or of false and true, got {examples}")
    return (column.cast(pl.Int8) == 1).fill_null(value=False)


def _labels(layout: LogLayout) -> list[TaskDraft]:
    rows, unseen = layout.shown.table.rows, never(layout)
    labels = [label for label in layout.shown.roles.labels if label not in unseen]
    if not labels:
        return _high(layout)
    happened = {label: happened_in(rows, label) for label in labels}
    labels.sort(key=lambda label: -int(happened[label].sum()))
    names = {label: spec_name(re.sub(r"^(is|has|was|did)_", "", label) or label) for label in labels}
    taken = set(rows.columns) - set(labels)
    twice = {name for name in names.values() if name in taken or list(names.values()).count(name) > 1}
    names = {label: spec_name(label) if name in twice else name for label, name in names.items()}
    texts = {label: quoted(label) + ("" if rows[label].dtype == pl.Boolean else " = 1") for label in labels}
    drafts = []
    for place, label in enumerate(labels):
        parent = _parent(happened, labels[:place], label)
        text = texts[label] if parent is None else f"{texts[parent]} AND {texts[label]}"
        given = None if parent is None else names[parent]
        drafts.append(TaskDraft(names[label], text, default_window(names[label]), given))
    return drafts


def _high(layout: LogLayout) -> list[TaskDraft]:
    """Where nothing is 0 or 1: whether a rating, or the like, is above its middle."""
    rows = layout.shown.table.rows
    for column in layout.shown.roles.outcomes:
        if rows[column].dtype.is_numeric():
            middle = rows[column].median()
            return [TaskDraft(f"{spec_name(column)}_high", f"{quoted(column)} > {middle:g}", "1h")]
    return []


def _parent(happened: dict[str, pl.Series], before: Sequence[str], label: str) -> str | None:
    """The rarest other outcome that is seen more often, and is there (but for one in fifty) wherever this one is."""
    own = happened[label]
    parents = [
        other
        for other in before
        if int(happened[other].sum()) > int(own.sum()) and float(happened[other].filter(own).mean() or 0) >= ALMOST  # type: ignore[arg-type]
    ]
    return min(parents, key=lambda other: int(happened[other].sum()), default=None)
