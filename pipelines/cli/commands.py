"""One function per verb: open what the arguments name, do the work, hand back a plain dict. Printing is show.py's."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rec.atomic import write_json
from rec.errors import BundleError
from rec.progress import Progress


def check(path: Path, overrides: Sequence[str], progress: Progress) -> list[dict[str, Any]]:
    """What the checks found in a spec's logs, in order; `passed` is False where something must change.

    The whole of the features is made, in a folder that is removed again: some leaks show in them alone.
    """
    from features.pipeline import build
    from pipelines import validate

    validate.load(path, overrides, trained_here=True)
    with TemporaryDirectory(prefix="multigate-") as folder:
        try:
            found = features(path, overrides, Path(folder) / "data", progress, how={"refusing": False})["findings"]
        except build.Refused as refused:
            found = [asdict(finding) for finding in refused.findings]
    return found


def features(
    path: Path, overrides: Sequence[str], out: Path, progress: Progress, *, how: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Session tables in `out`; the data card. Relative paths in the spec start at the spec's folder.

    `how` may say engine, workers, partitions, rows, snapshot and refusing (features.pipeline.build.How). Raises
    DataError with the failed checks when the logs leak or contradict the spec.
    """
    from features import sources
    from features.pipeline import build
    from pipelines import validate
    from pipelines.cli import fingerprint

    spec = validate.load(path, overrides)
    logs = sources.read(spec, path.parent)
    told = build.How(**(how or {}), latest=_tomorrow(), stamp=fingerprint.stamp(spec, path.parent))
    return build.build(spec, logs, out, progress=progress, how=told)


def _tomorrow() -> int:
    """The moment, in microseconds, after which a row is in the future: clocks may differ by a day."""
    return int((time.time() + 86_400) * 1_000_000)


def train(
    path: Path, overrides: Sequence[str], data: Path, out: Path, *, resume: bool, progress: Progress
) -> dict[str, Any]:
    """A trained run in `out`."""
    from pipelines import validate
    from rec.training import trainer

    return trainer.train(validate.load(path, overrides, trained_here=True), data, out, resume=resume, progress=progress)


def evaluate(
    model: Path, data: Path, split: str, out: Path | None, progress: Progress, *, bundle: Path | None = None
) -> dict[str, Any]:
    """The report of a run or a bundle; report.json and report.html in `out`, or in the run itself.

    `bundle` is what the run was exported to, where it was: the page then shows its parity error.
    """
    if is_bundle(model):
        from serving import evaluate_bundle as bundles

        report, folder = bundles.evaluate_bundle(model, data, split=split, progress=progress), out
    elif (model / "checkpoint").is_dir():
        from rec.training import run as runs

        report, folder = runs.evaluate_run(model, data, split=split, progress=progress), out or model
    else:
        raise BundleError(f"{model}: neither a run (checkpoint/) nor a bundle (model.onnx)")
    if folder is not None:
        write_report(folder, report, model=model, data=data, bundle=bundle)
    return report


def write_report(folder: Path, report: dict[str, Any], *, model: Path, data: Path, bundle: Path | None) -> None:
    """report.json and report.html of an evaluated model."""
    from pipelines.report import page as pages

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", report)
    pages.write(folder / "report.html", report, model=model, data=data, bundle=bundle)


def is_bundle(folder: Path) -> bool:
    """Whether a folder is an exported bundle rather than a run."""
    return (folder / "model.onnx").is_file()


def export(run: Path, data: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """A bundle in `out`; its manifest."""
    from serving import export as exporter

    return exporter.export(run, out, data=data, progress=progress)


def score(
    bundle: Path, data: Path, out: Path, *, split: str, threads: int, resume: bool, progress: Progress
) -> dict[str, Any]:
    """Parquet scores of a split in `out`."""
    from serving import batch

    return batch.score(bundle, data, out, split=split, resume=resume, threads=threads, progress=progress)


def rank(bundle: Path, body: bytes, threads: int, *, clock: Callable[[], int] = time.time_ns) -> dict[str, Any]:
    """The answer the endpoint would give to a JSON body; `clock` gives nanoseconds since 1970.

    Raises DataError when the request does not fit the bundle's spec.
    """
    from serving import bundle as bundles
    from serving.online.rank import RankService
    from serving.scorer import Scorer

    opened = bundles.load(bundle)
    service = RankService(opened, Scorer(opened, threads=threads), new_id=lambda: uuid.uuid4().hex)
    return json.loads(service.rank(body, clock() // 1000).body)
