"""The replay of a log: slice by slice prepared, swept, and written, so that no more than a few slices are held.

    read ahead -> prepare -> sweep, the keys of a spec on several threads -> write, while the next slice is prepared

A slice whose tables are written already is swept again, since the sweep needs it, but not written again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.hashing import CODE
from features.logs.logs import Finding
from features.pipeline import snapshot
from features.pipeline.assemble import assemble
from features.pipeline.executors import Workers
from features.pipeline.job import BuildJob
from features.pipeline.point_in_time import Columns, PointInTime
from features.pipeline.prepare import PreparedSlice, Preparer
from features.pipeline.side_columns import SideColumns
from features.pipeline.snapshot import LatestRows
from features.pipeline.store_state import StoreState
from features.pipeline.time_order import ahead
from features.sweep.key_rows import KeyRows, resized
from features.sweep.session_gaps import SessionGaps
from features.transforms import joins, split
from rec.atomic import read_json, write_json
from rec.data.splits import SPLITS
from rec.errors import SpecError, nearest
from rec.progress import Progress

_AHEAD = 1  # slices that are written while the next is prepared
HEAVY = 0.05  # share of all impressions from which a user is reported
ENOUGH = 10_000  # impressions: below it everybody has a large share


class Distinct:
    """How many users and items there are in each split."""

    def __init__(self) -> None:
        """None."""
        self._seen = {(split, side): np.zeros(1, bool) for split in SPLITS for side in ("context", "candidates")}

    def add(self, side: str, key: np.ndarray, placed: np.ndarray) -> None:
        """Those of some impressions [N], by the rows of their keys (-1: none), and the splits they are in."""
        for place, name in enumerate(SPLITS):
            rows = key[placed == place]
            seen = resized(self._seen[name, side], int(rows.max(initial=0)) + 1)
            seen[rows[rows >= 0]] = True
            self._seen[name, side] = seen

    def of(self, split: str, side: str) -> int:
        """How many."""
        return int(self._seen[split, side].sum())


@dataclass
class ReplayedLog:
    """What a replay leaves: the files it wrote, what it found, and the state at the end of the log."""

    past: PointInTime
    sides: dict[str, SideColumns]
    latest: LatestRows
    state: StoreState | None
    files: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    findings: list[list[Finding]] = field(default_factory=list[list[Finding]])
    counted: Distinct = field(default_factory=Distinct)

    def finals(self, time: int) -> dict[str, tuple[pl.DataFrame, Columns]]:
        """The rows of all users and items as of `time`, just after the log's end."""
        self.past.sweep.advance(time)
        rows = {side: self.latest.everybody(side, self.sides, time) for side in self.latest.newest}
        return {side: (table, snapshot.as_of(self.past, side, table, time)) for side, table in rows.items()}


class HeavyUsers:
    """How many impressions each user has, to tell of those with a large share of the log: robots perhaps."""

    def __init__(self, user: str | None) -> None:
        """None yet."""
        self._user, self._table, self._count = user, KeyRows(), np.zeros(1, np.int64)
        self._known: dict[int, object] = {}
        self._total = 0

    def add(self, rows: pl.DataFrame) -> None:
        """More impressions."""
        if self._user is None:
            return
        row = self._table.add(rows[CODE].to_numpy())
        here = np.bincount(row, minlength=len(self._table))
        self._count = resized(self._count, len(self._table))
        self._count[: len(here)] += here
        self._total += len(rows)
        # who has a share of the whole log has it in some slice
        many = np.flatnonzero(here[row] >= HEAVY * len(rows))
        first = many[np.unique(row[many], return_index=True)[1]]
        self._known |= dict(zip(row[first].tolist(), rows[self._user][first].to_list(), strict=True))

    def findings(self) -> list[Finding]:
        """Users with more than 5% of a log that is large enough to tell."""
        if self._user is None or self._total < ENOUGH:
            return []
        heavy = sorted(
            (row for row in self._known if self._count[row] >= HEAVY * self._total), key=lambda row: -self._count[row]
        )
        examples = tuple(f"{self._user}={self._known[row]}: {self._count[row]:,}" for row in heavy)
        text, rows = f"no user has more than {HEAVY:.0%} of the log", int(self._count[heavy].sum())
        return [Finding("heavy users", True, rows, self._total, examples[:3], text, "warn")]


