"""`multigate bench online`: equality of the feature store's rows with offline ones, and latency.

The first three quarters of a synthetic shop's log are built and leave a state; the rest is fed as a stream. Requests
are hydrated at their timestamps, and every row is compared with that of a build of the whole log. The remaining log is
fed in batches. Then requests of known users for random items are timed: they send ids, the device and the section, and
the clock advances a second per request.

    shop    the features of specs/shop.toml
    more    windows, pairs of keys, last timestamps, gaps and sessions besides
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks import CHECKOUT
from benchmarks.speed.shop_files import MORE
from features import sources
from features.logs.logs import Logs
from features.pipeline import build
from features.pipeline.build import BuildOptions
from features.store import state
from features.store.store import FeatureStore
from features.sweep.sweep import Sweep
from rec import spec as specs
from rec.data import splits
from rec.data.session_table import schema
from rec.progress import Progress, Silent
from rec.spec import Spec

SIZES = (50, 200, 500, 1000)
_SPLIT = 0.75  # of the log is built, the rest is fed
_BATCH, _MANY = 1000, 100_000  # rows fed at once where nobody asks in between
_LONG = 40 * 86_400_000_000  # microseconds until all windows have closed
_SENT = {"context": ("device", "section"), "candidates": ("position", "p_click", "p_buy")}
_WARM = 20


@dataclass(frozen=True)
class Timed:
    """Milliseconds to make the row of a request of so many candidates."""

    features: str
    candidates: int
    median_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Fed:
    """Events per second, fed so many at once and counted: as rows of the log, or as keys and outcomes to the sweep."""

    features: str
    into: str
    at_once: int
    events_per_second: int


@dataclass(frozen=True)
class Replayed:
    """Requests whose rows were compared with those of a build of the whole log, and what the store took to keep up."""

    features: str
    count: int
    requests: int
    equal: int
    load_seconds: float
    rows_fed_per_second: float


def bench(
    *, users: int, items: int, requests: int, sizes: Sequence[int], repeats: int, progress: Progress
) -> dict[str, Any]:
    """A shop of so many users and items; at most `requests` of it are compared, `repeats` timed for each of `sizes`."""
    replays, rows, speeds = [], [], []
    for name, more in (("shop", ()), ("more", MORE)):
        spec = described(more, users=users, items=items)
        with tempfile.TemporaryDirectory(prefix="multigate-bench-") as folder:
            progress.start(f"bench online: {name}", requests)
            store, replayed = replay(spec, Path(folder), name=name, requests=requests, progress=progress)
            replays.append(replayed)
            rows += [timed(store, name, size, repeats) for size in sizes]
            speeds += fed(spec, name)
    return {"users": users, "items": items, "replayed": replays, "fed": speeds, "hydrated": rows}


def described(more: Sequence[str], *, users: int, items: int) -> Spec:
    """The spec of specs/shop.toml with more features, for a shop of some size."""
    return specs.load(CHECKOUT / "specs" / "shop.toml", [*more, f"source.users={users}", f"source.items={items}"])


def replay(spec: Spec, folder: Path, *, name: str, requests: int, progress: Progress) -> tuple[FeatureStore, Replayed]:
    """A store that was built on the beginning of a shop's log and fed the rest, and how its rows compare."""
    logs = sources.read(spec, folder)
    shown = pl.concat([piece.frame for piece in logs.impressions]).collect().sort("time", maintain_order=True)
    cut = shown["time"][int(_SPLIT * len(shown))]
    build.build(spec, logs, folder / "whole", progress=Silent(), how=BuildOptions(engine="serial", refusing=False))
    early = Logs.whole(
        shown.filter(pl.col("time") < cut).lazy(), *(side and side.frame for side in (logs.users, logs.items))
    )
    how = BuildOptions(engine="serial", snapshot=True, refusing=False)
    build.build(spec, early, folder / "early", progress=Silent(), how=how)
    began = time.perf_counter()
    store = state.load(spec, folder / "early" / "state")
    loaded = time.perf_counter() - began
    equal, compared = 0, _later(spec, folder / "whole", store.clock)[:requests]
    late = shown.filter(pl.col("time") >= cut)
    moments, fed = late["time"].dt.timestamp("us").to_numpy(), 0
    for row in compared:
        until = int(np.searchsorted(moments, _moment(row)))
        store.feed(late[fed:until])
        fed = until
        equal += answered(store, row).equals(row)
        progress.advance(1)
    began = time.perf_counter()
    for low in range(fed, len(late), _BATCH):
        store.feed(late[low : low + _BATCH])
    feeding = time.perf_counter() - began
    features = len(spec.context) + len(spec.candidates)
    rate = round((len(late) - fed) / feeding)
    return store, Replayed(name, features, len(compared), equal, round(loaded, 3), rate)


