"""`multigate bench features`: the feature pipeline on synthetic shops of growing size, beside what bounds it.

Every size is done in fresh processes: the pipeline, as `multigate features` runs it; the floor (io_floor.py); and at
sizes that fit in memory the same features in polars, DuckDB and pandas (polars_baseline.py, ...). The pipeline runs
again with longer lists of features, on the same impressions in random order, which have to be sorted first, and on a
spec that is new to the machine; otherwise `multigate check` has validated it before. All read files that are in the
page cache, so that the disk is equally fast for all.

    RESULTS/1000000.json      what was found of a size; a size whose file is there is not measured again
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.speed import process_memory, shop_files
from benchmarks.speed.process_memory import ProcessResult
from rec.atomic import read_json, write_json
from rec.progress import Progress

# the most events that others are asked about, who hold all of them in memory, and the packages they need
PEERS = {"polars": 30_000_000, "duckdb": 3_000_000, "pandas": 1_000_000}
VARIANTS = {"first": 1_000_000, "more": 10_000_000, "decayed": 10_000_000, "shuffled": 10_000_000}
BESIDE = (*PEERS, *VARIANTS)
SEED = 7
WRITTEN = 140  # bytes of session tables per event, about; twice with a longer list of features
# bytes of disk per event while a size is done: its files, what is written; and in random order what is put aside
ROOM, ROOM_SHUFFLED = shop_files.BYTES + 2 * WRITTEN, shop_files.BYTES + 480
_BLOCK = 1 << 24
_MODULE = "benchmarks.speed.worker"


@dataclass(frozen=True)
class BuildSpeed:
    """A size: medians over repeats; memory is the largest over repeats, of the pipeline's whole process tree.

    `process_seconds` are from the start of the process to its end, `core_seconds` what the tree took of all cores in
    that time: what else the machine does changes it little. `of_linear` is None until all sizes are known.
    """

    events: int
    seconds: float
    process_seconds: float
    core_seconds: float
    events_per_second: float
    of_linear: float | None
    floor_seconds: float
    of_floor: float
    peak_gib: float | None
    peak_gib_shared_once: float | None
    read_gib: float
    written_gib: float


@dataclass(frozen=True)
class Peer:
    """Somebody else on the same events, or the pipeline on others: `of_it` is the pipeline's time relative to that.

    Medians over repeats; ratios are of the same repeat.
    """

    events: int
    who: str
    seconds: float
    process_seconds: float
    core_seconds: float
    peak_gib: float | None
    of_it: float


@dataclass(frozen=True)
class Stage:
    """Seconds of one stage of the pipeline; the median over repeats."""

    events: int
    stage: str
    seconds: float
    share: float


@dataclass(frozen=True)
class SizeResult:
    """All that was found of one size."""

    row: BuildSpeed
    peers: list[Peer]
    stages: list[Stage]


def bench(
    *,
    sizes: Sequence[int],
    data: Path | None,
    repeats: int,
    progress: Progress,
    results: Path | None = None,
    beside: Sequence[str] = BESIDE,
) -> dict[str, Any]:
    """A row per size, smallest first, and where the pipeline's time went; shops are kept in `data`, if it is given.

    Of what is measured `beside` the pipeline, each size has what is small enough for it. A size that `results` has is
    not measured again. Raises OSError where the disk has no room, BundleError where one of the processes fails.
    """
    for name in PEERS:
        if name in beside and not _has(name):
            progress.say(f"{name} is not installed (requirements/dev.txt), and is not measured")
    found: list[SizeResult] = []
    with _folder(data) as folder:
        for size in sorted(sizes):
            kept = None if results is None else results / f"{size}.json"
            if kept is not None and kept.exists():
                found.append(_kept(read_json(kept)))
                continue
            refuse_full(folder, size)
            others = [name for name in BESIDE if name in beside and _fits(name, size)]
            found.append(_measured(folder, size, others, repeats, progress))
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_json(kept, asdict(found[-1]))
            if data is None:
                shutil.rmtree(folder / name_of(size))
    first = found[0].row
    rows = [replace(of.row, of_linear=first.events_per_second / of.row.events_per_second) for of in found]
    peers, stages = [peer for of in found for peer in of.peers], [stage for of in found for stage in of.stages]
    return {"cores": len(os.sched_getaffinity(0)), "repeats": repeats, "rows": rows, "peers": peers, "stages": stages}


def _kept(plain: dict[str, Any]) -> SizeResult:
    peers, stages = [Peer(**peer) for peer in plain["peers"]], [Stage(**stage) for stage in plain["stages"]]
    return SizeResult(BuildSpeed(**plain["row"]), peers, stages)


def name_of(size: int) -> str:
    """The folder of a shop."""
    return f"shop-{size}"


def refuse_full(folder: Path, size: int) -> None:
    """OSError when the disk would not hold what a size needs."""
    shop = folder / name_of(size)
    drawn = sum(file.stat().st_size for file in shop.rglob("*.parquet")) if shop.exists() else 0
    room = ROOM_SHUFFLED if size <= VARIANTS["shuffled"] else ROOM
    needed, free = room * size - drawn, shutil.disk_usage(folder).free
    if needed > free:
        text = f"{size:,} events need about {needed / 1e9:.0f} GB of free disk, got {free / 1e9:.0f}; see --data"
        raise OSError(errno.ENOSPC, text, str(folder))


@contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        data.mkdir(parents=True, exist_ok=True)
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="multigate-bench-") as folder:
        yield Path(folder)


def _fits(name: str, size: int) -> bool:
    """Whether a size is measured with a peer, which has to be installed, or with a variant."""
    return size <= VARIANTS[name] if name in VARIANTS else size <= PEERS[name] and _has(name)


def _measured(folder: Path, size: int, others: Sequence[str], repeats: int, progress: Progress) -> SizeResult:
    shop = folder / name_of(size)
    with tempfile.TemporaryDirectory(prefix="work-", dir=folder) as place:
        work = Path(place)
        drawn = _run({"work": "shop", "shop": str(shop), "events": size, "seed": SEED}, work, progress).answer
        mixed, cache = work / "shuffled", folder / "networks"
        if "shuffled" in others:
            _run({"work": "shuffle", "shop": str(shop), "out": str(mixed), "seed": SEED}, work, progress)
        _run({"work": "prepare", "shop": str(shop), "out": str(work / "small"), "cache": str(cache)}, work, progress)
        results: dict[str, list[ProcessResult]] = {name: [] for name in ("features", "floor", *others)}
        sizes: list[int] = []
        for _ in range(repeats):
            for name, of_work in results.items():
                read, out = mixed if name == "shuffled" else shop, work / "out"
                warm(read)
                known = work / f"networks-{len(of_work)}" if name == "first" else cache
                job = {"work": name, "shop": str(read), "out": str(out), "sizes": sizes, "cache": str(known)}
                of_work.append(_run(job, work, progress))
                if name == "features":
                    sizes = [file.stat().st_size for file in out.rglob("*") if file.is_file()]
                shutil.rmtree(out)
    peers = [_peer(drawn["events"], name, results) for name in others]
    return SizeResult(_row(drawn, sum(sizes), results), peers, _stages(drawn["events"], results["features"]))


def _run(job: Mapping[str, Any], work: Path, progress: Progress) -> ProcessResult:
    progress.start(f"{job['work']}, {Path(job['shop']).name}")
    return process_memory.run(_MODULE, job, work, progress)


def _has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _peer(events: int, name: str, results: Mapping[str, Sequence[ProcessResult]]) -> Peer:
    own, others = results["features"], results[name]
    seconds = [other.answer["seconds"] for other in others]
    ratio = [mine.answer["seconds"] / other for mine, other in zip(own, seconds, strict=True)]
    core = statistics.median(other.core_seconds for other in others)
    whole = statistics.median(other.seconds for other in others)
    peak = _gib([other.resident for other in others])
    return Peer(events, name, statistics.median(seconds), whole, core, peak, statistics.median(ratio))


def warm(shop: Path) -> None:
    """Read all files once, so that they are in the page cache as far as memory allows."""
    for file in sorted(shop.rglob("*.parquet")):
        with file.open("rb") as opened:
            while opened.read(_BLOCK):
                pass


def _row(
    drawn: Mapping[str, Any],
    written: int,
    results: Mapping[str, Sequence[ProcessResult]],
) -> BuildSpeed:
    seconds = {name: [result.answer["seconds"] for result in of_work] for name, of_work in results.items()}
    events, ours = drawn["events"], statistics.median(seconds["features"])

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds["features"], seconds[name], strict=True))

    return BuildSpeed(
        events=events,
        seconds=ours,
        process_seconds=statistics.median(result.seconds for result in results["features"]),
        core_seconds=statistics.median(result.core_seconds for result in results["features"]),
        events_per_second=events / ours,
        of_linear=None,
        floor_seconds=statistics.median(seconds["floor"]),
        of_floor=ratio("floor"),
        peak_gib=_gib([result.resident for result in results["features"]]),
        peak_gib_shared_once=_gib([result.proportional for result in results["features"]]),
        read_gib=drawn["bytes"] / 2**30,
        written_gib=written / 2**30,
    )


def _gib(peaks: Sequence[int | None]) -> float | None:
    known = [peak for peak in peaks if peak is not None]
    return max(known) / 2**30 if known else None


def _stages(events: int, results: Sequence[ProcessResult]) -> list[Stage]:
    """The stretches of the first repeat in their order; a stretch that another repeat lacks counts as 0 there."""
    whole = statistics.median(result.answer["seconds"] for result in results)
    spent = {
        stage: statistics.median(result.answer["stages"].get(stage, 0.0) for result in results)
        for stage in results[0].answer["stages"]
    }
    return [Stage(events, stage, seconds, seconds / whole) for stage, seconds in spent.items()]
