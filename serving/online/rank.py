"""One request, from the bytes of its body to the bytes of its response. The HTTP app and `multigate rank` both call it.

    body -> RequestParser -> EntityStore (hydrated) -> session-table row -> to_batch -> Scorer -> order
         -> ResponseEncoder -> body

The session-table row in the middle is the one that batch scoring would read: same encoding, same scorer, same scores. A
request of known ids alone takes their encoded rows from memory (serving/online/encoded_store.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter

import numpy as np
import pyarrow as pa

from rec.data.session_table import TIME, field_type, schema, to_batch
from rec.request import RequestBatch
from rec.spec import Kept, Spec
from rec.spec.features import is_bias
from serving.bundle import Bundle
from serving.online.encoded_store import encode_store
from serving.online.parse import ParsedRequest, RequestParser
from serving.online.problems import RequestError
from serving.online.respond import Degradation, RankedCandidates, ResponseEncoder
from serving.overflow import largest, overflowing
from serving.scorer import NonFiniteError, Scorer, order
from serving.store import HydratedRows

STAGES = ("parse", "features", "infer", "fuse", "encode")
_NO_DEGRADATION = Degradation(any=False, reasons=(), items_defaulted=0, user="ok")
REASONS = ("user_unknown", "user_missing", "item_unknown", "feature_missing", "pair_missing")


@dataclass(frozen=True, slots=True)
class RankResponse:
    """The response to a ranked request, and the seconds it took by stage (STAGES)."""

    request_id: str
    body: bytes
    candidates: int
    degraded: Degradation
    seconds: Mapping[str, float]


class RankService:
    """Ranks requests with one bundle."""

    def __init__(self, bundle: Bundle, scorer: Scorer, *, new_id: Callable[[], str]) -> None:
        """`new_id` generates an id for requests without one."""
        self.bundle = bundle
        self._scorer = scorer
        self._new_id = new_id
        self._parser = RequestParser(bundle.spec)
        self._encoder = ResponseEncoder(bundle, scorer.outputs)
        self._schema = schema(bundle.spec, labels=False)
        self._user, self._item = bundle.spec.key_feature("user"), bundle.spec.key_feature("item")
        self._encoded_store = encode_store(bundle)
        # a request of known ids alone lacks what the store cannot know of it, and nothing else
        lost = bundle.store.lost("candidates", {})
        self._encoded_degradation = (
            replace(_NO_DEGRADATION, any=True, reasons=("pair_missing",)) if lost else _NO_DEGRADATION
        )
        self._required = {side: _required(bundle.spec, side) for side, _ in bundle.spec.sides()}

    def rank(self, body: bytes, now_us: int, *, check: Callable[[int | None], None] | None = None) -> RankResponse:
        """The response to a request that arrived at `now_us` (microseconds since 1970 UTC).

        `check` is called with the deadline that the request names, in milliseconds, just before the model runs; what it
        raises ends the request. Raises RequestError when the request is at fault, NonFiniteError when the model is.
        """
        marks = [perf_counter()]
        request = self._parser.parse(body, now_us, self._new_id)
        marks.append(perf_counter())
        batch, degradation, unknown_N = self._batch(request)
        if check is not None:
            check(request.deadline_ms)
        marks.append(perf_counter())
        scores = self._scored(batch, request)
        marks.append(perf_counter())
        ranked = self._ranked(request, scores, unknown_N)
        marks.append(perf_counter())
        seconds = {stage: end - start for stage, (start, end) in zip(STAGES, pairwise(marks), strict=False)}
        timing_ms = {stage: round(1000 * spent, 3) for stage, spent in seconds.items()}
        encoded = self._encoder.encode(request.request_id, ranked, degradation, timing_ms, columnar=request.columnar)
        seconds["encode"] = perf_counter() - marks[-1]
        return RankResponse(request.request_id, encoded, request.count, degradation, seconds)

    def scores(self, request: ParsedRequest) -> dict[str, np.ndarray]:
        """Every output of every candidate of a request, float32 [N], as `rank` has them; raises as it does."""
        return self._scored(self._batch(request)[0], request)

    def _scored(self, batch: RequestBatch, request: ParsedRequest) -> dict[str, np.ndarray]:
        try:
            return self._scorer.score(batch)
        except NonFiniteError:
            raise self._overflow(batch, request) from None

    def _overflow(self, batch: RequestBatch, request: ParsedRequest) -> RequestError:
        """Names the number that is too large for the model; NonFiniteError where there is none."""
        candidate = int(overflowing(self._scorer, batch).argmax())
        pointer, place, culprit = "/context/", "context.", largest(batch.context, 0)
        if (number := largest(batch.candidates, candidate)) is not None:
            pointer, place, culprit = f"/candidates/{candidate}/", f"candidates[{candidate}].", number
        assert culprit is not None, "without a large number the model is at fault"
        name, value = culprit
        pointer = f"/candidates/{name}/{candidate}" if request.columnar and number else pointer + name
        message = f"{place}{name}: {value:.3g} is too large: with it the model's scores are not finite"
        return RequestError(422, "Request does not fit the model", [(pointer, message)])

    def row(self, body: bytes, now_us: int) -> pa.RecordBatch:
        """The session-table row of a request, as batch scoring would read it."""
        return self._row(self._parser.parse(body, now_us, self._new_id))[0]

    def _batch(self, request: ParsedRequest) -> tuple[RequestBatch, Degradation, np.ndarray | None]:
        batch = self._encoded_batch(request)
        if batch is not None:
            return batch, self._encoded_degradation, None
        row, degradation, unknown_N = self._row(request)
        return to_batch(row, self.bundle.spec, self.bundle.preprocessor.encoders), degradation, unknown_N

    def _encoded_batch(self, request: ParsedRequest) -> RequestBatch | None:
        """The batch of a request that sends only ids known to the store; None for any other."""
        store = self.bundle.store
        if self._encoded_store is None or store.context is None or store.candidates is None:
            return None
        if request.context.keys() != {self._user} or request.candidates.keys() != {self._item}:
            return None
        user = store.context.lookup(request.context[str(self._user)].values)[0]
        items = store.candidates.lookup(request.candidates[str(self._item)].values)
        if user < 0 or (items < 0).any():
            return None
        return self._encoded_store.batch(user, items, request.time)

    def _ranked(
        self, request: ParsedRequest, scores: Mapping[str, np.ndarray], unknown_N: np.ndarray | None
    ) -> RankedCandidates:
        fused_N = self._scorer.fused(scores)
        top = order(fused_N, np.array([0, request.count]))[: request.top_k]
        positions = top.tolist()
        return RankedCandidates(
            ids=positions if request.items is None else [request.items[position] for position in positions],
            score=fused_N[top],
            tasks=np.stack(list(scores.values())).take(top, axis=1),
            unknown=None if unknown_N is None else unknown_N[top],
        )

    def _row(self, request: ParsedRequest) -> tuple[pa.RecordBatch, Degradation, np.ndarray | None]:
        store = self.bundle.store
        context = store.hydrate("context", request.context, 1)
        candidates = store.hydrate("candidates", request.candidates, request.count)
        row = pa.RecordBatch.from_arrays(
            [
                pa.array([request.request_id], pa.string()),
                pa.array([request.time], TIME),
                context.rows,
                pa.ListArray.from_arrays(pa.array([0, request.count], pa.int32()), candidates.rows),
            ],
            schema=self._schema,
        )
        unknown_N = None if candidates.known is None or candidates.known.all() else ~candidates.known
        return row, self._degradation(request, context, candidates, unknown_N), unknown_N

    def _degradation(
        self, request: ParsedRequest, context: HydratedRows, candidates: HydratedRows, unknown_N: np.ndarray | None
    ) -> Degradation:
        user = _user(request, context, self._user)
        reasons = [f"user_{user}"] if user in ("unknown", "missing") else []
        if unknown_N is not None:
            reasons.append("item_unknown")
        # without a store there is no value for a feature that the request leaves out
        missing = (context.known is None and self._required["context"] - set(request.context)) or (
            candidates.known is None and request.count and self._required["candidates"] - set(request.candidates)
        )
        if missing:
            reasons.append("feature_missing")
        lost = self.bundle.store.lost
        if lost("context", request.context) or (request.count and lost("candidates", request.candidates)):
            reasons.append("pair_missing")
        return Degradation(bool(reasons), reasons, 0 if unknown_N is None else int(unknown_N.sum()), user)


def _required(spec: Spec, side: str) -> set[str]:
    """Features of a side that the model reads, and a request or the store must supply."""
    return {
        name
        for name, feature in dict(spec.sides())[side].items()
        if not isinstance(feature, Kept) and not is_bias(feature) and field_type(feature) is not None
    }


def _user(request: ParsedRequest, context: HydratedRows, key: str | None) -> str:
    if context.known is None or key is None:
        return "none"
    if context.known.all():
        return "ok"
    return "unknown" if key in request.context and request.context[key].values.null_count == 0 else "missing"
