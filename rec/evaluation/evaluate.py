"""Judging scores against labels, output by output, with the task graph's masks. No torch: runs and bundles alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pyarrow as pa

from rec.data.encoders import Encoder
from rec.data.session_table import group_of, to_batch
from rec.errors import DataError
from rec.evaluation import classification, regression
from rec.progress import Progress
from rec.request import RequestBatch
from rec.spec import Spec
from rec.spec.tasks import given, metric_rows, outputs

Score = Callable[[RequestBatch], Mapping[str, np.ndarray]]


def judge(
    spec: Spec, rows: Iterable[pa.RecordBatch], encoders: Mapping[str, Encoder], score: Score, *, progress: Progress
) -> dict[str, object]:
    """Every metric of every output over session-table rows, as report.json holds them.

    `score` gives {output: probability, or value of a quantity [N]} for a numpy batch. Raises DataError when there is
    not one candidate.
    """
    scores: dict[str, list[np.ndarray]] = {name: [] for name in outputs(spec.tasks)}
    labels: dict[str, list[np.ndarray]] = {name: [] for name in given(spec.tasks)}
    groups: list[np.ndarray] = []
    requests = 0
    for block in rows:
        batch = to_batch(block, spec, encoders)
        if len(batch):
            given_scores = score(batch)
            for name, parts in scores.items():
                parts.append(given_scores[name])
            for name, parts in labels.items():
                parts.append(batch.labels[name])
            groups.append(group_of(block, spec, start=requests)[batch.owner])
        requests += batch.size
        progress.advance(batch.size)
    if not groups:
        raise DataError("there is not one candidate to judge")
    label = {name: np.concatenate(parts) for name, parts in labels.items()}
    group = np.concatenate(groups)
    found = {}
    for name, (task, judged) in metric_rows(spec.tasks, label).items():
        given_N = np.concatenate(scores[name])[judged], label[task][judged], group[judged]
        one, weight = spec.tasks[task], spec.evaluate.weight
        if one.predict == "event":
            found[name] = classification.summary(*given_N, weight=weight)
        else:
            whole = name == task and one.given is not None
            found[name] = regression.summary(*given_N, task=one, weight=weight, whole=whole)
    return {"requests": requests, "candidates": len(group), "outputs": found}
