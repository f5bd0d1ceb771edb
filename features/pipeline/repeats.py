"""Duplicates of every log: rows equal in every column that is read, timestamp included, are one, the first.

Impressions of nobody, in no request that they name, may be of two people: they stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from features.hashing import CODE, LINE
from features.logs.logs import Finding
from features.logs.timestamps import TIME
from features.transforms import labels
from rec.spec import Spec

_BEGINS = "duplicates of another"
_TEXT = "in every column that is read, timestamp included: the first is kept"


def of_impressions(spec: Spec, rows: pl.DataFrame) -> tuple[pl.DataFrame, Finding | None]:
    """The impressions, in order of time, that repeat no other; how many do. None where the rule does not apply."""
    if TIME not in rows.columns or spec.logs.duplicates == "keep":
        return rows, None
    few = [key for key in (CODE, TIME, spec.keys.item) if key is not None]  # what repeats, repeats these
    repeated = _repeated(rows, few) if CODE in rows.columns else np.zeros(0, np.int64)
    return _left(rows, repeated), _finding(spec, "duplicates", rows, repeated, "impression")


def of_events(spec: Spec, name: str, rows: pl.DataFrame) -> tuple[np.ndarray, Finding | None]:
    """Which events [n] bool, in order of time, repeat no other of their log; how many do."""
    first = np.ones(len(rows), bool)
    if spec.logs.duplicates == "keep":
        return first, None
    repeated = _repeated(rows, [str(spec.keys.user), str(spec.keys.item), TIME])
    first[repeated] = False
    return first, _finding(spec, f"source.events.{name}", rows, repeated, "event")


def with_warnings(spec: Spec, findings: Sequence[Finding]) -> list[Finding]:
    """The findings, of which duplicates are a warning where they are more than `logs.bad_rows` of a log's rows."""

    def loud(finding: Finding) -> Finding:
        several = finding.count > spec.logs.bad_rows * finding.total and finding.level == "note"
        if not (several and finding.text.startswith(_BEGINS)):
            return finding
        return replace(finding, level="warn", text=f'{finding.text}; duplicates = "keep" keeps them')

    return [loud(finding) for finding in findings]


def _repeated(rows: pl.DataFrame, few: Sequence[str]) -> np.ndarray:
    """The places of rows, in order of time, that are equal to one before them; `few` are columns told apart quickly."""
    time = rows[TIME].to_physical().to_numpy()
    tied = np.append(False, time[1:] == time[:-1])
    tied[:-1] |= tied[1:]
    places = np.flatnonzero(tied[: len(rows)])
    if not len(places):
        return places
    places = places[rows.select(few)[places].hash_rows().is_duplicated().arg_true().to_numpy()]
    if not len(places):
        return places
    columns = [column for column in rows.columns if column != LINE]
    new = rows.select(columns)[places].select(pl.struct(columns).is_first_distinct()).to_series()
    return places[~new.to_numpy()]


def _left(rows: pl.DataFrame, repeated: np.ndarray) -> pl.DataFrame:
    return rows[np.delete(np.arange(len(rows)), repeated)] if len(repeated) else rows


def _finding(spec: Spec, where: str, rows: pl.DataFrame, repeated: np.ndarray, noun: str) -> Finding:
    shown = labels.examples(spec, rows, repeated) if len(repeated) else ()
    return Finding(where, True, len(repeated), len(rows), shown, f"{_BEGINS} {noun} {_TEXT}", "note")
