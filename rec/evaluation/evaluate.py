"""Every metric of every output of a model, over the candidates that the task graph assigns to it. No torch.

Runs and bundles are evaluated by the same function: it asks only for scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pyarrow as pa

from rec.data.encoders import Encoder
from rec.data.session_table import group_of, to_batch
from rec.errors import DataError
from rec.evaluation import classification, regression, remarks
from rec.progress import Progress
from rec.request import RequestBatch
from rec.spec import Spec
from rec.spec.tasks import given, metric_rows, outputs

VERSION = 1  # of the figures: counts up when the same scores give others
Score = Callable[[RequestBatch], Mapping[str, np.ndarray]]  # {output: probability, or value of a regression [N]}


def evaluate(
    spec: Spec, rows: Iterable[pa.RecordBatch], encoders: Mapping[str, Encoder], score: Score, *, progress: Progress
) -> dict[str, object]:
    """Every metric of every output over session-table rows, with remarks, as in report.json.

    Raises DataError when there are no candidates.
    """
    scores: dict[str, list[np.ndarray]] = {name: [] for name in outputs(spec.tasks)}
    labels: dict[str, list[np.ndarray]] = {name: [] for name in given(spec.tasks)}
    groups: list[np.ndarray] = []
    requests = 0
    for block in rows:
        batch = to_batch(block, spec, encoders)
        if len(batch):
            scored = score(batch)
            for name, parts in scores.items():
                parts.append(scored[name])
            for name, parts in labels.items():
                parts.append(batch.labels[name])
            groups.append(group_of(block, spec, start=requests)[batch.owner])
        requests += batch.size
        progress.advance(batch.size)
    if not groups:
        raise DataError("there is not one candidate to evaluate")
    score_N = {name: np.concatenate(parts) for name, parts in scores.items()}
    label_N = {name: np.concatenate(parts) for name, parts in labels.items()}
    group_N = np.concatenate(groups)
    return {
        "requests": requests,
        "candidates": len(group_N),
        "outputs": {
            output: _figures(spec, output, task, (score_N[output][in_N], label_N[task][in_N], group_N[in_N]))
            for output, (task, in_N) in metric_rows(spec.tasks, label_N).items()
        },
    }


def _figures(
    spec: Spec, output: str, name: str, score_label_group: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> dict[str, object]:
    """The metrics of an output of the task `name` over the candidates it is evaluated on, with remarks."""
    task, weight = spec.tasks[name], spec.evaluate.weight
    if task.predict == "event":
        figures = classification.summary(*score_label_group, weight=weight)
    else:
        expected = output == name and task.given is not None
        figures = regression.summary(*score_label_group, task=task, weight=weight, expected=expected)
    return {**figures, "remarks": [str(remark) for remark in remarks.of(output, figures)]}