def walked(
    job: BuildJob, replay: ReplayedLog, slices: Iterator[pl.DataFrame], preparer: Preparer
) -> Iterator[tuple[PreparedSlice, np.ndarray, int]]:
    """Every slice prepared, the splits of its requests [B], and how many rows it read; `made` takes what was found."""
    gaps, heavy = SessionGaps(job.spec), HeavyUsers(job.spec.keys.user)

    def prepare() -> Iterator[tuple[PreparedSlice, list[Finding], int]]:
        for number, (part, last) in enumerate(_with_last(slices)):
            prepared, findings = preparer.prepared(number, part, last=last)
            gaps.add(prepared.fresh)
            heavy.add(prepared.fresh)
            yield prepared, findings, len(part)

    for prepared, findings, rows in ahead(prepare(), "preparing"):
        replay.findings.append(findings)
        placed = split.assign(job.spec, prepared.grouped, prepared.rows)
        if job.absent and (placed == SPLITS.index("train")).any():
            raise SpecError(_without_labels(job))
        yield prepared, placed, rows
        of_impression = np.repeat(placed, np.diff(prepared.grouped.offsets))
        for side, key in replay.latest.add(prepared, replay.past).items():
            replay.counted.add(side, key, of_impression)
    replay.findings.append([*gaps.findings(), *heavy.findings()])


def _without_labels(job: BuildJob) -> str:
    """What is wrong with logs to train on whose labels are in no column."""
    use = next(use for use in joins.needs(job.spec) if use.column in job.absent)
    near = nearest(use.column, job.impressions.pieces[0].kinds)
    return (
        f"{use.place}: no column {use.column!r} in the logs{near}; rows without labels can be scored, and none of them "
        "may be in train ([split])"
    )


def replayed(
    job: BuildJob,
    slices: Iterator[pl.DataFrame],
    preparer: Preparer,
    sides: dict[str, SideColumns],
    *,
    workers: Workers,
    progress: Progress,
) -> ReplayedLog:
    """Sweep a log and write its session tables."""
    past = PointInTime(job, sides, workers.mapped)
    replay = ReplayedLog(past, sides, LatestRows(job), StoreState(job) if job.snapshot else None)
    writing: deque[tuple[Path, Future[dict[str, Any]], int]] = deque()
    progress.start("session tables", sum(piece.rows for piece in job.impressions.pieces) or None, "rows")
    for prepared, placed, rows in walked(job, replay, slices, preparer):
        columns = past.columns(prepared)
        if replay.state is not None:
            replay.state.add(prepared, past.merge, past)
        done = job.work / "steps" / "slices" / f"{prepared.number:05d}.json"
        if done.exists():
            replay.files += read_json(done)["files"]
            progress.advance(rows)
            continue
        while len(writing) >= _AHEAD:
            _finish(replay, writing, progress)
        writing.append((done, workers.submit(assemble, job, prepared.light(), sides, columns, placed), rows))
    while writing:
        _finish(replay, writing, progress)
    return replay


def _finish(replay: ReplayedLog, writing: deque[tuple[Path, Future[dict[str, Any]], int]], progress: Progress) -> None:
    """The oldest slice that is being written is on the disk, and what was written of it is kept."""
    path, future, rows = writing.popleft()
    result = future.result()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    replay.files += result["files"]
    progress.advance(rows)


def _with_last(slices: Iterator[pl.DataFrame]) -> Iterator[tuple[pl.DataFrame, bool]]:
    """Every slice, and whether it is the last."""
    before = next(slices, None)
    for rows in slices:
        assert before is not None, "there was one before"
        yield before, False
        before = rows
    if before is not None:
        yield before, True
