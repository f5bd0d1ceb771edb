"""The answer to POST /v1/rank, encoded without touching candidates one by one in Python.

    {"request_id": "r1", "model": {"name": "shop", "digest": "9b1f..."},
     "candidates": [{"item_id": 5, "rank": 1, "score": 0.21, "tasks": {"click": 0.2, ...}, "status": "ok"}, ...],
     "degraded": {"any": false, "reasons": [], "items_defaulted": 0, "user": "ok"},
     "timing_ms": {"parse": 0.1, "features": 0.2, "infer": 4.0, "fuse": 0.1}}

Candidates come best first. The id has the name the spec gives it; without an item key it is `position`, from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from serving.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Degraded:
    """What the answer lacks: `user` is ok, unknown, missing (no id sent) or none (the spec has no user key)."""

    any: bool
    reasons: Sequence[str]
    items_defaulted: int
    user: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """A request's result, best candidate first: ids, fused scores, probabilities by output, and who is unknown."""

    ids: Sequence[Any]
    score: np.ndarray
    tasks: Mapping[str, np.ndarray]
    unknown: np.ndarray | None


class Writer:
    """Answers of one bundle."""

    def __init__(self, bundle: Bundle, outputs: Sequence[str]) -> None:
        """Makes the classes that msgspec encodes, with the spec's names for their fields."""
        self._model = {"name": bundle.name, "digest": bundle.digest}
        self._outputs = list(outputs)
        names = [f"p{index}" for index in range(len(outputs))]  # `buy|click` is no name of a Python field
        self._tasks: Callable[..., Any] = msgspec.defstruct(
            "Tasks", [(name, float) for name in names], rename=dict(zip(names, outputs, strict=True)), gc=False
        )
        fields = [("id", Any), ("rank", int), ("score", float), ("tasks", Any), ("status", str)]
        self._candidate: Callable[..., Any] = msgspec.defstruct(
            "Candidate", fields, rename={"id": bundle.spec.keys.item or "position"}, gc=False
        )
        self._encode = msgspec.json.Encoder().encode

    def write(self, request_id: str, ranked: Ranked, degraded: Degraded, timing_ms: Mapping[str, float]) -> bytes:
        """The JSON of an answer."""
        count = len(ranked.ids)
        probabilities = map(self._tasks, *(ranked.tasks[name].tolist() for name in self._outputs))
        if ranked.unknown is None:
            status = ["ok"] * count
        else:
            status = ["item_unknown" if unknown else "ok" for unknown in ranked.unknown.tolist()]
        rows = map(self._candidate, ranked.ids, range(1, count + 1), ranked.score.tolist(), probabilities, status)
        answer = {
            "request_id": request_id,
            "model": self._model,
            "candidates": list(rows),
            "degraded": degraded,
            "timing_ms": timing_ms,
        }
        return self._encode(answer)
