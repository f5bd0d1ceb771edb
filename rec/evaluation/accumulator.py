"""All metrics of one output over any number of candidates, in bounded memory; exact.

Means are sums, for which nothing is kept. AUC, concordance and reliability need candidates in order: 8 bytes of each
are kept, its score and label as float32, which is what models and bundles give; 16 where groups are spread over the
data. Beyond a share of memory they lie in a temporary file and are sorted externally
(rec/evaluation/external_sort.py). A group that comes whole, as a request does, is counted when it comes.

    add(score, label, group)    a part of the candidates, in any order
    merge(other)                those of another accumulator
    summary(ranks)              the figures of the candidates of all ranks, the same on every rank
"""

from __future__ import annotations

import math

import numpy as np

from rec.evaluation import classification, passes, regression, reliability
from rec.evaluation.classification import Grouped
from rec.evaluation.external_sort import Spool
from rec.evaluation.pairs import counted
from rec.evaluation.passes import EVENT_BLOCKS, Rows
from rec.evaluation.ranks import Alone, Ranks
from rec.spec import Task

ROW = 240  # bytes that a row takes while it is sorted and counted, at most: measured, of a regression in spread groups


class Accumulator:
    """The candidates of one output of a task.

    `whole_groups`: all candidates of a group come in one call of `add`. `expected`: of a regression, P(parent) times
    the value given the parent. `memory`: bytes of rows in memory, beyond which they lie in a file; `sort_memory`: bytes
    that `summary` takes to sort and count them, with fewer of which it is slower.
    """

    def __init__(
        self,
        task: Task,
        *,
        weight: str,
        whole_groups: bool,
        expected: bool = False,
        memory: int = 64 << 20,
        sort_memory: int = 64 << 20,
    ) -> None:
        self._event = task.predict == "event"
        self._predict, self._quantile = regression.error_of(task, expected=expected), task.quantile
        self._weight, self._whole_groups = weight, whole_groups
        self._most = max(sort_memory // ROW, 1)
        self._sums = np.zeros(4 if self._event else 8)
        self._groups = np.zeros(4)
        self._rows = Spool(1 if whole_groups else 2, memory=memory)

    def add(self, score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray) -> None:
        """Candidates with known labels, and the int64 keys of their groups. DataError where a score is not finite."""
        passes.refuse_infinite(score_N)
        self._sums = self._merged([self._sums, self._sums_of(score_N, label_N)])
        row = passes.packed(score_N, label_N)[:, None]
        if self._whole_groups:
            label = label_N == 1 if self._event else label_N
            self._groups += classification.group_sums(counted(score_N, label, group_N), weight=self._weight)
            self._rows.add(row)
        else:
            self._rows.add(np.concatenate([group_N.astype(np.int64).view(np.uint64)[:, None], row], 1))

    def merge(self, other: Accumulator) -> None:
        """Add the candidates of an accumulator of the same output; groups that come whole are in one of both."""
        self._sums = self._merged([self._sums, other._sums])
        self._groups += other._groups
        for block in other._rows.blocks(self._most):
            self._rows.add(block)

    def summary(self, ranks: Ranks | None = None) -> dict[str, object]:
        """Every metric, as `classification.summary` or `regression.summary` names it; all ranks call it at once."""
        rows = Rows(self._rows, ranks or Alone(), self._most)
        sums = self._merged(rows.ranks.gathered(self._sums))
        inside = self._grouped(rows)
        if self._event:
            pairs, bins = passes.by_score(rows, EVENT_BLOCKS)
            figures = reliability.figures(bins, errors=False)
            return classification.figures(sums, classification.share(pairs), inside, figures)
        place = (int(sums[0]) - 1) * self._quantile
        around = np.clip([math.floor(place), math.floor(place) + 1], 0, max(int(sums[0]) - 1, 0))
        labels = passes.by_label(rows, around)
        pairs, bins = passes.by_score(rows, labels.edges)
        order = (
            (labels.twice + int(pairs.twice[0])) / 2 / count if (count := labels.pairs + int(pairs.pairs[0])) else None
        )
        least = self._least(rows, labels.at, place - math.floor(place))
        return regression.figures(sums, least, order, inside, reliability.figures(bins, errors=True))

    def _sums_of(self, score_N: np.ndarray, label_N: np.ndarray) -> np.ndarray:
        if self._event:
            return classification.event_sums(score_N, label_N)
        return regression.regression_sums(score_N, label_N, predict=self._predict, quantile=self._quantile)

    def _merged(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.sum(parts, 0) if self._event else regression.merged(parts)

    def _grouped(self, rows: Rows) -> Grouped:
        if self._whole_groups:
            sums = self._groups
        else:
            spread = passes.event_groups if self._event else passes.regression_groups
            sums = spread(rows, weight=self._weight)
        return classification.grouped(rows.total(sums))

    def _least(self, rows: Rows, label: np.ndarray, part: float) -> float | None:
        """The error of the best constant where that is a quantile, `part` of the way between two labels [2]."""
        if self._predict != "quantile":
            return None
        low, high = regression.scaled(label, self._predict).tolist()
        return passes.pinball_of_constant(rows, low + (high - low) * part, self._quantile)
