"""One request, from the bytes of its body to the bytes of its answer. The HTTP app and `multigate rank` both call it.

    body -> Reader (columns) -> Store (hydrated) -> session-table row -> to_batch -> Scorer -> order -> Writer -> body

The session-table row in the middle is the one that batch scoring would read: same door, same scorer, same scores. A
request of known ids alone finds them encoded already (serving/online/encoded_store.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import numpy as np
import pyarrow as pa

from rec.data.session_table import TIME, field_type, schema, to_batch
from rec.request import RequestBatch
from rec.spec import Kept, Spec
from serving.bundle import Bundle
from serving.online.encoded_store import prepare
from serving.online.parse import Asked, Reader
from serving.online.respond import Degraded, Ranked, Writer
from serving.scorer import Scorer, order
from serving.store import Filled

STAGES = ("parse", "features", "infer", "fuse", "encode")
_WHOLE = Degraded(any=False, reasons=(), items_defaulted=0, user="ok")
REASONS = ("user_unknown", "user_missing", "item_unknown", "feature_missing")


@dataclass(frozen=True, slots=True)
class Answer:
    """A ranked answer and what its making cost: `seconds` by stage (STAGES)."""

    request_id: str
    body: bytes
    candidates: int
    degraded: Degraded
    seconds: Mapping[str, float]


class Ranker:
    """Answers requests with one bundle."""

    def __init__(self, bundle: Bundle, scorer: Scorer, *, make_id: Callable[[], str]) -> None:
        """`make_id` names requests that do not name themselves."""
        self._bundle = bundle
        self._scorer = scorer
        self._make_id = make_id
        self._reader = Reader(bundle.spec)
        self._writer = Writer(bundle, scorer.outputs)
        self._schema = schema(bundle.spec, labels=False)
        self._prepared = prepare(bundle)
        self._learnt = {side: _learnt(bundle.spec, side) for side, _ in bundle.spec.sides()}

    def answer(self, body: bytes, now_us: int) -> Answer:
        """The ranked answer to a request that arrived at `now_us` (microseconds since 1970 UTC).

        Raises RequestError when the request is at fault, NonFiniteError when the model is.
        """
        marks = [perf_counter()]
        asked = self._reader.read(body, now_us, self._make_id)
        marks.append(perf_counter())
        batch, degraded, unknown_N = self._batch(asked)
        marks.append(perf_counter())
        scores = self._scorer.score(batch)
        marks.append(perf_counter())
        ranked = self._ranked(asked, scores, unknown_N)
        marks.append(perf_counter())
        seconds = {stage: end - start for stage, (start, end) in zip(STAGES, pairwise(marks), strict=False)}
        timing_ms = {stage: round(1000 * spent, 3) for stage, spent in seconds.items()}
        encoded = self._writer.write(asked.request_id, ranked, degraded, timing_ms, columnar=asked.columnar)
        seconds["encode"] = perf_counter() - marks[-1]
        return Answer(asked.request_id, encoded, asked.count, degraded, seconds)

    def row(self, body: bytes, now_us: int) -> pa.RecordBatch:
        """The session-table row a request becomes, as batch scoring would read it."""
        return self._row(self._reader.read(body, now_us, self._make_id))[0]

    def _batch(self, asked: Asked) -> tuple[RequestBatch, Degraded, np.ndarray | None]:
        known = self._known(asked)
        if known is not None:
            return known, _WHOLE, None
        row, degraded, unknown_N = self._row(asked)
        return to_batch(row, self._bundle.spec, self._bundle.fitted.encoders), degraded, unknown_N

    def _known(self, asked: Asked) -> RequestBatch | None:
        """The batch of a request that sends nothing but ids the store knows."""
        keys, store = self._bundle.spec.keys, self._bundle.store
        if self._prepared is None or store.context is None or store.candidates is None:
            return None
        if asked.context.keys() != {keys.user} or asked.candidates.keys() != {keys.item}:
            return None
        user = store.context.find(asked.context[str(keys.user)].values)[0]
        items = store.candidates.find(asked.candidates[str(keys.item)].values)
        if user < 0 or (items < 0).any():
            return None
        return self._prepared.batch(user, items, asked.time)

    def _ranked(self, asked: Asked, scores: Mapping[str, np.ndarray], unknown_N: np.ndarray | None) -> Ranked:
        fused_N = self._scorer.fused(scores)
        top = order(fused_N, np.array([0, asked.count]))[: asked.top_k]
        positions = top.tolist()
        return Ranked(
            ids=positions if asked.items is None else [asked.items[position] for position in positions],
            score=fused_N[top],
            tasks=np.stack(list(scores.values())).take(top, axis=1),
            unknown=None if unknown_N is None else unknown_N[top],
        )

    def _row(self, asked: Asked) -> tuple[pa.RecordBatch, Degraded, np.ndarray | None]:
        store = self._bundle.store
        context = store.hydrate("context", asked.context, 1)
        candidates = store.hydrate("candidates", asked.candidates, asked.count)
        row = pa.RecordBatch.from_arrays(
            [
                pa.array([asked.request_id], pa.string()),
                pa.array([asked.time], TIME),
                context.rows,
                pa.ListArray.from_arrays(pa.array([0, asked.count], pa.int32()), candidates.rows),
            ],
            schema=self._schema,
        )
        unknown_N = None if candidates.known is None or candidates.known.all() else ~candidates.known
        return row, self._degraded(asked, context, candidates, unknown_N), unknown_N

    def _degraded(self, asked: Asked, context: Filled, candidates: Filled, unknown_N: np.ndarray | None) -> Degraded:
        user = _user(asked, context, self._bundle.spec.keys.user)
        reasons = [f"user_{user}"] if user in ("unknown", "missing") else []
        if unknown_N is not None:
            reasons.append("item_unknown")
        # without a store nothing stands in for a feature that the request leaves out
        absent = (context.known is None and self._learnt["context"] - set(asked.context)) or (
            candidates.known is None and asked.count and self._learnt["candidates"] - set(asked.candidates)
        )
        if absent:
            reasons.append("feature_missing")
        return Degraded(bool(reasons), reasons, 0 if unknown_N is None else int(unknown_N.sum()), user)


def _learnt(spec: Spec, side: str) -> set[str]:
    """Features of a side that the model reads and a request or the store must bring."""
    return {
        name
        for name, feature in dict(spec.sides())[side].items()
        if not isinstance(feature, Kept) and field_type(feature) is not None
    }


def _user(asked: Asked, context: Filled, key: str | None) -> str:
    if context.known is None or key is None:
        return "none"
    if context.known.all():
        return "ok"
    return "unknown" if key in asked.context and asked.context[key].values.null_count == 0 else "missing"
