"""One request, from the bytes of its body to the bytes of its response. The HTTP app and `multigate rank` both call it.

    body -> RequestParser -> EntityStore (hydrated) -> session-table row -> to_batch -> Scorer -> order
         -> ResponseEncoder -> body

The session-table row in the middle is the one that batch scoring would read: same encoding, same scorer, same scores. A
request of known ids alone takes their encoded rows from memory (serving/online/encoded_store.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import numpy as np
import pyarrow as pa

from rec.data.session_table import TIME, schema, to_batch
from rec.request import RequestBatch
from serving.bundle import Bundle
from serving.online.ages import FeatureAges, Staleness, StoredAges, suppliable
from serving.online.encoded_store import encode_store
from serving.online.parse import ParsedRequest, RequestParser
from serving.online.problems import RequestError
from serving.online.respond import Degradation, RankedCandidates, ResponseEncoder
from serving.overflow import largest, overflowing
from serving.scorer import NonFiniteError, Scorer, order
from serving.store import HydratedRows

STAGES = ("parse", "features", "infer", "fuse", "encode")
REASONS = ("user_unknown", "user_missing", "item_unknown", "feature_missing", "pair_missing", "stale_features")


@dataclass(frozen=True, slots=True)
class RankResponse:
    """The response to a ranked request, and the seconds it took by stage (STAGES)."""

    request_id: str
    body: bytes
    candidates: int
    degraded: Degradation
    ages: FeatureAges
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Filled:
    """A request as the model reads it, what it lacks, which candidates are unknown [N] bool, how old what is stored is.

    `unknown` is None where all are known.
    """

    batch: RequestBatch
    degradation: Degradation
    unknown: np.ndarray | None
    ages: FeatureAges


class RankService:
    """Ranks requests with one bundle."""

    def __init__(
        self, bundle: Bundle, scorer: Scorer, *, new_id: Callable[[], str], version: str = "", label: str = ""
    ) -> None:
        """`new_id` generates an id for requests without one; version and label are in answers where there are any."""
        self.bundle = bundle
        self.scorer = scorer
        self._label = label or "stable"
        self._new_id = new_id
        self._parser = RequestParser(bundle.spec)
        self._encoder = ResponseEncoder(bundle, scorer.outputs, version=version, label=label)
        self._schema = schema(bundle.spec, labels=False)
        self._user, self._item = bundle.spec.key_feature("user"), bundle.spec.key_feature("item")
        self._encoded_store = encode_store(bundle)
        # a request of known ids alone lacks what the store cannot know of it, and nothing else
        self._pairs = bool(bundle.store.lost("candidates", {}))
        self._ages = StoredAges(bundle.spec, bundle.store)
        self._required = {side: suppliable(features) for side, features in bundle.spec.sides()}

    def rank(self, body: bytes, now_us: int, *, check: Callable[[int | None], None] | None = None) -> RankResponse:
        """The response to a request that arrived at `now_us` (microseconds since 1970 UTC).

        `check` is called with the deadline that the request names, in milliseconds, just before the model runs; what it
        raises ends the request. Raises RequestError when the request is at fault, NonFiniteError when the model is.
        """
        marks = [perf_counter()]
        request = self._parser.parse(body, now_us, self._new_id)
        if request.label is not None and request.label != self._label:
            raise RequestError(404, "No such label", [("/label", f"label: {request.label} is not served here")])
        marks.append(perf_counter())
        filled = self._filled(request)
        if check is not None:
            check(request.deadline_ms)
        marks.append(perf_counter())
        scores = self._scored(filled.batch, request)
        marks.append(perf_counter())
        ranked = self._ranked(request, scores, filled.unknown)
        marks.append(perf_counter())
        seconds = {stage: end - start for stage, (start, end) in zip(STAGES, pairwise(marks), strict=False)}
        timing_ms = {stage: round(1000 * spent, 3) for stage, spent in seconds.items()}
        lacks, ages = filled.degradation, filled.ages
        encoded = self._encoder.encode(request.request_id, ranked, lacks, ages, timing_ms, columnar=request.columnar)
        seconds["encode"] = perf_counter() - marks[-1]
        return RankResponse(request.request_id, encoded, request.count, lacks, ages, seconds)

    def scores(self, request: ParsedRequest) -> dict[str, np.ndarray]:
        """Every output of every candidate of a request, float32 [N], as `rank` has them; raises as it does."""
        return self._scored(self._filled(request).batch, request)

    def _scored(self, batch: RequestBatch, request: ParsedRequest) -> dict[str, np.ndarray]:
        try:
            return self.scorer.score(batch)
        except NonFiniteError:
            raise self._overflow(batch, request) from None

    def _overflow(self, batch: RequestBatch, request: ParsedRequest) -> RequestError:
        """Names the number that is too large for the model; NonFiniteError where there is none."""
        candidate = int(overflowing(self.scorer, batch).argmax())
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
        request = self._parser.parse(body, now_us, self._new_id)
        return self._row(request, *self._hydrated(request))

    def _filled(self, request: ParsedRequest) -> _Filled:
        if self._encoded_store is not None and (places := self._known(request)) is not None:
            user, items = places
            batch = self._encoded_store.batch(user, items, request.time)
            stale = self._stale(request, np.array([user]), items)
            reasons = (*(["pair_missing"] if self._pairs else []), *_stale_reason(stale))
            return _Filled(batch, Degradation(bool(reasons), reasons, 0, stale.items, "ok"), None, stale.ages)
        context, candidates = self._hydrated(request)
        batch = to_batch(self._row(request, context, candidates), self.bundle.spec, self.bundle.preprocessor.encoders)
        stale = self._stale(request, context.index, candidates.index)
        known = candidates.known
        unknown_N = None if known is None or known.all() else ~known
        return _Filled(batch, self._degradation(request, context, candidates, unknown_N, stale), unknown_N, stale.ages)

    def _stale(self, request: ParsedRequest, user: np.ndarray | None, items: np.ndarray | None) -> Staleness:
        sent = {"context": request.context, "candidates": request.candidates}
        return self._ages.of(request.time, sent, user, items)

    def _known(self, request: ParsedRequest) -> tuple[int, np.ndarray] | None:
        """The stored rows of the user and of the items of a request that sends only known ids; None for any other."""
        store = self.bundle.store
        if store.context is None or store.candidates is None:
            return None
        if request.context.keys() != {self._user} or request.candidates.keys() != {self._item}:
            return None
        user = store.context.lookup(request.context[str(self._user)].values)[0]
        items = store.candidates.lookup(request.candidates[str(self._item)].values)
        return None if user < 0 or (items < 0).any() else (int(user), items)

    def _ranked(
        self, request: ParsedRequest, scores: Mapping[str, np.ndarray], unknown_N: np.ndarray | None
    ) -> RankedCandidates:
        fused_N = self.scorer.fused(scores)
        top = order(fused_N, np.array([0, request.count]))[: request.top_k]
        positions = top.tolist()
        return RankedCandidates(
            ids=positions if request.items is None else [request.items[position] for position in positions],
            score=fused_N[top],
            tasks=np.stack(list(scores.values())).take(top, axis=1),
            unknown=None if unknown_N is None else unknown_N[top],
        )

    def _hydrated(self, request: ParsedRequest) -> tuple[HydratedRows, HydratedRows]:
        store = self.bundle.store
        context = store.hydrate("context", request.context, 1)
        return context, store.hydrate("candidates", request.candidates, request.count)

    def _row(self, request: ParsedRequest, context: HydratedRows, candidates: HydratedRows) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(
            [
                pa.array([request.request_id], pa.string()),
                pa.array([request.time], TIME),
                context.rows,
                pa.ListArray.from_arrays(pa.array([0, request.count], pa.int32()), candidates.rows),
            ],
            schema=self._schema,
        )

    def _degradation(
        self,
        request: ParsedRequest,
        context: HydratedRows,
        candidates: HydratedRows,
        unknown_N: np.ndarray | None,
        stale: Staleness,
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
        reasons += _stale_reason(stale)
        return Degradation(bool(reasons), reasons, 0 if unknown_N is None else int(unknown_N.sum()), stale.items, user)


def _stale_reason(stale: Staleness) -> list[str]:
    return ["stale_features"] if stale.user or stale.items else []


def _user(request: ParsedRequest, context: HydratedRows, key: str | None) -> str:
    if context.known is None or key is None:
        return "none"
    if context.known.all():
        return "ok"
    return "unknown" if key in request.context and request.context[key].values.null_count == 0 else "missing"
