"""Batch scoring beside ONNX Runtime alone, given the same tensors in memory, by turns and with one thread each.

    alone     run() on inputs that lie ready: blocks of about as many candidates as a table's, or a request at a time
    whole     `multigate score`, one process: bundle opened, files read, parts written and flushed

`tables` are session tables, encoded and written in large blocks; `requests` the same requests as JSON lines, parsed and
scored one by one as the endpoint does. A ratio is alone over whole: how much of it is the model's. Both are the least
of some repeats, by the clock and by core seconds; the second are the ones to go by on a machine with other work.

Then what each stage of scoring the tables costs, each by itself.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.quality import PageContent
from benchmarks.quality.page import table
from benchmarks.speed import serve
from rec.atomic import flush, sha256
from rec.data import splits
from rec.data.session_table import outcomes_of, to_batch
from rec.progress import Progress, Silent
from rec.request import RequestBatch
from serving import batch
from serving.bundle import load
from serving.graph.signature import output_names
from serving.request_files import score as request_files
from serving.scored_parts import ScoringWorkers
from serving.scorer import Scorer

BLOCKS = (256, 512, 16_384)  # candidates that the model alone is given at once
_COPIES = 5  # of the bench's training split
_LINES = 1000  # requests of the file of requests


def bench(*, repeats: int, progress: Progress) -> dict[str, Any]:
    """A row per kind of input and size of blocks: seconds of both, and the ratios; and what each stage costs."""
    with serve.bench_folder(progress) as made:
        return compared(made / "bundle", made / "data", copies=_COPIES, repeats=repeats, progress=progress)


def compared(bundle: Path, data: Path, *, copies: int, repeats: int, progress: Progress) -> dict[str, Any]:
    """The same with a bundle and the training split of some session tables, `copies` times over."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="multigate-bench-")))
        scorer = Scorer(load(bundle), threads=1)
        spec = scorer.bundle.spec
        rows = next(splits.read(data, "train", spec))
        (folder / "data" / "test").mkdir(parents=True)
        splits.write(folder / "data/test/part-00000.arrow", [rows] * copies, rows.schema)
        few = rows.slice(0, _LINES)
        _write_lines(folder / "requests.jsonl", few, outcomes_of(spec))
        blocks = {f"{most}": _feeds(scorer, rows, most) * copies for most in BLOCKS}
        alone = {"tables": blocks, "requests": {"a request": _feeds(scorer, few, 1)}}
        figures = [
            row
            for kind, feeds in alone.items()
            for row in _rows(kind, bundle, folder, scorer, feeds, repeats=repeats, progress=progress)
        ]
        stages = _stages(bundle, folder, scorer, repeats=repeats, progress=progress)
    candidates = copies * sum(len(feeds["request.owner"]) for feeds in _feeds(scorer, rows, 1 << 30))
    about = {"bundle": scorer.bundle.name, "threads": 1, "repeats": repeats, "candidates": candidates}
    return {**about, "unit": "s", "rows": figures, "stages": stages}


def page(result: Mapping[str, Any]) -> PageContent:
    """The tables of docs/measured/score.md."""
    about = {name: result[name] for name in ("threads", "repeats", "candidates")}
    tables = {"about": table(["", "value"], [[name, f"{value:,}"] for name, value in about.items()])}
    for name in ("rows", "stages"):
        tables[name] = table(list(result[name][0]), [list(map(str, row.values())) for row in result[name]])
    return PageContent(tables)


def _feeds(scorer: Scorer, rows: pa.RecordBatch, most: int) -> list[dict[str, np.ndarray]]:
    """The inputs of the graph for all rows, in blocks of at most `most` candidates or of a request."""
    spec, encoders = scorer.bundle.spec, scorer.bundle.preprocessor.encoders
    return [scorer.feeds(to_batch(block, spec, encoders)) for block in batch.blocks(rows, most)]


