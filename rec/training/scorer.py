"""What a model says of session-table rows: validation while it trains, and evaluation of a trained one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from rec import world
from rec.data.loader import edges, tensors
from rec.evaluation.evaluate import Score
from rec.ranker import Ranker
from rec.request import RequestBatch


def scorer(
    model: Ranker, parents: Mapping[str, str | None], device: torch.device, *, candidates: int = 16_384
) -> Score:
    """A function from a numpy batch to {output: probability or value [N]}, in parts of about `candidates`.

    Where several processes train together all of them call it at once, for tables are looked up on all.
    """

    def score(batch: RequestBatch) -> dict[str, np.ndarray]:
        values: dict[str, list[Tensor]] = {}
        with torch.no_grad():
            for part in batch.cut(_together(edges(batch, candidates))):
                for name, value in model.served(tensors(part, device), parents).items():
                    values.setdefault(name, []).append(value)
        return {name: torch.cat(parts).cpu().numpy() for name, parts in values.items()}

    return score


def _together(cuts: list[int]) -> list[int]:
    """As many parts as the rank with most has: the last ones empty."""
    return cuts + cuts[-1:] * (world.largest([len(cuts)])[0] - len(cuts))
