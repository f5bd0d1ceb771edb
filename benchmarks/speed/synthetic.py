"""Synthetic data of the benchmarks: an MMoE of fixed size over random ids, with a learnable signal.

20 id features x 16 (12 on the context, 8 on the candidate), 8 experts 256-128, 3 tasks, as in DESIGN.md's own trial.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from rec.atomic import inventory, write_bytes, write_json
from rec.data import arrow_file, splits
from rec.data.encoders import Hash
from rec.data.preprocessor import Preprocessor
from rec.data.session_table import TIME, schema, side_fields, to_rows
from rec.data.stored_rows import AS_OF, KEY, SEEN
from rec.request import RequestBatch
from rec.spec import Id, Ids, Spec, dump, parse
from rec.spec.tasks import in_order

CONTEXT, CANDIDATE, DIM = 12, 8, 16


def spec(rows: int, *, batch: int = 4096) -> Spec:
    """The bench's spec: every id hashed into a table of `rows`."""

    def side(letter: str, count: int, key: str) -> str:
        names = [key, *(f"{letter}{i}" for i in range(1, count))]
        return "\n".join(f'{name} = {{ kind = "id", encode = "hash", rows = {rows}, dim = {DIM} }}' for name in names)

    return parse(f"""
name = "bench"
[keys]
user = "user_id"
item = "item_id"
[split]
column = "split"
[context]
{side("u", CONTEXT, "user_id")}
[candidates]
{side("i", CANDIDATE, "item_id")}
[tasks.click]
label = "click"
[tasks.like]
label = "like"
[tasks.buy]
label = "buy"
given = "click"
[model]
name = "mmoe"
experts = 8
expert_widths = [256, 128]
tower_widths = [64]
[train]
batch = {batch}
lr = 0.001
epochs = 1
device = "cpu"
""")


def preprocessor(described: Spec) -> Preprocessor:
    """Hash encoders for every table, no numbers to scale, and events about as rare as they are drawn."""
    encoders = {
        name: Hash(feature.rows) for name, feature in described.tables().items() if isinstance(feature, Id | Ids)
    }
    return Preprocessor(encoders, {}, dict.fromkeys(described.tasks, 0.2))


def batch(described: Spec, *, rows: int, candidates: int, per_request: int, seed: int) -> RequestBatch:
    """A batch of tensors with random ids and labels."""
    draw = torch.Generator().manual_seed(seed)
    requests = candidates // per_request

    def ids(names: list[str], count: int) -> dict[str, torch.Tensor]:
        return {name: torch.randint(1, rows, (count,), generator=draw) for name in names}

    labels = {n: (torch.rand(candidates, generator=draw) < 0.2).to(torch.int8) for n in in_order(described.tasks)}
    return RequestBatch(
        size=requests,
        context=ids(list(described.context), requests),
        candidates=ids(list(described.candidates), candidates),
        owner=torch.arange(candidates) // per_request,
        labels=labels,
    )


def write_data(
    described: Spec, out: Path, *, users: int, items: int, requests: int, per_request: int, seed: int
) -> None:
    """Session tables, hashing and a store of users and items, as `multigate features` would leave them.

    A label's odds depend on parities of ids, so that a short training spreads the scores.
    """
    draw = np.random.default_rng(seed)
    people = _side(list(described.context), users, draw)
    items_side = _side(list(described.candidates), items, draw)
    user, item = draw.integers(0, users, requests), draw.integers(0, items, requests * per_request)
    context = {name: column.take(pa.array(user)) for name, column in people.items()}
    candidates = {name: column.take(pa.array(item)) for name, column in items_side.items()}
    even = (context["u1"].to_numpy() % 2).repeat(per_request) == candidates["i1"].to_numpy() % 2
    for name in in_order(described.tasks):
        labels = draw.random(len(item)) < np.where(even, 0.4, 0.1)
        if name == "buy":
            labels &= candidates["click"].to_numpy() == 1
        candidates[name] = pa.array(labels.astype(np.int8))
    shape = schema(described)
    rows = to_rows(
        shape,
        request_id=pa.array([f"r{i}" for i in range(requests)]),
        time=pa.array(np.zeros(requests, np.int64)).cast(shape.field("time").type),
        context=context,
        candidates=candidates,
        offsets=np.arange(requests + 1) * per_request,
    )
    for split in splits.SPLITS:
        (out / split).mkdir(parents=True)
        splits.write(out / split / "part-00000.arrow", [rows if split == "train" else rows.slice(0, 200)], shape)
    preprocessor(described).save(out / "fitted")
    write_bytes(out / "spec.toml", dump(described).encode())
    _store(described, out / "store", people, items_side)
    write_json(out / "manifest.json", {"format": 1, "name": described.name, "files": inventory(out)})


def _side(names: list[str], count: int, draw: np.random.Generator) -> dict[str, pa.Array]:
    """One row per user or item: its own id first, then random attributes."""
    attributes = {name: pa.array(draw.integers(1, 1 << 40, count)) for name in names[1:]}
    return {names[0]: pa.array(np.arange(count)), **attributes}


def _store(described: Spec, folder: Path, people: dict[str, pa.Array], items: dict[str, pa.Array]) -> None:
    folder.mkdir()
    for side, features, columns in (
        ("context", described.context, people),
        ("candidates", described.candidates, items),
    ):
        key = next(iter(columns.values()))
        moments = pa.array(np.zeros(len(key), np.int64)).cast(TIME)
        of_features = side_fields(features)
        fields = [pa.field(KEY, key.type), pa.field(AS_OF, TIME), pa.field(SEEN, TIME), *of_features]
        table = pa.table([key, moments, moments, *(columns[f.name] for f in of_features)], schema=pa.schema(fields))
        arrow_file.write(folder / f"{side}.arrow", table)