def _rows(
    kind: str,
    bundle: Path,
    folder: Path,
    scorer: Scorer,
    feeds: Mapping[str, Sequence[dict[str, np.ndarray]]],
    *,
    repeats: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """A row for each size of blocks that the model alone is given."""
    out, workers, names = folder / "out", ScoringWorkers(threads=1, procs=1), output_names(scorer.bundle.spec)

    def alone(blocks: Sequence[dict[str, np.ndarray]]) -> None:
        for block in blocks:
            scorer.session.run(names, block)

    def whole() -> None:
        if kind == "tables":
            batch.score(bundle, folder / "data", out, workers=workers, progress=Silent())
        else:
            # a request that drew an item twice is put aside
            files = [folder / "requests.jsonl"]
            request_files.score(bundle, files, out, workers=workers, bad_rows=0.5, progress=Silent())

    works: dict[str, Callable[[], object]] = {most: partial(alone, blocks) for most, blocks in feeds.items()}
    works["whole"] = whole
    progress.start(f"bench score: {kind}", repeats)
    least = _least(works, repeats, progress, before=lambda: shutil.rmtree(out, ignore_errors=True))
    whole_clock, whole_core = least["whole"]
    return [
        {
            "input": kind,
            "candidates at once": most,
            "alone": round(least[most][0], 3),
            "whole": round(whole_clock, 3),
            "ratio": round(least[most][0] / whole_clock, 3),
            "alone, core": round(least[most][1], 3),
            "whole, core": round(whole_core, 3),
            "ratio, core": round(least[most][1] / whole_core, 3),
        }
        for most in feeds
    ]


def _least(
    works: Mapping[str, Callable[[], object]],
    repeats: int,
    progress: Progress,
    *,
    before: Callable[[], object] = lambda: None,
) -> dict[str, tuple[float, float]]:
    """The least seconds and core seconds of each work and of its child processes, by turns; `before` is not timed."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            before()
            began, core = time.perf_counter(), _core_seconds()
            work()
            times[name].append((time.perf_counter() - began, _core_seconds() - core))
        progress.advance(1)
    return {name: (min(s for s, _ in taken), min(s for _, s in taken)) for name, taken in times.items()}


def _core_seconds() -> float:
    """Of this process and of those that it has waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _stages(bundle: Path, folder: Path, scorer: Scorer, *, repeats: int, progress: Progress) -> list[dict[str, Any]]:
    """Core seconds of each stage of scoring the tables, and their share of all stages."""
    path, spec, output = folder / "data/test/part-00000.arrow", scorer.bundle.spec, folder / "stage.parquet"
    encoders, held = scorer.bundle.preprocessor.encoders, dict[str, list[Any]]()

    def encode(rows: pa.RecordBatch) -> RequestBatch:
        return to_batch(rows, spec, encoders)

    def stage(name: str, work: Callable[..., Any], *of: str) -> Callable[[], None]:
        def run() -> None:
            held[name] = [work(*each) for each in zip(*(held[key] for key in of), strict=True)]

        return run

    def read() -> None:
        whole = [rows for rows in splits.read_part(path, spec, labels=False) if rows.validate(full=True) is None]
        held["rows"] = [block for rows in whole for block in batch.blocks(rows, batch.CANDIDATES)]

    def write() -> None:
        with pq.ParquetWriter(output, held["lines"][0].schema) as writer:
            for each in held["lines"]:
                writer.write_table(each)

    def finish() -> None:
        sha256(path)
        sha256(output)
        flush(output)

    start = [sys.executable, "-c", "import serving.batch, pipelines.cli.main"]
    works = {
        "process start and imports": lambda: subprocess.run(start, check=True),  # noqa: S603  our own
        "opening the bundle": lambda: batch.opened_scorer(bundle, 1),
        "reading": read,
        "encoding": stage("batch", encode, "rows"),
        "the model": stage("scores", scorer.score, "batch"),
        "ranks and lines": stage("lines", partial(batch.lines, scorer), "rows", "batch", "scores"),
        "writing": write,
        "digests and flush": finish,
    }
    progress.start("bench score: stages", repeats)
    core = {name: seconds for name, (_, seconds) in _least(works, repeats, progress).items()}
    total = sum(core.values())
    return [
        {"stage": name, "core seconds": round(seconds, 3), "share": f"{seconds / total:.1%}"}
        for name, seconds in core.items()
    ]


def _write_lines(path: Path, rows: pa.RecordBatch, outcomes: Sequence[str]) -> None:
    """Rows of a session table as requests that send everything."""
    with path.open("wb") as file:
        for row in rows.to_pylist():
            candidates = [{k: v for k, v in one.items() if k not in outcomes} for one in row["candidates"]]
            body = {**row, "time": row["time"].isoformat(), "candidates": candidates}
            file.write(msgspec.json.encode(body) + b"\n")
