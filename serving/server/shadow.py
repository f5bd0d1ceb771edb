"""The shadow's only page: a request and the answer that stable gave, whose scores are compared with its own.

    POST /v1/shadow     x-request-bytes: length of the request, behind which the answer follows; x-now-us: when it came

Nobody sees its scores. What it cannot score, such as a request that does not fit its spec, is counted as failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from serving.online.parse import RequestParser
from serving.online.problems import RequestError
from serving.online.rank import RankService
from serving.server.event_log import log_failure
from serving.server.messages import HttpRequest, Reply, problem_reply
from serving.server.metrics import Metrics

PAGE = b"/v1/shadow"
REQUEST_BYTES, NOW = b"x-request-bytes", b"x-now-us"
FUSED = "fused score"  # a blank is in no task's name


class ShadowEndpoint:
    """Compares the scores of one worker."""

    def __init__(self, service: RankService, metrics: Metrics) -> None:
        """`service` has the shadow's bundle."""
        self.outputs = outputs_of(service)
        self._service = service
        self._metrics = metrics
        self._parser = RequestParser(service.bundle.spec)

    def begin(self, request: HttpRequest) -> Reply | None:
        """There is one page."""
        return None if (request.method, request.path) == (b"POST", PAGE) else problem_reply(404, "No such page")

    def refused(self, request: HttpRequest, reply: Reply) -> None:
        """Nothing: whoever asked counts it."""

    def finish(self, request: HttpRequest) -> None:
        """Compare; the answer is only that it is done."""
        size, now = int(request.headers[REQUEST_BYTES]), int(request.headers[NOW])
        try:
            differences = self.differences(request.body[:size], request.body[size:], now)
        except RequestError:
            self._metrics.shadowed("failed")
        except Exception as error:  # noqa: BLE001  the boundary: a shadow may be broken in any way
            log_failure("shadow_failed", error)
            self._metrics.shadowed("failed")
        else:
            for index, difference_K in differences.items():
                self._metrics.shadow_differed(index, difference_K)
            self._metrics.shadowed("compared")
        request.answer(Reply(200, b""))

    def differences(self, body: bytes, served: bytes, now_us: int) -> Mapping[int, np.ndarray]:
        """Absolute differences [K] of every output that both have, of the K candidates of an answer, by `outputs`."""
        request = self._parser.parse(body, now_us, str)
        scores = dict(self._service.scores(request))
        scores[FUSED] = self._service.scorer.fused(scores)
        ids, answered = served_scores(msgspec.json.decode(served)["candidates"])
        places = ids if request.items is None else _places(request.items, ids)
        return {
            index: np.abs(scores[name][places] - np.asarray(answered[name], np.float64))
            for index, name in enumerate(self.outputs)
            if name in answered
        }


def outputs_of(service: RankService) -> tuple[str, ...]:
    """The names of what a shadow's scores are: the fused one first."""
    return (FUSED, *service.scorer.outputs)


def served_scores(candidates: Any) -> tuple[list[Any], Mapping[str, Sequence[float]]]:
    """The ids [K] of an answer's candidates, in rows or in columns, and their scores [K] by output.

    >>> served_scores([{"item_id": 5, "rank": 1, "score": 0.2, "tasks": {"click": 0.1}, "status": "ok"}])
    ([5], {'fused score': [0.2], 'click': [0.1]})
    """
    if isinstance(candidates, dict):
        ids = next(iter(candidates.values()))
        return ids, {FUSED: candidates["score"], **candidates["tasks"]}
    ids = [next(iter(candidate.values())) for candidate in candidates]
    outputs = candidates[0]["tasks"] if candidates else {}
    tasks = {name: [candidate["tasks"][name] for candidate in candidates] for name in outputs}
    return ids, {FUSED: [candidate["score"] for candidate in candidates], **tasks}


def _places(items: Sequence[Any], ids: Sequence[Any]) -> list[int]:
    """Where candidates with these ids stand in the request."""
    place = {item: index for index, item in enumerate(items)}
    return [place[item] for item in ids]
