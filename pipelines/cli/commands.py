"""One function per verb: open the inputs, do the work, return a plain dict. Printing is output.py's."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rec import spec as specs
from rec.atomic import read_json, sha256, write_json
from rec.errors import BundleError, DataError
from rec.memory import uncollected
from rec.output_folder import Origin, Overwrite, digest, locked, opened, refuse_overlap
from rec.progress import Progress

if TYPE_CHECKING:
    from rec.training.plan_cost import PlanCost


def check(path: Path, overrides: Sequence[str], progress: Progress) -> list[dict[str, Any]]:
    """The findings of all checks on a spec's logs, in order; `passed` is False if one fails.

    Session tables are built in a temporary folder, since some leaks are only visible in them.
    """
    from features.pipeline import build
    from pipelines import validate

    validate.load(path, overrides, trained_here=True)
    with TemporaryDirectory(prefix="multigate-") as folder:
        try:
            findings = features(path, overrides, Path(folder) / "data", progress, how={"refusing": False})["findings"]
        except build.CheckError as refused:
            findings = [asdict(finding) for finding in refused.findings]
    return findings


def features(
    path: Path, overrides: Sequence[str], out: Path, progress: Progress, *, how: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Session tables in `out`; the data card. Relative paths in the spec start at the spec's folder.

    `how` may say engine, workers, rows, snapshot, refusing and overwrite, as in BuildOptions of
    features.pipeline.build. Raises CheckError with the failed checks when the logs leak or contradict the spec.
    """
    with uncollected():
        from features import sources
        from features.logs import copies
        from features.pipeline import build, executors
        from pipelines import validate
        from pipelines.cli import fingerprint

    with validate.beside(path, overrides) as (spec, network):
        executors.elsewhere((how or {}).get("engine", "auto"))
        refuse_overlap(out, fingerprint.inputs(spec, path.parent))
        with copies.shown_by(progress):
            logs, stamp = sources.read(spec, path.parent), fingerprint.of_logs(spec, path.parent)
        options = build.BuildOptions(**(how or {}), latest=_tomorrow(), stamp=stamp, confirm=network.confirm)
        return build.build(spec, logs, out, progress=progress, how=options)


def _tomorrow() -> int:
    """The timestamp, in microseconds, after which a row is in the future: clocks may differ by a day."""
    return int((time.time() + 86_400) * 1_000_000)


def train(
    path: Path,
    overrides: Sequence[str],
    data: Path,
    out: Path,
    progress: Progress,
    *,
    overwrite: Overwrite = "never",
    profiled: bool = False,
    source: Path | None = None,
) -> dict[str, Any]:
    """A trained model in `out`, started from the weights of `source` where it is given; its best epoch's summary."""
    from pipelines import validate
    from rec.training import launch, trainer
    from rec.training.beginning import Beginning

    spec = validate.load(path, overrides, trained_here=True)
    start = Beginning(source, path.parent)
    with launch.process_group(spec.train):
        return trainer.train(spec, data, out, progress=progress, overwrite=overwrite, start=start, profiled=profiled)


def refuse_options(path: Path, overrides: Sequence[str], *, procs: int, plan: bool, until: bool) -> None:
    """SpecError for options of `train` that are of networks, where the spec names a baseline."""
    from rec.training import baseline_run

    baseline_run.refuse(specs.load(path, overrides), processes=procs, plan=plan, until=until)


def plan(path: Path, overrides: Sequence[str], data: Path, cluster: tuple[int, str, int]) -> PlanCost:
    """How a cluster would share the embedding tables: (processes, device, processes on a machine), here or not."""
    from pipelines import validate
    from rec.training import plan_cost, planning

    return plan_cost.estimate(validate.load(path, overrides), data, planning.asked_for(*cluster))


def evaluate(
    model: Path, data: Path, split: str, out: Path | None, progress: Progress, *, overwrite: Overwrite = "never"
) -> dict[str, Any]:
    """The report of a trained model or a bundle; report.json and report.html in `out`, or beside the trained model."""
    if out is None and is_bundle(model):
        return report_of(model, data, split, progress)
    if out is None:
        with locked(_trained(model), "evaluate"):
            report = report_of(model, data, split, progress)
            write_report(model, report, model=model, data=data, bundle=None)
        return report
    with opened(out, _report_origin(model, data, split), overwrite=overwrite, progress=progress) as state:
        if state == "finished":
            return read_json(out / "report.json", dict)
        report = report_of(model, data, split, progress)
        write_report(out, report, model=model, data=data, bundle=None)
    return report


