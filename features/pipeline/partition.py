"""Step 1, partition: a piece of a log is read in batches, and its rows are shuffled to disk by user hash."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from features import hashing
from features.hashing import CODE, LINE, LINES
from features.logs import reader
from features.logs.timestamps import TIME
from features.pipeline import shuffle
from features.pipeline.job import BuildJob
from features.transforms import labels
from features.transforms.sessions import coded
from rec.spec import Spec

_PIECE = 40  # bits for the line within a piece


def gather(job: BuildJob, index: int) -> dict[str, Any]:
    """Shuffle a piece's rows to disk; their number, unusable rows, and first and last timestamp."""
    name, place = job.pieces[index]
    log = job.impressions if name is None else job.happened[name]
    bad, first, last, end, line = [], None, None, None, place << _PIECE
    outcomes = _outcome_times(job.spec) if name is None else ()
    with shuffle.writing(job.spilled(name)[place]) as writer:
        for rows, found in reader.batches(log, place, job.spec, latest=job.latest):
            bad.append(found)
            lines = np.arange(line, line + len(rows))
            line += len(rows)
            begin, finish = _span(rows, TIME)
            first, last = _least(first, begin), _most(last, finish)
            end = _most(end, *(_span(rows, column)[1] for column in outcomes), finish)
            code = coded(job.spec, rows, lines)
            if code is None:
                writer.write(rows.with_columns(pl.Series(LINE, lines)), lines // LINES)
            else:
                writer.write(rows.with_columns(pl.Series(CODE, code)), hashing.grain(code))
    merged = reader.merge(bad)
    return {"rows": merged.rows, "reasons": merged.reasons, "first": first, "last": last, "end": end}


def _outcome_times(spec: Spec) -> list[str]:
    """Columns that may hold the timestamp of a label's event: `click_time` for `click`."""
    said = [(f"tasks.{name}", task.label) for name, task in spec.tasks.items()]
    said += [(f"events.{name}", event.label) for name, event in spec.events.items()]
    return [f"{column}_time" for column in dict.fromkeys(c for one in said for c in labels.columns(*one))]


def _span(rows: pl.DataFrame, column: str) -> tuple[int | None, int | None]:
    """The first and the last timestamp of a column, in microseconds; None if it has none."""
    if column not in rows.columns or not isinstance(rows[column].dtype, pl.Datetime) or rows.is_empty():
        return None, None
    moment = rows[column].cast(pl.Datetime("us")).to_physical()
    return moment.min(), moment.max()  # type: ignore[return-value]  # of int64


def _least(*moments: int | None) -> int | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _most(*moments: int | None) -> int | None:
    return max((moment for moment in moments if moment is not None), default=None)