def fed(spec: Spec, name: str) -> list[Fed]:
    """A whole shop's log fed to a store and to its sweep, which then count all of it, at different numbers at once."""
    logs = sources.read(spec, Path())
    rows = pl.concat([piece.frame for piece in logs.impressions]).collect().sort("time", maintain_order=True)
    speeds = []
    for size in (_BATCH, _MANY):
        store, began = state.empty(spec, logs), time.perf_counter()
        for low in range(0, len(rows), size):
            store.feed(rows[low : low + size])
        queue = [column.copy() for column in store.sweep.queue.saved()]
        store.advance(int(queue[0][-1]) + _LONG)
        speeds.append(Fed(name, "store", size, round(len(rows) / (time.perf_counter() - began))))
    for size in (1, _MANY):
        store = state.empty(spec, logs)
        store.feed(rows)  # its keys have rows; nothing is counted, since the clock stands
        store.sweep.queue.restore([column[:0] for column in queue])
        speeds.append(Fed(name, "sweep", size, _swept(store.sweep, queue, size)))
    return speeds


def _swept(sweep: Sweep, columns: Sequence[np.ndarray], size: int) -> int:
    """Events per second of a log, as columns of a queue, fed to a sweep that counts them."""
    queue, count = sweep.queue, len(columns[0])
    cuts = np.cumsum([len(queue.columns), len(queue.keys)])
    parts = columns[: cuts[0]], columns[cuts[0] : cuts[1]], columns[cuts[1] :]
    wide, rows, labels = (np.array(part) for part in parts)
    if size == 1:
        single = [np.ascontiguousarray(block.T) for block in (wide, rows, labels)]
        began = time.perf_counter()
        for event in zip(*single, strict=True):
            sweep.feed_one(*event)
    else:
        began = time.perf_counter()
        for low in range(0, count, size):
            part = slice(low, low + size)
            named = [dict(zip(n, b[:, part], strict=True)) for n, b in ((queue.columns, wide), (queue.keys, rows))]
            queue.add(named[0], named[1], labels[:, part])
    sweep.advance(int(wide[0, -1]) + _LONG)
    return round(count / (time.perf_counter() - began))


def answered(store: FeatureStore, row: pa.RecordBatch) -> pa.RecordBatch:
    """What a store says of the request of a row that was built."""
    context = row.column("context")[0].as_py()
    candidates = row.column("candidates").flatten()
    return store.hydrate(
        context["user_id"],
        candidates.field("item_id").to_pylist(),
        _moment(row),
        request_id=row.column("request_id")[0].as_py(),
        context={name: context[name] for name in _SENT["context"]},
        candidates={name: candidates.field(name).to_pylist() for name in _SENT["candidates"]},
    )


def timed(store: FeatureStore, name: str, size: int, repeats: int) -> Timed:
    """Requests of known users for random known items, from the store's clock on."""
    draw = np.random.default_rng(size)
    users, items = (list(store.latest[table].row_of) for table in ("users", "items"))
    seconds = []
    gc.collect()
    gc.freeze()  # as a service does once it has loaded the store: no collection looks through all of it
    for _ in range(_WARM + repeats):
        user = users[int(draw.integers(len(users)))]
        candidates = [items[place] for place in draw.choice(len(items), size, replace=size > len(items)).tolist()]
        time_us = store.clock + timedelta(seconds=1) // timedelta(microseconds=1)
        began = time.perf_counter()
        store.hydrate(user, candidates, time_us, context={"device": "phone", "section": "tea"})
        seconds.append(time.perf_counter() - began)
    gc.unfreeze()
    milliseconds = 1000 * np.array(seconds[_WARM:])
    median, p99 = np.median(milliseconds), np.quantile(milliseconds, 0.99)
    return Timed(name, size, round(float(median), 3), round(float(p99), 3))


def _later(spec: Spec, data: Path, clock: int) -> list[pa.RecordBatch]:
    """The requests of a build from a timestamp on, in order, each a row without labels."""
    rows = pa.Table.from_batches([batch for split in splits.SPLITS for batch in splits.read(data, split, spec)])
    whole = rows.sort_by("time").combine_chunks().to_batches()[0]
    shape = schema(spec, labels=False)
    lists = whole.column("candidates")
    names = [field.name for field in shape.field("candidates").type.value_type]
    flat: Mapping[str, pa.Array] = {name: lists.values.field(name) for name in names}
    structs = pa.StructArray.from_arrays(list(flat.values()), fields=list(shape.field("candidates").type.value_type))
    bare = pa.ListArray.from_arrays(lists.offsets, structs, type=shape.field("candidates").type)
    columns = [*(whole.column(name) for name in ("request_id", "time", "context")), bare]
    rows = pa.RecordBatch.from_arrays(columns, schema=shape)
    first = int(np.searchsorted(whole.column("time").cast(pa.int64()).to_numpy(), clock))
    return [rows.slice(place, 1) for place in range(first, len(rows))]


def _moment(row: pa.RecordBatch) -> int:
    return row.column("time").cast(pa.int64())[0].as_py()
