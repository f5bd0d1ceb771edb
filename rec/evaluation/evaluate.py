"""Every metric of every output of a model, over the candidates that the task graph assigns to it. No torch.

Runs and bundles are evaluated by the same function: it asks only for scores. Memory is bounded, whatever the number of
candidates and groups; over several processes each scores its own requests (rec/evaluation/ranks.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from rec.data.encoders import Encoder
from rec.data.session_table import group_of, to_batch
from rec.errors import DataError
from rec.evaluation import remarks
from rec.evaluation.accumulator import Accumulator
from rec.evaluation.ranks import Alone, Ranks
from rec.evaluation.weighted import WeightedAccumulator
from rec.evaluation.weighted_regression import WeightedRegressionAccumulator
from rec.progress import Progress
from rec.request import RequestBatch
from rec.spec import Spec
from rec.spec.tasks import metric_rows, sample_weights, task_of_output

VERSION = 2  # of the figures: counts up when the same scores give others
MEMORY = 256 << 20  # bytes
Score = Callable[[RequestBatch], Mapping[str, np.ndarray]]  # {output: probability, or value of a regression [N]}


class Evaluation:
    """The metrics of a model over requests that come batch by batch.

    `memory`: bytes, half for the rows of all outputs, which beyond it lie in temporary files, and half to sort them.
    """

    def __init__(self, spec: Spec, *, memory: int = MEMORY) -> None:
        self.requests = self.candidates = 0
        self._spec = spec
        self._outputs: dict[str, Accumulator | WeightedAccumulator | WeightedRegressionAccumulator] = {}
        whole = spec.evaluate.group is None
        names = task_of_output(spec.tasks)
        for output, name in names.items():
            task = spec.tasks[name]
            how: dict[str, Any] = {
                "weight": spec.evaluate.weight,
                "whole_groups": whole,
                "memory": memory // 2 // len(names),
                "sort_memory": memory // 2,  # outputs are sorted one after the other
            }
            if task.sample_weight is not None and task.predict == "event":
                self._outputs[output] = WeightedAccumulator(**how)
                continue
            kind = Accumulator if task.sample_weight is None else WeightedRegressionAccumulator
            self._outputs[output] = kind(task, expected=output == name and task.given is not None, **how)

    def add(self, batch: RequestBatch, scores: Mapping[str, np.ndarray], group_B: np.ndarray) -> None:
        """Whole requests with labels, their scores {output: [N]}, and the key of each request's group [B] int64.

        Raises DataError where a score is not finite.
        """
        group_N = group_B[batch.owner]
        for output, (task, in_N) in metric_rows(self._spec.tasks, batch.labels).items():
            rows = scores[output][in_N], batch.labels[task][in_N], group_N[in_N]
            accumulator = self._outputs[output]
            try:
                if isinstance(accumulator, Accumulator):
                    accumulator.add(*rows)
                else:
                    accumulator.add(*rows, sample_weights(task, batch.labels)[in_N])
            except DataError as error:
                raise DataError(f"{output}: {error}") from None
        self.requests += batch.size
        self.candidates += len(batch)

    def report(self, ranks: Ranks | None = None) -> dict[str, object]:
        """Every metric of every output and the remarks on it, as report.json holds them; all ranks call it at once.

        Raises DataError when there is not one candidate on any rank.
        """
        ranks = ranks or Alone()
        counts = np.array([[self.requests, self.candidates]])
        requests, candidates = np.concatenate(ranks.gathered(counts)).sum(0).tolist()
        if not candidates:
            raise DataError("there is not one candidate to evaluate")
        outputs = {}
        for output, accumulator in self._outputs.items():
            figures = accumulator.summary(ranks)
            outputs[output] = {**figures, "remarks": [str(remark) for remark in remarks.of(output, figures)]}
        return {"requests": requests, "candidates": candidates, "outputs": outputs}


def evaluate(
    spec: Spec,
    rows: Iterable[pa.RecordBatch],
    encoders: Mapping[str, Encoder],
    score: Score,
    *,
    progress: Progress,
    ranks: Ranks | None = None,
    memory: int = MEMORY,
) -> dict[str, object]:
    """Every metric of every output over session-table rows, and the remarks on it, as report.json holds them.

    Over several ranks each gives its own rows, and all get the report on all rows. Raises DataError when there is not
    one candidate, or where a score is not finite.
    """
    evaluation = Evaluation(spec, memory=memory)
    for block in rows:
        batch = to_batch(block, spec, encoders)
        # a rank without candidates in a block scores it all the same: others may look their rows up on it
        scores = score(batch) if len(batch) or ranks is not None else {}
        if len(batch):
            evaluation.add(batch, scores, group_of(block, spec))
        else:
            evaluation.requests += batch.size
        progress.advance(batch.size)
    return evaluation.report(ranks)
