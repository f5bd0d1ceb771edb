"""Which row of another run's biases each row of this one's starts from: those of the same id, as of embedding tables.

    position: vocabulary 1, 2, 3      there 3, 1, 2      rows 2, 3, 1 there, and row 0 from row 0

A bias (rec/modules/bias_tower.py) has a weight per value and task. It is dense, and no table, but its rows mean what
the rows of a table would mean: weights of the same shape may be of other values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec.modules import bias_tower
from rec.training import row_map
from rec.training.row_map import Fitted, Overlap
from rec.training.state import Run


@dataclass(frozen=True)
class BiasRows:
    """For the R rows of a bias, their rows `there` [R], -1 where new; or why they all are `fresh`."""

    feature: str
    by: str
    there: np.ndarray
    overlap: Overlap
    fresh: str = ""

    @property
    def copied(self) -> int:
        """How many rows have one there."""
        return self.overlap.copied

    def put(self, live: Tensor, saved: Tensor) -> None:
        """Fill the rows [R, T] that have one there."""
        known = np.flatnonzero(self.there >= 0)
        live[torch.from_numpy(known)] = saved[torch.from_numpy(self.there[known])].to(live)

    def report(self) -> dict[str, Any]:
        """As warm_start.json has it of a table."""
        rows = {"rows": len(self.there)}
        return rows | ({"fresh": self.fresh} if self.fresh else {"by": self.by, **vars(self.overlap)})


def of(run: Run, there: Fitted, weights: Mapping[str, Any]) -> dict[str, BiasRows]:
    """{weight: its rows} of every bias with a weight per value of which `weights`, an index of tensors, has some."""
    here, live, out = Fitted(run.spec, run.learnt), run.fit.ranker.dense(), {}
    for name, feature in bias_tower.weights_of_values(run.spec).items():
        entry = weights.get(f"dense.{name}")
        if entry is None:
            continue
        (count, tasks), why = live[name].shape, row_map.difference(feature, here, there)
        if not why and entry["size"][1] != tasks:
            why = f"of {tasks} tasks, {entry['size'][1]} there"
        from_R = row_map.rows(feature, here, there, 0, count) if not why else np.full(count, -1)
        overlap = row_map.overlap(feature, here, there, (count, entry["size"][0])) if not why else Overlap(0, count, 0)
        out[name] = BiasRows(feature, row_map.by(feature, here), from_R, overlap, why)
    return out