def report_of(model: Path, data: Path, split: str, progress: Progress) -> dict[str, Any]:
    """The metrics of a trained model or a bundle on a split; DataError where that has no request."""
    from rec.data import splits

    if not splits.count(data, split):
        raise DataError(f"{data / split}: no request to evaluate on; see [split]")
    if is_bundle(model):
        from serving import evaluate_bundle as bundles

        return bundles.evaluate_bundle(model, data, split=split, progress=progress)
    from rec.training import run as runs

    return runs.evaluate_run(_trained(model), data, split=split, progress=progress)


def _trained(model: Path) -> Path:
    if not (model / "checkpoint").is_dir():
        raise BundleError(f"{model}: neither a trained model (checkpoint/) nor a bundle (model.onnx)")
    return model


def _report_origin(model: Path, data: Path, split: str) -> Origin:
    from rec.data import splits
    from rec.evaluation.evaluate import VERSION
    from rec.training import checkpoint

    weights = sha256(model / "manifest.json") if is_bundle(model) else checkpoint.digest(_trained(model))
    spec = specs.load(model / "spec.toml")
    made_of = {
        "trained model" if not is_bundle(model) else "bundle": weights[:16],
        "session tables": splits.digest(data)[:16],
        "split": split,
        "[evaluate]": digest(spec.evaluate.model_dump(mode="json")),
        "evaluation version": VERSION,
    }
    return Origin("evaluate", spec.name, made_of, ("report.json", "report.html"), (model, data))


def write_report(folder: Path, report: dict[str, Any], *, model: Path, data: Path, bundle: Path | None) -> None:
    """report.json and report.html of an evaluated model; with the parity error of the `bundle` it was exported to."""
    from pipelines.report import page as pages

    pages.write(folder / "report.html", report, model=model, data=data, bundle=bundle)
    write_json(folder / "report.json", report)


def is_bundle(folder: Path) -> bool:
    """Whether a folder is an exported bundle rather than a trained model."""
    return (folder / "model.onnx").is_file()


def export(model: Path, data: Path, out: Path, progress: Progress, *, overwrite: Overwrite = "never") -> dict[str, Any]:
    """A bundle in `out`; its manifest."""
    from serving import export as exporter

    return exporter.export(model, out, data=data, progress=progress, overwrite=overwrite)


def score(
    bundle: Path, data: Path, out: Path, progress: Progress, *, how: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Parquet scores of a split in `out`; `how` may say split, threads, procs, engine and overwrite."""
    from serving import batch

    return batch.score(bundle, data, out, progress=progress, **_with_workers(how or {}))


def score_requests(
    bundle: Path, files: Sequence[Path], out: Path, progress: Progress, *, how: Mapping[str, Any]
) -> dict[str, Any]:
    """Parquet scores of files of requests in `out`; `how` may say bad_rows, threads, procs, engine and overwrite."""
    from serving.request_files import score as requests

    return requests.score(bundle, files, out, progress=progress, **_with_workers(how))


def _with_workers(how: Mapping[str, Any]) -> dict[str, Any]:
    """Options with who scores as one of them."""
    from serving.scored_parts import ScoringWorkers

    who = {name: how[name] for name in ("threads", "procs", "engine") if name in how}
    return {**{name: value for name, value in how.items() if name not in who}, "workers": ScoringWorkers(**who)}


def rank(bundle: Path, body: bytes, threads: int, *, clock: Callable[[], int] = time.time_ns) -> dict[str, Any]:
    """The endpoint's response to a JSON body; `clock` returns nanoseconds since 1970.

    Raises DataError when the request does not fit the bundle's spec.
    """
    from serving import bundle as bundles
    from serving.online.rank import RankService
    from serving.scorer import Scorer

    opened = bundles.load(bundle)
    service = RankService(opened, Scorer(opened, threads=threads), new_id=lambda: uuid.uuid4().hex)
    return json.loads(service.rank(body, clock() // 1000).body)
