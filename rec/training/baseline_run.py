"""Training of baselines (rec/baselines), and reading them: the run folder of a network, with a model that is none.

    MODEL/checkpoint/best/   the baseline's own files, state.json, and manifest.json with their digests
          history.json       one entry, as of one epoch

One process does all of it. What is interrupted begins anew.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from rec import baselines, world
from rec import spec as specs
from rec.atomic import inventory, read_json, verify, whole_folder, write_json
from rec.baselines import Baseline
from rec.data import preprocessor, splits
from rec.data.preprocessor import Preprocessor
from rec.errors import BundleError, SpecError
from rec.evaluation.evaluate import Score, evaluate
from rec.progress import Progress
from rec.request import RequestBatch
from rec.spec import Spec
from rec.spec.tasks import along_graph, given
from rec.training import checkpoint

FORMAT = 1


@dataclass(frozen=True)
class BaselineRun:
    """A fitted baseline with its spec, and its vocabularies."""

    spec: Spec
    learnt: Preprocessor
    model: Baseline

    def score(self, batch: RequestBatch) -> dict[str, np.ndarray]:
        """Every output of a numpy batch [N] float32, in order."""
        return along_graph(self.model.conditional(batch), given(self.spec.tasks))


def refuse(
    spec: Spec,
    *,
    processes: int = 1,
    start: bool = False,
    profiled: bool = False,
    plan: bool = False,
    until: bool = False,
) -> None:
    """Raise SpecError for what only networks do, where the spec names a baseline."""
    if not baselines.named(spec):
        return
    name = spec.model["name"]
    if processes > 1:
        raise SpecError(f"--procs: {name!r} is trained by one process (gbdt: with as many threads as it may)")
    if start:
        raise SpecError(f"--from: {name!r} starts from nothing; only networks go on from the weights of another run")
    if profiled:
        raise SpecError(f"--profile: {name!r} has no steps to trace")
    if until:
        raise SpecError(f"--until: {name!r} has no epochs")
    if plan:
        raise SpecError(f"--plan: {name!r} has no embedding tables to divide")


def fit(spec: Spec, learnt: Preprocessor, data: Path, run: Path, progress: Progress) -> None:
    """Fit the baseline of a spec, evaluate it on validation, and put it in its place, whole or not at all."""
    refuse(spec, processes=world.size())
    if "objective" in spec.model_fields_set:
        progress.say(f"[objective]: for networks; {spec.model['name']!r} learns each task alone")
    began = time.perf_counter()
    shutil.rmtree(run / "checkpoint" / checkpoint.BEST, ignore_errors=True)  # of a run that was interrupted
    with whole_folder(run / "checkpoint" / checkpoint.BEST) as beside:
        about = baselines.module(spec).fit(spec, learnt, data, beside, progress)
        for line in about.pop("lines"):
            progress.say(line)
        fitted = BaselineRun(spec, learnt, baselines.module(spec).load(spec, learnt, beside))
        figures = _validated(fitted, data, progress)
        entry = {"epoch": 1, "step": about["step"], "seconds": time.perf_counter() - began}
        write_json(beside / "state.json", {"epoch": 1, "step": about["step"]})
        write_json(beside / "manifest.json", {"format": FORMAT, "files": inventory(beside)})
    write_json(run / "history.json", [{**entry, "train": {"loss": about["loss"]}, "validation": figures}])


def load(run: Path) -> BaselineRun:
    """A trained baseline; BundleError where a file is missing or changed."""
    best = run / "checkpoint" / checkpoint.BEST
    manifest = read_json(best / "manifest.json", dict)
    if manifest.get("format") != FORMAT:
        raise BundleError(f"{best}: format {manifest.get('format')}, expected {FORMAT}; train again")
    verify(best, manifest["files"])
    spec = specs.load(run / "spec.toml")
    learnt = preprocessor.load(spec, run / "fitted")
    try:
        return BaselineRun(spec, learnt, baselines.module(spec).load(spec, learnt, best))
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{best}: not what a baseline leaves: {error!r:.80}") from None


def _validated(fitted: BaselineRun, data: Path, progress: Progress) -> dict[str, Any]:
    """Metrics of every output on the validation split, as history.json holds them; empty where it has no request."""
    requests = splits.count(data, "validation")
    if not requests:
        return {}
    progress.start("validation", requests, "requests")
    score: Score = fitted.score
    rows = splits.read(data, "validation", fitted.spec)
    report: Any = evaluate(fitted.spec, rows, fitted.learnt.encoders, score, progress=progress)
    kept_apart = ("reliability", "remarks")
    outputs: Mapping[str, Any] = report["outputs"]
    return {name: {k: v for k, v in figures.items() if k not in kept_apart} for name, figures in outputs.items()}
