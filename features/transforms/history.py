"""Numbers of the past as ids: how long ago something was, or how much of it there was."""

from __future__ import annotations

import numpy as np


def bucketed(values: np.ndarray) -> np.ndarray:
    """Logarithmic bucket ids of numbers [n] int64: 1 + floor(log2(1 + v)); negative numbers are treated as 0."""
    return np.frexp(1.0 + np.maximum(values, 0))[1].astype(np.int64)
