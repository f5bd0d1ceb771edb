"""`multigate run`: every step in order into one folder, skipping steps that are up to date.

    OUT/
        data/  model/  bundle/  scores/      what features, train, export and score write
        report.json  report.html             how good the model is

Each folder has its own record of what it was made of (rec/output_folder.py), OUT has one of the whole: the parts of the
spec, the files of the logs, and the version of each step. What was interrupted goes on where it stopped. A part that
changed is refused, unless `force` says to make again what depends on it, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from features.logs import copies
from pipelines import validate
from pipelines.cli import commands, fingerprint
from rec.atomic import read_json
from rec.data import splits
from rec.errors import DataError
from rec.output_folder import Origin, Overwrite, digest, opened, whole
from rec.progress import Progress
from rec.spec import Spec, sections

STEPS = ("data", "model", "bundle", "scores")
REPORT = ("report.json", "report.html")


def run(path: Path, overrides: Sequence[str], out: Path, progress: Progress, *, force: bool = False) -> dict[str, Any]:
    """All steps of a spec into `out`; the report on the test split, or on validation where test has no request.

    With `force`, results of another spec, other logs or another version of a step are made again; which, is said
    before. Raises FileExistsError without it.
    """
    spec = validate.load(path, overrides, trained_here=True)
    overwrite: Overwrite = "stale" if force else "never"
    with copies.shown_by(progress):
        origin = _origin(spec, path.parent)
    with opened(out, origin, overwrite=overwrite, progress=progress) as state:
        if state != "finished" or not _whole(out):
            _steps(path, overrides, out, overwrite, progress)
    return read_json(out / "report.json", dict)


def _whole(out: Path) -> bool:
    """Whether every step left what the next verb needs, and nobody took it away."""
    last = (*REPORT, "scores/_manifest.json", "model/checkpoint/best/manifest.json")
    return all(whole(out / name) for name in STEPS) and all((out / name).exists() for name in last)


def _steps(path: Path, overrides: Sequence[str], out: Path, overwrite: Overwrite, progress: Progress) -> None:
    data, model, bundle, scores = (out / name for name in STEPS)
    commands.features(path, overrides, data, progress, how={"overwrite": overwrite})
    split = _evaluated(data, progress)
    commands.train(path, overrides, data, model, progress, overwrite=overwrite)
    commands.export(model, data, bundle, progress, overwrite=overwrite)
    commands.score(bundle, data, scores, progress, how={"overwrite": overwrite})
    report = commands.report_of(model, data, split, progress)
    commands.write_report(out, report, model=model, data=data, bundle=bundle)


def _evaluated(data: Path, progress: Progress) -> str:
    """The split that is evaluated in the end; DataError, before anything is trained, where there is none."""
    if splits.count(data, "test"):
        return "test"
    if not splits.count(data, "validation"):
        raise DataError(f"{data}: validation and test have no request, so there is nothing to evaluate; see [split]")
    progress.say("WARN  test: no request, so the report is on validation, which chose the weights; see [split]")
    return "validation"


def _origin(spec: Spec, base: Path) -> Origin:
    """What a whole run is made of; of its folder only the report is its own, each step answers for its folder."""
    from features.pipeline import build, finalize
    from rec.evaluation import evaluate
    from rec.training import trainer
    from serving import batch, export

    versions = {
        "session-table format": finalize.FORMAT,
        "features version": build.VERSION,
        "training version": trainer.VERSION,
        "export version": export.VERSION,
        "scores version": batch.FORMAT,
        "evaluation version": evaluate.VERSION,
    }
    parts = {place: digest(part) for place, part in sections.of_everything(spec).items()}
    made_of = {**parts, "files of the logs": fingerprint.of_logs(spec, base), **versions}
    return Origin("run", spec.name, made_of, REPORT, tuple(fingerprint.inputs(spec, base)), stable=())
