"""What `multigate bench features` measures, each in a process of its own: the pipeline, the floor, peers, the drawing.

python -m benchmarks.speed.worker JOB.json

The clock runs from when everything is imported, the runtime of the pipeline's compiler included; what starting costs is
in the seconds of the whole process.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rec.atomic import read_json, write_json
from rec.memory import keep_polars_memory, uncollected

SMALL = 2000  # events, to compile with


class Stages:
    """Seconds by stage, as reported to a Progress."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        self._clock, self._began, self._what = clock, clock(), "opening and checking"
        self.seconds: dict[str, float] = {}

    def start(self, what: str, total: int | None = None, unit: str = "") -> None:  # noqa: ARG002
        """A stretch begins, and another ends."""
        self.end()
        self._what = what

    def advance(self, units: int, **figures: float) -> None:
        """Nothing is counted."""

    def say(self, line: str) -> None:
        """For the log, where something fails later."""
        print(line)  # noqa: T201

    def end(self) -> None:
        """The last stretch ends."""
        now = self._clock()
        if self._what:
            self.seconds[self._what] = self.seconds.get(self._what, 0.0) + now - self._began
        self._began, self._what = now, ""


def shop(job: dict[str, Any]) -> dict[str, Any]:
    """Draw the files."""
    from benchmarks.speed import shop_files

    return shop_files.make(Path(job["shop"]), job["events"], job["seed"], Stages(time.perf_counter))


def features(job: dict[str, Any]) -> dict[str, Any]:
    """`multigate features`, with how long each of its stretches took."""
    import pyarrow as pa

    from pipelines.cli import commands

    with uncollected():  # as the command does; before the clock runs, as the peers import theirs
        import features.pipeline.build  # noqa: F401
        from features.sweep.key_rows import load_compiled

    load_compiled()  # it imports some 200 modules
    pa.array([0.0], from_pandas=True)  # where pandas is installed, Arrow imports it for the first array
    stages = Stages(time.perf_counter)
    began = time.perf_counter()
    commands.features(Path(job["shop"]) / "shop.toml", job.get("more", ()), Path(job["out"]), stages)
    seconds = time.perf_counter() - began
    stages.end()
    return {"seconds": seconds, "stages": stages.seconds}


def floor(job: dict[str, Any]) -> dict[str, Any]:
    """As many bytes read and written."""
    from benchmarks.speed import io_floor

    began = time.perf_counter()
    copied = io_floor.copy(Path(job["shop"]), Path(job["out"]), job["sizes"])
    return {"seconds": time.perf_counter() - began, **copied}


def more(job: dict[str, Any]) -> dict[str, Any]:
    """`multigate features` with a longer list of features."""
    from benchmarks.speed import shop_files

    return features({**job, "more": shop_files.MORE})


def decayed(job: dict[str, Any]) -> dict[str, Any]:
    """`multigate features` with counts that decay, and expected clicks."""
    from benchmarks.speed import shop_files

    return features({**job, "more": shop_files.DECAYED})


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """What is done once: the networks of the specs are known to be valid, and the loops they need are compiled."""
    from benchmarks.speed import shop_files
    from pipelines import valid_networks, validate
    from rec import spec as specs

    small = Path(job["out"])
    rows = shop_files.make(small, SMALL, 0, Stages(time.perf_counter))["events"]
    for number, more in enumerate(((), shop_files.MORE, shop_files.DECAYED)):
        spec = Path(job["shop"]) / "shop.toml"
        if not valid_networks.known(specs.load(spec, more)):  # of another size, or an earlier run
            validate.load(spec, more)
        features({"shop": str(small), "out": str(small / f"{number}"), "more": more})
    return {"rows": rows}


def shuffle(job: dict[str, Any]) -> dict[str, Any]:
    """The shop's impressions in random order."""
    from benchmarks.speed import shop_files

    return {"rows": shop_files.shuffle(Path(job["shop"]), Path(job["out"]), job["seed"])}


def polars(job: dict[str, Any]) -> dict[str, Any]:
    """The same features in polars."""
    from benchmarks.speed import polars_baseline

    began = time.perf_counter()
    rows = polars_baseline.features(Path(job["shop"]), Path(job["out"]))
    return {"seconds": time.perf_counter() - began, "rows": rows}


def duckdb(job: dict[str, Any]) -> dict[str, Any]:
    """The same features in DuckDB."""
    from benchmarks.speed import duckdb_baseline

    began = time.perf_counter()
    rows = duckdb_baseline.features(Path(job["shop"]), Path(job["out"]))
    return {"seconds": time.perf_counter() - began, "rows": rows}


def pandas(job: dict[str, Any]) -> dict[str, Any]:
    """The same features in pandas."""
    from benchmarks.speed import pandas_baseline

    began = time.perf_counter()
    rows = pandas_baseline.features(Path(job["shop"]), Path(job["out"]))
    return {"seconds": time.perf_counter() - began, "rows": rows}


WORK = {
    "shop": shop,
    "prepare": prepare,
    "shuffle": shuffle,
    "features": features,
    "first": features,
    "more": more,
    "decayed": decayed,
    "shuffled": features,
    "floor": floor,
    "polars": polars,
    "duckdb": duckdb,
    "pandas": pandas,
}

if __name__ == "__main__":
    keep_polars_memory()  # for each of them alike
    assignment = read_json(Path(sys.argv[1]))
    if "cache" in assignment:
        os.environ["XDG_CACHE_HOME"] = assignment["cache"]  # where networks that are valid are kept
    write_json(Path(assignment["answer"]), WORK[assignment["work"]](assignment))
