"""Tiny logs and specs that the tests of features share."""

from __future__ import annotations

import numpy as np
import polars as pl

from features.hashing import CODE, LINE
from features.logs.logs import Logs
from features.logs.timestamps import TIME, moments
from features.pipeline import prepare
from features.sweep import requests
from features.transforms import sessions
from rec.spec import Spec, parse

SECOND = 1_000_000

SPEC = """
name = "tiny"
keys = {{ user = "user", item = "item", time = "time" }}
requests = {{ gap = "{gap}s" }}
split = {{ validation = 2026-03-02T00:00:00Z, test = 2026-03-03T00:00:00Z }}
[context]
user = {{ kind = "id" }}
{context}
[candidates]
item = {{ kind = "id" }}
{candidates}
[tasks]
click = {{ label = "clicked = 1", window = "{window}s" }}
{tasks}
"""


def spec(*, context: str = "", candidates: str = "", tasks: str = "", gap: int = 5, window: int = 0) -> Spec:
    """A spec of users who are shown items, with more lines where a test wants them."""
    return parse(SPEC.format(context=context, candidates=candidates, tasks=tasks, gap=gap, window=window))


def frame(rows: list[tuple]) -> pl.DataFrame:
    """Rows of (user, item, second, clicked)."""
    kinds = {"user": pl.Int64, "item": pl.Int64, "time": pl.Int64, "clicked": pl.Int64}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def logs(rows: list[tuple]) -> Logs:
    """The same as Logs without side tables."""
    return Logs.whole(frame(rows).lazy())


def read(spec: Spec, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows as a slice holds them: in order of time, with their line, and the hash of whoever they belong to."""
    if spec.keys.time is not None:
        unit = spec.keys.time_unit
        rows = rows.with_columns(moments(rows[spec.keys.time], unit=unit, where="keys.time").alias(TIME))
    lines = np.arange(len(rows))
    code = sessions.coded(spec, rows, lines)
    rows = rows.with_columns(pl.Series(LINE, lines))
    rows = rows if code is None else rows.with_columns(pl.Series(CODE, code))
    return rows.sort(TIME, maintain_order=True) if TIME in rows.columns else rows


def grouped(spec: Spec, rows: pl.DataFrame) -> sessions.Sessions:
    """The requests of some rows."""
    rows = read(spec, rows)
    time = prepare.moments_of(rows)
    grouping = requests.group(spec, rows, time)
    names = requests.ids(spec, rows, grouping, requests.Numbering())
    return sessions.Sessions(rows[grouping.order], grouping.offsets, time[grouping.first()], names)
