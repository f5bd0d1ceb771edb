"""The same candidates twice: session tables for multigate, flat Parquet rows for libraries that know no requests.

The flat rows hold rows of embedding tables, so that those libraries need not look ids up. Four columns of a thousand
values each decide a label's odds, and sixteen, as large as their tables, are noise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.speed import synthetic
from rec.atomic import write_bytes, write_json
from rec.data import splits
from rec.data.encoders import Hash
from rec.data.session_table import schema, to_rows
from rec.spec import Spec, dump
from rec.spec.tasks import in_order

TELLING = ("u1", "u2", "i1", "i2")  # columns that a label depends on
_VALUES = 1000  # of each of them
_EFFECT = 0.7  # deviation of a value's effect on the logit
_BLOCK = 4096  # requests of a record batch, at most


def write(described: Spec, out: Path, *, rows: int, candidates: int, held_out: int, per_request: int) -> None:
    """`train` and `validation` session tables, and `train.parquet` and `validation.parquet`, in `out`."""
    draw = np.random.default_rng([rows, per_request])
    effects = {name: draw.normal(0.0, _EFFECT, _VALUES) for name in TELLING}
    for split, count in (("train", candidates), ("validation", held_out), ("test", per_request)):
        _write(described, out, split, requests=max(1, count // per_request), per=per_request, draw=draw, of=effects)
    synthetic.preprocessor(described).save(out / "fitted")
    write_bytes(out / "spec.toml", dump(described).encode())
    write_json(out / "manifest.json", {"format": 1, "name": described.name, "files": {}})


def _write(
    described: Spec,
    out: Path,
    split: str,
    *,
    requests: int,
    per: int,
    draw: np.random.Generator,
    of: dict[str, np.ndarray],
) -> None:
    tables = described.tables()
    rows = {name: getattr(tables[name], "rows", 1) for name in (*described.context, *described.candidates)}

    def ids(name: str, count: int) -> np.ndarray:
        return draw.integers(0, _VALUES if name in of else 4 * rows[name], count)

    context = {name: ids(name, requests) for name in described.context}
    candidate = {name: ids(name, requests * per) for name in described.candidates}
    flat = {name: x.repeat(per) for name, x in context.items()} | candidate
    logit = sum(of[name][flat[name]] for name in TELLING) - 1.0
    click = draw.random(requests * per) < 1 / (1 + np.exp(-logit))
    labels = {
        "click": click,
        "like": draw.random(len(click)) < 1 / (1 + np.exp(1.0 - logit)),
        "buy": click & (draw.random(len(click)) < 1 / (1 + np.exp(-logit))),
    }
    encoded = {name: Hash(rows[name])(pa.array(x)) for name, x in flat.items()}
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(encoded | {n: x.astype(np.int8) for n, x in labels.items()}), out / f"{split}.parquet")
    shape = schema(described)
    side = {name: pa.array(x) for name, x in candidate.items()}
    side |= {name: pa.array(labels[name].astype(np.int8)) for name in in_order(described.tasks)}
    table = to_rows(
        shape,
        request_id=pa.array([f"{split}{i}" for i in range(requests)]),
        time=pa.array(np.zeros(requests, np.int64)).cast(shape.field("time").type),
        context={name: pa.array(x) for name, x in context.items()},
        candidates=side,
        offsets=np.arange(requests + 1) * per,
    )
    (out / split).mkdir()
    blocks = [table.slice(start, _BLOCK) for start in range(0, requests, _BLOCK)]
    splits.write(out / split / "part-00000.arrow", blocks, shape)
