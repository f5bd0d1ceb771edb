"""The synthetic shop as files, of any length: Parquet in order of time, drawn a file at a time in bounded memory.

    FOLDER/impressions/00000.parquet ...   about 2 million rows each
    FOLDER/users.parquet  items.parquet    a user for every 500 events, an item for every 2000
    FOLDER/shop.toml                       the features and tasks of specs/shop.toml, read from these files
    FOLDER/made.json                       what it was made from; a folder that says the same is taken as it is

The probabilities are those of features/sources/shop.py. The same number of events and seed give the same files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import CHECKOUT
from features.sources.shop import Options, Shop, impressions, opened, visits
from rec import spec as specs
from rec.atomic import read_json, whole_folder, write_bytes, write_json
from rec.progress import Progress

FILE = 2_000_000  # rows of a file, about
PER_USER, PER_ITEM = 500, 2000  # events
BYTES = 40  # of one event, about
UNREAD = ("p_buy_given_click",)  # columns of the files that the spec does not ask for
MORE = (
    'context.gap={ kind = "ids", make = "gaps", task = "click", last = 20 }',
    'context.pages={ kind = "number", make = "session_requests" }',
    'context.spent={ kind = "number", make = "session_seconds" }',
    'context.last_click={ kind = "number", make = "since", task = "click" }',
    'context.lately={ kind = "number", make = "rate", per = "user_id", task = "click", windows = ["1h", "1d", "7d"] }',
    'candidates.now={ kind = "number", make = "rate", per = "item_id", task = "click", windows = ["1h", "1d", "7d"] }',
    'candidates.taste={ kind = "number", make = "rate", per = ["user_id", "category"], task = "click" }',
    'candidates.met={ kind = "number", make = "count", per = ["user_id", "item_id"], window = "7d" }',
    'candidates.last_sold={ kind = "number", make = "since", per = "item_id", task = "buy" }',
)
DECAYED = (
    'context.lively={ kind = "number", make = "count", per = "user_id", half_life = "1d" }',
    'candidates.hot={ kind = "number", make = "rate", per = "item_id", task = "click", half_life = "6h" }',
    'candidates.coec={ kind = "number", make = "coec", per = "item_id", task = "click", windows = ["1d", "ever"] }',
    'candidates.expected={ kind = "number", make = "expected", per = "item_id", windows = ["1d"] }',
)
_FEWEST = 20  # users and items of the smallest shop
_PROBE = 2000  # sessions drawn to learn how many rows a session has
_REQUESTS = 1_000_000  # ids kept for the requests of one file
_THREADS = 2  # files drawn at once, about 700 MB each


def make(folder: Path, events: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Files of about so many events in `folder`, unless they are there: how many there are, and their bytes."""
    parameters = {"format": 1, "asked": events, "seed": seed}
    done = folder / "made.json"
    if done.exists() and parameters.items() <= read_json(done).items():
        return read_json(done)
    files = max(2, round(events / FILE))
    options = Options(users=max(_FEWEST, events // PER_USER), items=max(_FEWEST, events // PER_ITEM), seed=seed)
    shop = opened(options, np.random.default_rng(seed))
    sessions = round(events / _rows_per_session(options, shop) / files)
    progress.start(f"drawing a shop of {events:,} events", events)
    with whole_folder(folder) as beside:
        (beside / "impressions").mkdir()
        shop.users.write_parquet(beside / "users.parquet")
        shop.items.write_parquet(beside / "items.parquet")
        write_bytes(beside / "shop.toml", specs.dump(described()).encode())
        draw = partial(_file, beside / "impressions", options, shop, files=files, sessions=sessions)
        description = parameters | {"files": files, "events": _drawn(draw, files, progress)}
        description["bytes"] = sum(file.stat().st_size for file in beside.rglob("*.parquet"))
        write_json(beside / "made.json", description)
    return description


def described() -> specs.Spec:
    """The spec of specs/shop.toml, reading files; outcomes are known until the last timestamp in them."""
    source = {
        "kind": "impressions",
        "files": "impressions/*.parquet",
        "users": "users.parquet",
        "items": "items.parquet",
    }
    return specs.load(CHECKOUT / "specs" / "shop.toml").model_copy(update={"source": source, "logs": specs.LogRules()})


def shuffle(shop: Path, folder: Path, seed: int) -> int:
    """The same shop with its impressions in random order, in as many files; how many there are."""
    files = sorted((shop / "impressions").glob("*.parquet"))
    rows = pl.concat([pl.read_parquet(file) for file in files])
    order = np.random.default_rng([seed, 0]).permutation(len(rows))
    (folder / "impressions").mkdir(parents=True)
    for file, places in zip(files, np.array_split(order, len(files)), strict=True):
        rows[places].write_parquet(folder / "impressions" / file.name, compression="snappy")
    for name in ("users.parquet", "items.parquet", "shop.toml"):
        shutil.copy(shop / name, folder / name)
    return len(rows)


def _drawn(draw: Callable[[int], int], files: int, progress: Progress) -> int:
    """The rows of all files, a few of which are drawn at a time."""
    rows = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        for done in as_completed([threads.submit(draw, number) for number in range(files)]):
            progress.advance(done.result())
            rows += done.result()
    return rows


def _file(folder: Path, options: Options, shop: Shop, number: int, *, files: int, sessions: int) -> int:
    """Write the sessions that begin in one stretch of time; they end in it but for the last few, as logs are."""
    rng = np.random.default_rng([options.seed, number + 1])
    stretch = (number / files, (number + 1) / files)
    requests = visits(options, shop, stretch, sessions, rng)
    rows = impressions(options, shop, requests, rng, before=number * _REQUESTS).sort("time", maintain_order=True)
    rows.write_parquet(folder / f"{number:05d}.parquet", compression="snappy")
    return len(rows)


def _rows_per_session(options: Options, shop: Shop) -> float:
    """Estimated, because a request shows an item once, and how often it would show one again depends on the shop."""
    rng = np.random.default_rng([options.seed, 0])
    return len(impressions(options, shop, visits(options, shop, (0.0, 1.0), _PROBE, rng), rng)) / _PROBE
