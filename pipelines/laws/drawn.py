"""Small random specs, and session tables drawn for them from a seed, to test a model without logs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from rec.data.session_table import schema
from rec.spec import Spec
from rec.spec.tasks import in_order

REQUESTS = 6
_WORDS = ["a", "b", "c", "d"]
_CHAIN = """
name = "a-chain-of-tasks"
[keys]
time = "t"
[context]
user = { kind = "id", dim = 4 }
city = { kind = "id", values = "string", dim = 4 }
age = { kind = "number" }
past = { kind = "ids", table = "item", last = 3 }
[candidates]
item = { kind = "id", dim = 8 }
price = { kind = "number", scale = "quantile", buckets = 4, dim = 4 }
picture = { kind = "vector", size = 3 }
[tasks.click]
label = "click"
[tasks.buy]
label = "buy"
given = "click"
[tasks.refund]
label = "refund"
given = "buy"
[tasks.seconds]
label = "seconds"
given = "click"
predict = "log"
"""
_ONE = """
name = "one-task-no-context"
[candidates]
item = { kind = "id", dim = 4 }
price = { kind = "number" }
[tasks.click]
label = "click"
"""
_APART = """
name = "tasks-apart"
[context]
user = { kind = "id", dim = 4 }
[candidates]
item = { kind = "id", dim = 4 }
[tasks.like]
label = "like"
[tasks.share]
label = "share"
[tasks.follow]
label = "follow"
"""
SPECS = (_CHAIN, _ONE, _APART)


def rows(spec: Spec, seed: int) -> pa.RecordBatch:
    """Random session-table rows of a spec: REQUESTS requests of one to four candidates, with missing values."""
    rng = np.random.default_rng(seed)
    shape = schema(spec)
    candidate = shape.field("candidates").type.value_type
    drawn = []
    for index in range(REQUESTS):
        context = {field.name: _value(rng, field.type) for field in shape.field("context").type}
        candidates = [_candidate(rng, spec, candidate) for _ in range(int(rng.integers(1, 5)))]
        drawn.append({"request_id": f"r{index}", "time": index * 3600, "context": context, "candidates": candidates})
    return pa.RecordBatch.from_pylist(drawn, schema=shape)


def _candidate(rng: np.random.Generator, spec: Spec, shape: pa.StructType) -> dict[str, Any]:
    candidate = {field.name: _value(rng, field.type) for field in shape if field.name not in spec.tasks}
    for name in in_order(spec.tasks):
        task = spec.tasks[name]
        possible = task.given is None or candidate[task.given] == 1
        label = 1 if task.predict == "event" else float(rng.exponential(30))
        candidate[name] = label if possible and rng.random() < 0.7 else 0
    return candidate


def _value(rng: np.random.Generator, kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):  # the vector of a picture has three numbers, a history up to five ids
        count = 3 if pa.types.is_floating(kind.value_type) else int(rng.integers(0, 6))
        return [_known(rng, kind.value_type) for _ in range(count)]
    return None if rng.random() < 0.1 else _known(rng, kind)


def _known(rng: np.random.Generator, kind: pa.DataType) -> Any:
    if pa.types.is_floating(kind):
        return float(rng.normal())
    return str(rng.choice(_WORDS)) if pa.types.is_string(kind) else int(rng.integers(1, 9))
