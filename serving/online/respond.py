"""The response to POST /v1/rank, encoded without a Python loop over candidates.

    {"request_id": "r1", "model": {"name": "shop", "digest": "9b1f..."},
     "candidates": [{"item_id": 5, "rank": 1, "score": 0.21, "tasks": {"click": 0.2, ...}, "status": "ok"}, ...],
     "degraded": {"any": false, "reasons": [], "items_defaulted": 0, "items_stale": 0, "user": "ok"},
     "features_age_s": {"user": 840.2, "candidates_median": 840.2, "candidates_oldest": 97210.5},
     "timing_ms": {"parse": 0.1, "features": 0.2, "infer": 4.0, "fuse": 0.1}}

Where versions have labels, `model` has `version` and `label` too.
Candidates come best first. Their id is named by `[keys] item`; without an item key it is `position`, from 0.
A request in columns gets a response in columns, half as long and several times as fast to write and to parse:

    "candidates": {"item_id": [5, ...], "rank": [1, ...], "score": [0.21, ...], "tasks": {"click": [0.2, ...]}, ...}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from serving.bundle import Bundle
from serving.online.ages import FeatureAges


@dataclass(frozen=True, slots=True)
class Degradation:
    """What a response lacks: `user` is ok, unknown, missing (no id sent) or none (the spec has no user key).

    `items_stale` are candidates whose stored features are older than the spec allows.
    """

    any: bool
    reasons: Sequence[str]
    items_defaulted: int
    items_stale: int
    user: str


@dataclass(frozen=True, slots=True)
class RankedCandidates:
    """The top k candidates, best first: ids, fused scores [k], every output [outputs, k], unknown items [k]."""

    ids: Sequence[Any]
    score: np.ndarray
    tasks: np.ndarray
    unknown: np.ndarray | None


class ResponseEncoder:
    """Encodes the responses of one bundle."""

    def __init__(self, bundle: Bundle, outputs: Sequence[str], *, version: str = "", label: str = "") -> None:
        """Defines the structs that msgspec encodes; `outputs` name the rows of RankedCandidates.tasks."""
        labelled = {"version": version, "label": label} if label else {}
        self._model = {"name": bundle.name, **labelled, "digest": bundle.digest}
        self._outputs = list(outputs)
        self._id = bundle.spec.key_feature("item") or "position"
        names = [f"p{index}" for index in range(len(outputs))]  # `buy|click` is no name of a Python field
        self._tasks: Callable[..., Any] = msgspec.defstruct(
            "Tasks", [(name, float) for name in names], rename=dict(zip(names, outputs, strict=True)), gc=False
        )
        fields = [("id", Any), ("rank", int), ("score", float), ("tasks", Any), ("status", str)]
        self._candidate: Callable[..., Any] = msgspec.defstruct("Candidate", fields, rename={"id": self._id}, gc=False)
        self._encode = msgspec.json.Encoder().encode

    def encode(
        self,
        request_id: str,
        ranked: RankedCandidates,
        degraded: Degradation,
        ages: FeatureAges,
        timing_ms: Mapping[str, float],
        *,
        columnar: bool,
    ) -> bytes:
        """The JSON of a response."""
        response = {
            "request_id": request_id,
            "model": self._model,
            "candidates": self._columns(ranked) if columnar else self._rows(ranked),
            "degraded": degraded,
            "features_age_s": ages,
            "timing_ms": timing_ms,
        }
        return self._encode(response)

    def _rows(self, ranked: RankedCandidates) -> list[Any]:
        count = len(ranked.ids)
        outputs = map(self._tasks, *ranked.tasks.tolist())
        score = ranked.score.tolist()
        return list(map(self._candidate, ranked.ids, range(1, count + 1), score, outputs, _status(ranked)))

    def _columns(self, ranked: RankedCandidates) -> dict[str, Any]:
        return {
            self._id: ranked.ids,
            "rank": list(range(1, len(ranked.ids) + 1)),
            "score": ranked.score.tolist(),
            "tasks": dict(zip(self._outputs, ranked.tasks.tolist(), strict=True)),
            "status": _status(ranked),
        }


def _status(ranked: RankedCandidates) -> list[str]:
    if ranked.unknown is None:
        return ["ok"] * len(ranked.ids)
    return ["item_unknown" if unknown else "ok" for unknown in ranked.unknown.tolist()]
