"""Raw logs to DATA: session tables per split, the preprocessor fitted on train, and the store's first rows.

    time_order   each log in order of time, a slice at a time
    outcomes     events with logs of their own, attributed to impressions
    prepare      each slice: requests, side tables, labels
    past         the sweep: fed and asked, slice by slice
    assemble     each slice: session tables
    finalize     train/ validation/ test/ fitted/ store/ manifest.json

Slices that were written are kept in DATA/.work, so the same command resumes after an interruption; DATA is complete or
absent. A slice holds about `rows` impressions, whatever the size of the logs. The output does not depend on the
execution engine.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import polars as pl
import pyarrow as pa

from features import checks
from features.logs import reader
from features.logs.logs import Finding, Logs
from features.pipeline import repeats
from features.pipeline.executors import Workers, engine
from features.pipeline.finalize import FORMAT, finish
from features.pipeline.job import ROWS, BuildJob
from features.pipeline.outcomes import Outcomes, attributed
from features.pipeline.plan import planned
from features.pipeline.prepare import LongPauseError, Preparer, first_pause, longest_pause
from features.pipeline.replay import ReplayedLog, replayed
from features.pipeline.side_columns import SideColumns
from features.pipeline.spread import spread
from features.pipeline.time_order import Seen, TimeOrderedLog
from features.store import store as online
from features.sweep.key_rows import load_compiled
from features.transforms import attribution, joins, outcome_times
from features.transforms.split import EPOCH
from rec.atomic import read_json, whole_folder, write_json
from rec.data.splits import SPLITS
from rec.errors import DataError, SpecError
from rec.memory import keep_large_blocks
from rec.output_folder import Origin, Overwrite, digest, opened, outliving
from rec.progress import Progress
from rec.spec import Spec, sections

VERSION = 3  # of what the steps compute: counts up when the same spec and logs give other session tables
WORK = ".work"  # what unfinished steps left, inside DATA
ENTRIES = (*SPLITS, "fitted", "store", "state", "spec.toml", "card.json", "card.md", "manifest.json", WORK)


@dataclass(frozen=True)
class BuildOptions:
    """How a build is run: execution engine, cores, impressions in a slice.

    `latest` is the timestamp (microseconds) after which a row is in the future. `stamp` names the files that a build is
    made from. A build that is not `refusing` goes on where a check failed, to find out what else is wrong. `confirm` is
    called after each slice, and with `wait=True` before DATA is whole: it raises if the build has become pointless.
    """

    engine: str = "auto"
    workers: int | None = None
    rows: int = ROWS
    snapshot: bool = False
    latest: int | None = None
    stamp: str = ""
    refusing: bool = True
    overwrite: Overwrite = "never"
    confirm: Callable[..., None] | None = None

    def confirmed(self, slices: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """The same slices, as long as the build is not pointless."""
        for rows in slices:
            if self.confirm is not None:
                self.confirm(wait=False)
            yield rows

    def refuse_failed(self, findings: Sequence[Finding]) -> None:
        """Raise CheckError if a check failed, unless the build ignores failed checks."""
        if self.refusing and not all(finding.passed for finding in findings):
            raise CheckError(findings)

    def refuse_failed_reading(self, findings: Sequence[Finding]) -> None:
        """Raise CheckError if too much of the logs cannot be used, whether or not the build ignores failed checks."""
        if not all(finding.passed for finding in findings):
            raise CheckError(findings)


class CheckError(DataError):  # it is what happened to the logs, not a mistake of ours
    """Logs that failed a check; `findings` are all findings until then."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        """The message lists every failed check, with its first example."""
        failed = [failure for failure in findings if not failure.passed]
        lines = (
            f"  {check.name}: {check.text}{f'; such as {check.examples[0]}' if check.examples else ''}"
            for check in failed
        )
        super().__init__("the checks failed:\n" + "\n".join(lines))
        self.findings = list(findings)


def build(spec: Spec, logs: Logs, out: Path, *, progress: Progress, how: BuildOptions | None = None) -> dict[str, Any]:
    """Write DATA into `out` and return its manifest, which includes the `findings` of all checks.

    Interrupted, the same call does only what is missing. Raises FileExistsError when `out` holds anything else
    (rec/output_folder.py), SpecError when the spec and the logs do not fit (an unknown column, a label among the
    features), DataError when the logs are not what the spec says (an event without its parent, too many unusable rows,
    no train).
    """
    how = how or BuildOptions()
    if how.snapshot:
        online.refuse(spec)
    leaks = checks.of_spec(spec)
    if not leaks.passed:
        raise SpecError(f"{leaks.examples[0]}; the model would be given the answer")
    about = origin(spec, logs, how)
    with opened(out, about, overwrite=how.overwrite, progress=progress) as state:
        if state == "finished":
            return read_json(out / "manifest.json", dict)
        Thread(target=load_compiled, name="compiler").start()  # while files are opened and read
        keep_large_blocks()  # tasks make and drop arrays of the same sizes again and again
        return _built(spec, logs, out, about, progress=progress, how=how)


def origin(spec: Spec, logs: Logs, how: BuildOptions) -> Origin:
    """The inputs that session tables depend on, and the entries of their folder."""
    parts = {place: digest(part) for place, part in sections.of_tables(spec).items()}
    if any(task.negatives < 1 for task in spec.tasks.values()):
        parts["seed"] = digest(spec.seed)
    files = digest(how.stamp, [(piece.name, piece.size) for piece in logs.impressions])
    options = {"rows in a part": how.rows, "--snapshot": str(how.snapshot)}
    versions = {"features version": VERSION, "session-table format": FORMAT}
    return Origin("features", spec.name, {**parts, "files of the logs": files, **options, **versions}, ENTRIES)


def _built(
    spec: Spec, logs: Logs, out: Path, about: Origin, *, progress: Progress, how: BuildOptions
) -> dict[str, Any]:
    with _work(logs, out, how, progress) as work:
        job = planned(spec, logs, work, latest=how.latest, snapshot=how.snapshot, rows=how.rows)
        replay, seen, findings = _swept(
            job, how, progress, [checks.of_spec(spec), *logs.findings, *outcome_times.findings(spec, job.times)]
        )
        progress.start("finishing")
        if how.confirm is not None:
            how.confirm(wait=True)
        with whole_folder(out, keep=outliving(out, about)) as folder:
            manifest = finish(job, folder, replay, seen, findings)
            how.refuse_failed(_read_findings(manifest["findings"]))
    for name in SPLITS:
        if not manifest["counts"][name]["requests"]:
            progress.say(f"{name}: no request; see [split] in the spec")
    return manifest


def _swept(
    job: BuildJob, how: BuildOptions, progress: Progress, findings: list[Finding]
) -> tuple[ReplayedLog, Seen, list[Finding]]:
    """The log replayed, what was seen of it, and all findings."""
    progress.start("reading")
    log, events = (
        _ordered(job, job.impressions, job.times.columns()),
        {n: _ordered(job, plan) for n, plan in job.happened.items()},
    )
    for file_log in (log, *events.values()):
        file_log.load()
    how.refuse_failed_reading([*findings, *_unusable(job, log, events)])
    attributed_outcomes = attributed(job, log, events)
    replay = _settled_replay(job, log, attributed_outcomes, how, progress)
    findings = [*findings, *_unusable(job, log, events), *joins.repeats(job.spec, job.sides)]
    how.refuse_failed_reading(findings)
    if not log.seen.rows:
        raise DataError("impressions: expected at least one row, got none that can be used")
    of_replay = checks.merged([*replay.findings, *(file_log.findings() for file_log in attributed_outcomes.values())])
    of_replay = repeats.with_warnings(job.spec, of_replay)
    findings += attribution.checked(of_replay, job.described)
    how.refuse_failed(findings)
    return replay, log.seen, findings


def _settled_replay(
    job: BuildJob, log: TimeOrderedLog, outcomes: Mapping[str, Outcomes], how: BuildOptions, progress: Progress
) -> ReplayedLog:
    """The log replayed, again if what was assumed before it was read turns out otherwise.

    Assumed are the longest pause inside a request, and the last timestamp, until when outcomes were collected.
    """
    spec, assumptions = job.spec, job.work / "assumed.json"
    assumed_end = log.assumed_end  # once: it may read a file
    end = log.seen.end if assumed_end is None else assumed_end
    pause, end = read_json(assumptions) if assumptions.exists() else (first_pause(spec), end)

    def joined(shown: pl.DataFrame) -> pl.DataFrame:
        for outcome in outcomes.values():
            shown = outcome.joined(shown)
        return shown

    while True:
        write_json(assumptions, [pause, end])
        ends = [moment for moment in (end, *(outcome.end for outcome in outcomes.values())) if moment is not None]
        try:
            sides = {name: SideColumns(table) for name, table in job.sides.items()}
            preparer = Preparer(job, sides, pause=pause, end=_end(spec, max(ends, default=0)), joined=joined)
            replay = _replayed(job, log, preparer, sides=sides, how=how, progress=progress)
            if spec.logs.end is not None or log.seen.end in (None, end):
                return replay
            end = log.seen.end
        except LongPauseError:
            pause = longest_pause(spec, log.slices())
        for name in ("steps", "data", "statistics"):
            shutil.rmtree(job.work / name, ignore_errors=True)


def _replayed(
    job: BuildJob,
    log: TimeOrderedLog,
    preparer: Preparer,
    *,
    sides: dict[str, SideColumns],
    how: BuildOptions,
    progress: Progress,
) -> ReplayedLog:
    """By threads of this process, or by the tasks of another engine."""
    if how.engine not in ("auto", "serial", "threads"):
        tasks = partial(engine, how.engine, workers=how.workers)
        return spread(job, how.confirmed(log.slices()), preparer, sides, engine=tasks, progress=progress)
    workers = Workers(1 if how.engine == "serial" else how.workers or os.cpu_count() or 1)
    try:
        return replayed(job, how.confirmed(log.slices()), preparer, sides, workers=workers, progress=progress)
    finally:
        workers.close()


def _ordered(job: BuildJob, plan: reader.ReadPlan, outcomes: Sequence[str] = ()) -> TimeOrderedLog:
    folder = job.work / "runs" / plan.where
    return TimeOrderedLog(plan, job.spec, folder, rows=job.rows, latest=job.latest, outcomes=outcomes)


def _unusable(job: BuildJob, log: TimeOrderedLog, events: Mapping[str, TimeOrderedLog]) -> list[Finding]:
    """What was found of the logs while they were read."""
    plans = [job.impressions, *job.happened.values()]
    findings = [finding for plan in plans for finding in plan.findings]
    for plan, file_log in zip(plans, (log, *events.values()), strict=True):
        if file_log.seen.bad:
            findings += reader.findings(reader.merge(file_log.seen.bad), job.spec, plan.where)
    return findings


def _end(spec: Spec, end: int | None) -> int | None:
    """Until when outcomes were collected, microseconds; None where there is no clock."""
    if spec.keys.time is None:
        return None
    return end if spec.logs.end is None else (spec.logs.end - EPOCH) // timedelta(microseconds=1)


@contextmanager
def _work(logs: Logs, out: Path, how: BuildOptions, progress: Progress) -> Iterator[Path]:
    """The folder of intermediate files, inside DATA until it is complete; started anew if the libraries differ."""
    work = out.absolute() / WORK
    made_by = digest([how.rows, pl.__version__, pa.__version__, [str(piece.kinds) for piece in logs.impressions]])
    plan = work / "plan.json"
    if work.exists() and (not plan.exists() or read_json(plan) != made_by):
        progress.say(f"{out}: its unfinished build was by other polars or pyarrow; starting again")
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    write_json(plan, made_by)
    try:
        yield work
    except (DataError, SpecError):  # the next build is of something else
        shutil.rmtree(work)
        raise


def _read_findings(plain: Sequence[dict[str, Any]]) -> list[Finding]:
    return [Finding(**{**entry, "examples": tuple(entry["examples"])}) for entry in plain]
