"""A batch as the named inputs of a graph, and what a manifest says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rec.request import RequestBatch
from serving.bundle import OWNER


def inputs_of(batch: RequestBatch) -> dict[str, np.ndarray]:
    """A numpy batch as the graph's named inputs."""
    context = {f"context.{name}": value for name, value in batch.context.items()}
    return context | {f"candidates.{name}": value for name, value in batch.candidates.items()} | {OWNER: batch.owner}


def described_inputs(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Type and shape of every input; B requests, N candidates.

    >>> described_inputs({"context.seen": np.zeros((1, 20), np.int64)})
    {'context.seen': {'type': 'int64', 'shape': ['B', 20]}}
    """
    return {name: {"type": str(value.dtype), "shape": [_rows(name), *value.shape[1:]]} for name, value in flat.items()}


def _rows(name: str) -> str:
    return "B" if name.startswith("context.") else "N"
