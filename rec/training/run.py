"""Metrics of a trained run on a split of session tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rec import baselines, spec
from rec.data import preprocessor, splits
from rec.errors import BundleError
from rec.evaluation import gate_health
from rec.evaluation.evaluate import Score, evaluate
from rec.progress import Progress
from rec.ranker import Ranker, from_weights
from rec.spec import Spec
from rec.spec.tasks import given
from rec.training import baseline_run, checkpoint, plain_weights
from rec.training.scorer import scorer
from rec.training.step import device_of


def load_run(run: Path) -> tuple[Spec, preprocessor.Preprocessor, Ranker]:
    """The spec, the vocabularies and scales, and the best epoch's model over plain tables.

    Raises BundleError when MODEL is no trained network, finished or interrupted, or was changed.
    """
    described = _described(run)
    if baselines.named(described):
        raise BundleError(f"{run}: expected a network, got a {described.model['name']!r}")
    learnt = preprocessor.load(described, checkpoint.trained_in(run) / "fitted")
    plain_weights.write(run)
    return described, learnt, from_weights(described, learnt, plain_weights.read(run))


def trained_baseline(run: Path) -> bool:
    """Whether a run trained a baseline (rec/baselines) rather than a network; BundleError where it is no run."""
    return baselines.named(_described(run))


def load_score(run: Path) -> tuple[Spec, preprocessor.Preprocessor, Score]:
    """The spec, the vocabularies and scales, and what the best epoch's model or the baseline says of a batch, on a CPU.

    Raises BundleError as `load_run`.
    """
    if trained_baseline(run):
        fitted = baseline_run.load(run)
        return fitted.spec, fitted.learnt, fitted.score
    described, learnt, model = load_run(run)
    return described, learnt, scorer(model, given(described.tasks), torch.device("cpu"))


def sizes(run: Path) -> dict[str, int]:
    """How many numbers a run learnt: in embedding tables, and beside them (of a baseline its leaves, or rates)."""
    if trained_baseline(run):
        return {"dense": baseline_run.load(run).model.numbers(), "tables": 0}
    ranker = load_run(run)[2]
    return {
        "dense": sum(p.numel() for p in ranker.dense().values()),
        "tables": sum(table.numel() for table in ranker.tables().values()),
    }


def evaluate_run(run: Path, data: Path, *, split: str, progress: Progress) -> dict[str, Any]:
    """The report of a run's best epoch on a split: every output's metrics, with the masks of the task graph.

    Where the model has gates, what they and the experts did is under "health" (rec/evaluation/gate_health.py).
    """
    if trained_baseline(run):
        described, learnt, score = load_score(run)
        progress.start(f"evaluating {split}", splits.count(data, split), "requests")
        rows = splits.read(data, split, described)
        return {"split": split, **evaluate(described, rows, learnt.encoders, score, progress=progress)}
    described, learnt, model = load_run(run)
    device = device_of(described.train)
    progress.start(f"evaluating {split}", splits.count(data, split), "requests")
    score = scorer(model.to(device), given(described.tasks), device)
    rows = splits.read(data, split, described)
    with gate_health.watched(model) as sums:
        report = {"split": split, **evaluate(described, rows, learnt.encoders, score, progress=progress)}
    if (of := checkpoint.refit_of(run)) is not None:
        report["refit"] = of
    health = gate_health.report(sums, _positives(report["outputs"], list(given(described.tasks))))
    return report if health is None else {**report, "health": health}


def _positives(outputs: Any, tasks: Sequence[str]) -> dict[str, int]:
    """The positives of every task; of a regression its candidates."""
    return {task: outputs[task].get("positives", outputs[task]["candidates"]) for task in tasks}


def _described(run: Path) -> Spec:
    """The spec of a trained model; BundleError where there is none."""
    if not checkpoint.kept(run).exists():
        raise BundleError(f"{run}: no trained model here; `multigate train SPEC --data DATA --out {run}` makes one")
    return spec.load(run / "spec.toml")
