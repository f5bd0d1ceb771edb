"""Metrics of an exported bundle: of the scores it serves, by the same function as a trained run's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rec.data import splits
from rec.evaluation.evaluate import evaluate
from rec.progress import Progress
from serving import bundle as bundles
from serving.scorer import Scorer


def evaluate_bundle(bundle: Path, data: Path, *, split: str, progress: Progress) -> dict[str, Any]:
    """The report of a bundle on a split of session tables, scored by ONNX Runtime on one thread.

    Raises BundleError when the bundle cannot be used, DataError when the tables are not of its spec.
    """
    opened = bundles.load(bundle)
    scorer = Scorer(opened, threads=1)
    progress.start(f"evaluating {split}", splits.count(data, split), "requests")
    rows = splits.read(data, split, opened.spec)
    report = evaluate(opened.spec, rows, opened.preprocessor.encoders, scorer.score, progress=progress)
    refit = opened.manifest.get("run", {}).get("refit")
    return {"split": split, **report, **({} if refit is None else {"refit": refit})}
