"""Hypothesis: any spec within reason, and any session table of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from rec.data import encoders as encode
from rec.data import label_bins, sketch
from rec.data.encoders import Buckets, Encoder, Vocabulary
from rec.data.preprocessor import Preprocessor, Scale
from rec.data.session_table import field_type, schema, to_batch
from rec.request import RequestBatch
from rec.spec import AnyFeature, Ids, Number, Spec, Vector, parse
from rec.spec.features import COMPARED
from rec.spec.tasks import events, in_order, regression_tasks

WORDS = ["a", "b", "c", "", "\u00e9", "a b"]
AMOUNTS = np.float32([0.0, 0.0, 0.5, 1.0, 3.0, 8.0, 20.0, 20.0, 100.0])


def encoders(spec: Spec) -> dict[str, Encoder]:
    """A vocabulary of 1..5 or a..c, hashing, or four buckets, for every table."""
    encoders_of = encode.stateless(spec)
    for name, feature in spec.tables().items():
        if isinstance(feature, Number):
            encoders_of[name] = Buckets([-1.0, 0.0, 2.5])
        elif encode.has_vocabulary(feature):
            encoders_of[name] = Vocabulary(pa.array([1, 2, 3, 4, 5] if feature.values == "int" else ["a", "b", "c"]))
    return encoders_of


def preprocessor(spec: Spec) -> Preprocessor:
    """Those encoders, a scale for every number, a rate for every event, and a target for every quantity."""
    numbers = {name: f for _, side in spec.sides() for name, f in side.items() if isinstance(f, Number)}
    scales = {name: Scale(0.5, 2.0, f.scale == "log") for name, f in numbers.items() if f.scale != "quantile"}
    bins = {name: label_bins.fit(task, sketch.of(AMOUNTS)) for name, task in regression_tasks(spec.tasks).items()}
    return Preprocessor(encoders(spec), scales, dict.fromkeys(events(spec.tasks), 0.3), bins)


def batch(spec: Spec, rows: list[dict]) -> RequestBatch:
    """Python rows as a numpy batch."""
    return to_batch(pa.RecordBatch.from_pylist(rows, schema=schema(spec)), spec, encoders(spec))


@st.composite
def specs(draw: st.DrawFn, model: str = "mmoe") -> Spec:
    """Odd widths, one to four tasks of any kind in any tree, a side without features, shared tables, lists, crosses."""
    lines = ['name = "any"', '[keys]\ntime = "t"', "[context]"]
    shared = draw(st.booleans())
    context = [f"c{i} = {_feature(draw)}" for i in range(draw(st.integers(0, 3)))]
    lines += context
    if shared:
        lines.append('seen = { kind = "ids", table = "item", last = 3 }')
    lines.append("[candidates]")
    lines.append(f'item = {{ kind = "id", dim = {draw(st.sampled_from([4, 8]))} }}')
    candidates = [f"d{i} = {_feature(draw)}" for i in range(draw(st.integers(0, 3)))]
    lines += candidates + _compared(draw, candidates)
    if draw(st.booleans()):
        lines.insert(lines.index("[candidates]"), 'size = { kind = "number", make = "size" }')
    ids = [line.split()[0] for line in (*context, *candidates) if 'kind = "id"' in line]
    if ids and draw(st.booleans()):
        many = ", ".join(f'"{name}"' for name in draw(st.permutations(["item", *ids])))
        lines.append(f'crossed = {{ kind = "id", make = "cross", of = [{many}], rows = 9, dim = 4 }}')
    happenings: list[str] = []
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["event", "event", "event", "log", "ordinal", "quantile"]))
        lines += [f"[tasks.t{i}]", f'label = "t{i}"', f'predict = "{kind}"']
        parent = draw(st.sampled_from(["", *happenings]))
        if parent:
            lines.append(f'given = "{parent}"')
        if kind == "event":
            happenings.append(f"t{i}")
    lines += ["[model]", f'name = "{model}"']
    return parse("\n".join(lines))


def _compared(draw: st.DrawFn, candidates: list[str]) -> list[str]:
    """Numbers among those of their request, some in buckets."""
    numbers = [line.split()[0] for line in candidates if 'kind = "number"' in line]
    lines = []
    for name in numbers if draw(st.booleans()) else []:
        make = draw(st.sampled_from(COMPARED))
        scale = draw(st.sampled_from(["standard", "none", "quantile"]))
        lines.append(f'n_{name} = {{ kind = "number", make = "{make}", of = "{name}", scale = "{scale}" }}')
    return lines


def _feature(draw: st.DrawFn) -> str:
    dim, last = draw(st.sampled_from([4, 12])), draw(st.integers(1, 4))
    return draw(
        st.sampled_from(
            [
                f'{{ kind = "id", dim = {dim} }}',
                f'{{ kind = "id", values = "string", dim = {dim}, encode = "hash", rows = 7 }}',
                f'{{ kind = "ids", dim = {dim}, last = {last} }}',
                f'{{ kind = "ids", values = "string", dim = {dim}, last = {last} }}',
                '{ kind = "number", scale = "log" }',
                '{ kind = "number" }',
                '{ kind = "id", make = "hour", dim = 4 }',
                f'{{ kind = "number", scale = "quantile", dim = {dim} }}',
                f'{{ kind = "number", make = "age", scale = "quantile", dim = {dim} }}',
                f'{{ kind = "vector", size = {last} }}',
                '{ kind = "kept", values = "string" }',
            ]
        )
    )


@st.composite
def rows(draw: st.DrawFn, spec: Spec, *, min_candidates: int = 0) -> list[dict]:
    """Session-table rows as Python objects: empty requests, one candidate, missing values, long lists."""
    return draw(st.lists(_row(spec, min_candidates), min_size=1, max_size=4))


@st.composite
def _row(draw: st.DrawFn, spec: Spec, min_candidates: int) -> dict:
    count = draw(st.integers(min_candidates, 4))
    candidates = []
    for _ in range(count):
        candidate = {name: draw(_value(f)) for name, f in stored(spec.candidates)}
        for name in in_order(spec.tasks):
            parent = spec.tasks[name].given
            possible = parent is None or candidate[parent] == 1
            if spec.tasks[name].predict == "event":
                candidate[name] = draw(st.sampled_from([0, 1, -1] if possible else [0, -1]))
            else:
                candidate[name] = draw(st.sampled_from([0.0, 0.5, 7.25, 300.0, None] if possible else [0.0, None]))
        candidates.append(candidate)
    return {
        "request_id": draw(st.sampled_from(["r", "s", None])),
        "time": draw(st.integers(0, 10**15)),
        "context": {name: draw(_value(f)) for name, f in stored(spec.context)},
        "candidates": candidates,
    }


def stored(features: Mapping[str, AnyFeature]) -> list[tuple[str, AnyFeature]]:
    """The features that a session table has a column of."""
    return [(name, feature) for name, feature in features.items() if field_type(feature) is not None]


def _value(feature: AnyFeature) -> st.SearchStrategy:
    number = st.floats(width=32, min_value=-10, max_value=10)
    if isinstance(feature, Number):
        return st.none() | (st.integers(0, 10**15) if feature.make == "age" else number)
    if isinstance(feature, Vector):
        return st.none() | st.lists(st.none() | number, min_size=feature.size, max_size=feature.size)
    value = st.integers(-3, 9) if feature.values == "int" else st.sampled_from(WORDS)
    return st.none() | (st.lists(value, max_size=6) if isinstance(feature, Ids) else value)
