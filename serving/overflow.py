"""Numbers so large that the model overflows: which candidates they cost their scores, and whose fault that is.

A number of 1e38 is a float32, but the layers that multiply it give infinity. Such a value is a fault of the row that
holds it and of nothing else: a batch job goes on without it, and a request is refused with its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rec.request import RequestBatch
from serving.scorer import Scorer

# A fourth power of it is finite; what is left of the batch without larger ones shows whether they were the reason.
_LARGE = 1e9


def overflowing(scorer: Scorer, batch: RequestBatch) -> np.ndarray:
    """Candidates without finite scores [N] bool, where numbers larger than _LARGE are the reason.

    Raises NonFiniteError when the batch has no finite scores with those numbers taken for missing either: then the
    model is at fault.
    """
    scorer.score(replace(batch, context=_tamed(batch.context), candidates=_tamed(batch.candidates)))
    scores = scorer.unchecked(scorer.feeds(batch))
    return ~np.all([np.isfinite(score_N) for score_N in scores.values()], axis=0)


def largest(values: Mapping[str, np.ndarray], row: int) -> tuple[str, float] | None:
    """The feature with the largest number in a row, and that number; None where none is larger than _LARGE."""
    numbers = {name: _farthest(value[row]) for name, value in values.items() if _float(value)}
    name = max(numbers, key=lambda name: abs(numbers[name]), default="")
    return (name, numbers[name]) if name and abs(numbers[name]) > _LARGE else None


def _farthest(value: np.ndarray) -> float:
    flat = np.nan_to_num(np.ravel(value), posinf=np.inf, neginf=-np.inf)
    return float(flat[np.abs(flat).argmax()])


def _tamed(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    missing = np.float32("nan")
    return {
        name: np.where(np.abs(value) > _LARGE, missing, value) if _float(value) else value
        for name, value in values.items()
    }


def _float(value: np.ndarray) -> bool:
    return np.issubdtype(value.dtype, np.floating)
