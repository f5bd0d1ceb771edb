"""Metrics on the validation split while a model trains: each rank scores its share of every block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from rec import world
from rec.data import splits
from rec.errors import BundleError, DataError
from rec.evaluation.evaluate import evaluate
from rec.spec.tasks import given
from rec.training.process_group import ProcessGroupRanks
from rec.training.scorer import scorer
from rec.training.state import Run


def validate(run: Run) -> dict[str, Any]:
    """Metrics of every output on the validation split, the same on every rank; empty when there is no such split.

    All ranks call together. Raises BundleError where a score is not finite, as after a step that broke the weights.
    """
    requests = splits.count(run.data, "validation")
    rows = splits.read(run.data, "validation", run.spec)
    return evaluated(run, rows, requests, "validation") if requests else {}


def evaluated(run: Run, rows: Iterable[pa.RecordBatch], requests: int, what: str) -> dict[str, Any]:
    """Metrics of every output on rows that all ranks read, the same on every rank; raises as `validate`."""
    fit, spec = run.fit, run.spec
    fit.ranker.eval()
    run.progress.start(what, requests // world.size(), "requests")
    score = scorer(fit.ranker, given(spec.tasks), fit.device)
    ranks = ProcessGroupRanks(world.hosts()) if world.size() > 1 else None
    try:
        report = evaluate(spec, _shared(rows), run.learnt.encoders, score, progress=run.progress, ranks=ranks)
    except DataError as error:
        raise BundleError(
            f"epoch {run.epoch}, step {fit.steps}: {what}: {error}; try a lower train.lr or table_lr; "
            "the checkpoints before this one are kept"
        ) from None
    outputs: Any = report["outputs"]
    kept_apart = ("reliability", "remarks")  # history.json holds numbers
    return {name: {k: v for k, v in figures.items() if k not in kept_apart} for name, figures in outputs.items()}


def _shared(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A range of every block; together the ranks have all of it."""
    for block in rows:
        first, stop = (len(block) * rank // world.size() for rank in (world.rank(), world.rank() + 1))
        yield block.slice(first, stop - first)
