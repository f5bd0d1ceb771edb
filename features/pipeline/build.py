"""Raw logs to DATA: session tables per split, the preprocessor fitted on train, and the store's first rows.

    partition   each piece of the logs: rows shuffled by user hash
    prepare     each partition of users: requests, labels, lookups of shared keys
    aggregate   each bucket of keys: counts, rates, times of last events
    assemble    each partition: session tables
    finalize    train/ validation/ test/ fitted/ store/ manifest.json

Finished tasks are kept in DATA/.work, so the same command resumes after an interruption; DATA is complete or absent.
A task holds about `rows` impressions, whatever the size of the logs. The output does not depend on the execution
engine, nor on the number of tasks.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from features import checks
from features.logs import reader
from features.logs.logs import Finding, Logs, columns_in
from features.pipeline import prepare, shuffle
from features.pipeline.aggregate import answer
from features.pipeline.assemble import assemble, join, pieces
from features.pipeline.executors import StepRunner, engine
from features.pipeline.finalize import FORMAT, finish
from features.pipeline.job import ROWS, BuildJob, Partitioning
from features.pipeline.partition import gather
from features.store import store as online
from features.store.state import events_of
from features.transforms import attribution, joins, labels, user_columns
from features.transforms.base_rates import BaseRates
from features.transforms.split import EPOCH
from rec.atomic import flush, read_json, whole_folder, write_json
from rec.data.splits import SPLITS
from rec.errors import DataError, SpecError
from rec.memory import keep_large_blocks
from rec.output_folder import Origin, Overwrite, digest, kept, opened
from rec.progress import Progress
from rec.spec import Spec, sections

VERSION = 1  # of what the steps compute: counts up when the same spec and logs give other session tables
WORK = ".work"  # what unfinished steps left, inside DATA
ENTRIES = (*SPLITS, "fitted", "store", "state", "spec.toml", "card.json", "card.md", "manifest.json", WORK)


@dataclass(frozen=True)
class BuildOptions:
    """How a build is run: execution engine, cores, number of partitions (None: about `rows` impressions each).

    `latest` is the timestamp (microseconds) after which a row is in the future. `stamp` names the files that a build is
    made from. A build that is not `refusing` goes on where a check failed, to find out what else is wrong.
    """

    engine: str = "auto"
    workers: int | None = None
    partitions: int | None = None
    rows: int = ROWS
    snapshot: bool = False
    latest: int | None = None
    stamp: str = ""
    refusing: bool = True
    overwrite: Overwrite = "never"

    def refuse_failed(self, findings: Sequence[Finding]) -> None:
        """Raise CheckError if a check failed, unless the build ignores failed checks."""
        if self.refusing and not all(finding.passed for finding in findings):
            raise CheckError(findings)


class CheckError(DataError):  # it is what happened to the logs, not a mistake of ours
    """Logs that failed a check; `findings` are all findings until then."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        """The message lists every failed check, with its first example."""
        failed = [finding for finding in findings if not finding.passed]
        told = (f"  {one.name}: {one.text}{f'; such as {one.examples[0]}' if one.examples else ''}" for one in failed)
        super().__init__("the checks failed:\n" + "\n".join(told))
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
            return read_json(out / "manifest.json")
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
        job = _planned(spec, logs, work, how)
        with engine(how.engine, workers=how.workers) as runner:
            steps = StepRunner(runner, work / "steps", progress)
            job, findings = _gathered(job, steps, how, [checks.of_spec(spec), *logs.findings])
            found = steps.run("requests", prepare.prepare, job, job.division.sizes[0])
            prepare.shared_requests(job)
            findings += attribution.checked(
                checks.merged(_read_findings(one["findings"]) for one in found), job.described
            )
            how.refuse_failed(findings)
            job = replace(job, hours=_hours(found))
            steps.run("features", answer, job, len(job.foreign) * job.division.buckets)
            shutil.rmtree(
                work / "ask", ignore_errors=True
            )  # no longer needed, and then its pages need not reach the disk
            made = steps.run("session tables", assemble, job, job.division.sizes[0], after=partial(_on_disk, job))
            torn = [part for part in range(job.division.sizes[1]) if len(pieces(job, part)) > 1]
            made += [join(job, part) for part in torn]
        progress.start("finishing")
        with whole_folder(out, keep=kept(out, about)) as folder:
            manifest = finish(job, folder, [one for result in made for one in result["files"]], findings)
            how.refuse_failed(_read_findings(manifest["findings"]))
    for name in SPLITS:
        if not manifest["counts"][name]["requests"]:
            progress.say(f"{name}: no request; see [split] in the spec")
    return manifest


@contextmanager
def _work(logs: Logs, out: Path, how: BuildOptions, progress: Progress) -> Iterator[Path]:
    """The folder of intermediate files, inside DATA until it is complete; started anew if the partitioning differs."""
    work = out.absolute() / WORK
    division = [how.partitions, pl.__version__, pa.__version__, [str(piece.kinds) for piece in logs.impressions]]
    plan = work / "plan.json"
    if work.exists() and (not plan.exists() or read_json(plan) != digest(division)):
        progress.say(
            f"{out}: its unfinished build had another partitioning, or other polars or pyarrow; starting again"
        )
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    write_json(plan, digest(division))
    try:
        yield work
    except (DataError, SpecError):  # the next build is of something else
        shutil.rmtree(work)
        raise


def _planned(spec: Spec, logs: Logs, work: Path, how: BuildOptions) -> BuildJob:
    """Which columns are read from where; side tables are read at once and kept."""
    own = columns_in(logs.impressions)
    events: dict[str, pl.DataType] = {}
    for name, log in logs.happened.items():
        made = events_of({name: log}, {name: columns_in(log.pieces)})
        events |= made
        early = labels.too_early(spec, name, made)
        if early:
            raise SpecError(f"{early[0]}, which is not known when it is shown; the model would be given the answer")
    sides = joins.side_schemas(spec, logs)
    origins = joins.origins(spec, {"impressions": {**own, **events}, **sides}, user_columns.load(logs.columns))
    wanted = [column for column, origin in origins.items() if origin.table == "impressions" and column not in events]
    impressions = reader.plan(spec, logs.impressions, joins.with_outcome_times(wanted, own), "impressions")
    for name, side, key in (("users", logs.users, spec.keys.user), ("items", logs.items, spec.keys.item)):
        table = joins.side_table(spec, name, side, origins, key_kind=impressions.kinds.get(key or ""))
        if table is not None:
            table.save(work / f"{name}.arrow")
    happened = {name: _plan_events(spec, name, log, impressions.kinds) for name, log in logs.happened.items()}
    described = {name: replace(log, pieces=()) for name, log in logs.happened.items()}
    logged = (impressions, happened, described)
    asked = {"latest": how.latest, "snapshot": how.snapshot}
    return BuildJob(spec, work, *logged, origins=origins, code=logs.columns, **asked)


def _plan_events(spec: Spec, name: str, log: Any, kinds: Mapping[str, pl.DataType]) -> reader.ReadPlan:
    named = [spec.keys.user, spec.keys.item, spec.keys.request if log.by_request else None]
    by = [key for key in named if key is not None]
    return reader.plan(spec, log.pieces, [*by, *log.values], f"source.events.{name}", kinds={k: kinds[k] for k in by})


def _gathered(
    job: BuildJob, steps: StepRunner, how: BuildOptions, findings: list[Finding]
) -> tuple[BuildJob, list[Finding]]:
    """Shuffle all rows to disk; then set the partitioning and the logs' last timestamp, and report unusable rows."""
    found = steps.run("reading", gather, job, len(job.pieces))
    findings = [*findings, *job.impressions.findings, *(one for log in job.happened.values() for one in log.findings)]
    for name in (None, *job.happened):
        results = [result for result, (log, _) in zip(found, job.pieces, strict=True) if log == name]
        bad = reader.merge(
            [reader.BadRows(one["rows"], {r: tuple(v) for r, v in one["reasons"].items()}) for one in results]
        )
        findings += reader.findings(bad, job.spec, "impressions" if name is None else f"source.events.{name}")
    if not all(finding.passed for finding in findings):
        raise CheckError(findings)
    place, count = shuffle.counts(job.spilled(None))
    total = int(count.sum())
    if total == 0:
        raise DataError("impressions: expected at least one row, got none that can be used")
    parts = max(1, round(total / how.rows))
    division = Partitioning(
        partitions=tuple(shuffle.cuts(place, count, how.partitions or parts).tolist()),
        parts=tuple(shuffle.cuts(place, count, parts).tolist()),
        buckets=how.partitions or parts,
    )
    shown = [one for one, (log, _) in zip(found, job.pieces, strict=True) if log is None and one["last"] is not None]
    first, last = min((one["first"] for one in shown), default=0), max((one["last"] for one in shown), default=0)
    light = {"impressions": _read(job.impressions), "happened": {n: _read(log) for n, log in job.happened.items()}}
    return replace(
        job, division=division, rows=total, end=_end(job.spec, found), first=first, last=last, **light
    ), findings


def _read(log: reader.ReadPlan) -> reader.ReadPlan:
    """A log whose rows are on disk: from now on only the number of its pieces is used."""
    return replace(log, pieces=tuple(replace(piece, frame=pl.LazyFrame(), turn=None) for piece in log.pieces))


def _end(spec: Spec, found: Sequence[dict[str, Any]]) -> int | None:
    """Until when outcomes were collected, microseconds; None where there is no clock."""
    if spec.keys.time is None:
        return None
    if spec.logs.end is not None:
        return (spec.logs.end - EPOCH) // timedelta(microseconds=1)
    return max(one["end"] for one in found if one["end"] is not None)


def _on_disk(job: BuildJob, made: Mapping[str, Any]) -> None:
    """Flush finished files to disk while the cores compute the next ones."""
    for one in made["files"]:
        flush(job.work / "data" / one["path"])


def _read_findings(plain: Sequence[dict[str, Any]]) -> list[Finding]:
    return [Finding(**{**one, "examples": tuple(one["examples"])}) for one in plain]


def _hours(found: Sequence[dict[str, Any]]) -> dict[str, BaseRates]:
    names = found[0]["hours"]
    return {name: BaseRates.merged(BaseRates.from_plain(one["hours"][name]) for one in found) for name in names}
