"""The named inputs and outputs of a graph: those of a spec, and a batch as inputs.

in   context.<feature> [B] or [B, L]    candidates.<feature> [N] or [N, L]    request.owner [N]
out  tasks.<task>: P(task), or the number [N]; tasks.<task>|<parent>: the same where its parent happened [N]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rec.request import RequestBatch
from rec.spec import Id, Ids, Kept, Number, Spec, Vector, has_rows, tasks

OWNER = "request.owner"  # the input that says to which request each candidate belongs


def output_names(spec: Spec) -> list[str]:
    """The names of a graph's outputs, in the order of `tasks.outputs`: `["tasks.click", "tasks.buy|click"]`.

    A graph has one space for all of its names, those of operators' results included, and these hold no dot.
    """
    return [f"tasks.{name}" for name in tasks.outputs(spec.tasks)]


def expected_inputs(spec: Spec) -> dict[str, tuple[str, list[str | int]]]:
    """The inputs of a graph of this spec: `{"context.history": ("int64", ["B", 20]), OWNER: ("int64", ["N"])}`."""
    inputs = {
        f"{side}.{name}": _input(feature, rows)
        for (side, features), rows in zip(spec.sides(), ("B", "N"), strict=True)
        for name, feature in features.items()
        if not isinstance(feature, Kept)
    }
    return {**inputs, OWNER: ("int64", ["N"])}


def _input(feature: Id | Ids | Number | Vector, rows: str) -> tuple[str, list[str | int]]:
    if isinstance(feature, Vector):
        return "float32", [rows, feature.size]
    if not has_rows(feature):
        return "float32", [rows]
    return "int64", [rows, feature.last] if isinstance(feature, Ids) else [rows]


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
