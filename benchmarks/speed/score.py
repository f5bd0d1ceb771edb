"""Batch scoring beside ONNX Runtime alone, which is given the same tensors in memory: seconds of both, by turns.

    alone     run() on inputs that lie ready: blocks of about as many candidates as a table's, or a request at a time
    whole     `multigate score`, one process and one thread: bundle opened, files read, parts written and flushed
    opening   what of that is the bundle's

`tables` are session tables, scored in blocks; `requests` the same requests as JSON lines, scored one by one as the
endpoint does. A ratio is alone over whole: how much of the time is the model's.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from benchmarks.speed import serve
from rec.data import splits
from rec.data.session_table import outcomes_of, to_batch
from rec.progress import Progress, Silent
from serving import batch
from serving.bundle import load
from serving.graph.signature import output_names
from serving.request_files import score as request_files
from serving.scored_parts import ScoringWorkers
from serving.scorer import Scorer

BLOCKS = (512, 2048, 16_384)  # candidates
_COPIES = 5  # of the bench's training split
_LINES = 1000  # requests of the file of requests


def bench(*, repeats: int, progress: Progress) -> dict[str, Any]:
    """A row per kind of input: the median of wall and CPU seconds, and the ratios."""
    with ExitStack() as stack:
        run = stack.enter_context(serve.bench_folder(progress))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="multigate-bench-")))
        opened = load(run / "bundle")
        scorer = Scorer(opened, threads=1)
        table = next(splits.read(run / "data", "train", opened.spec))
        (folder / "data" / "test").mkdir(parents=True)
        splits.write(folder / "data/test/part-00000.arrow", [table] * _COPIES, table.schema)
        _write_lines(folder / "requests.jsonl", table.slice(0, _LINES), outcomes_of(opened.spec))
        few = table.slice(0, _LINES)
        tables = {f"{most}": _feeds(scorer, [table] * _COPIES, most) for most in BLOCKS}
        alone = {"tables": tables, "requests": {"a request": _feeds(scorer, [few], 1)}}
        where = (run / "bundle", folder)
        rows = [
            row
            for kind, feeds in alone.items()
            for row in _rows(kind, where, scorer, feeds, repeats=repeats, progress=progress)
        ]
    return {"bundle": opened.name, "threads": 1, "repeats": repeats, "unit": "s", "rows": rows}


def _feeds(scorer: Scorer, tables: Iterable[pa.RecordBatch], most: int) -> list[dict[str, np.ndarray]]:
    """The inputs of the graph for all rows, in blocks of at most `most` candidates or of a request."""
    spec, encoders = scorer.bundle.spec, scorer.bundle.preprocessor.encoders
    return [scorer.feeds(to_batch(block, spec, encoders)) for rows in tables for block in batch.blocks(rows, most)]


def _rows(
    kind: str,
    where: tuple[Path, Path],
    scorer: Scorer,
    feeds: Mapping[str, Sequence[dict[str, np.ndarray]]],
    *,
    repeats: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """A row for each size of blocks that the model alone is given."""
    bundle, folder = where
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
            request_files.score(bundle, files, out, workers=workers, bad_rows=0.1, progress=Silent())

    opening = batch.opened_scorer if kind == "tables" else request_files.opened_ranker
    works: dict[str, Callable[[], object]] = {most: partial(alone, blocks) for most, blocks in feeds.items()}
    works |= {"whole": whole, "opening": partial(opening, bundle, 1)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    progress.start(f"bench score: {kind}", repeats)
    for _ in range(repeats):
        for name, work in works.items():
            shutil.rmtree(out, ignore_errors=True)
            began, cpu = time.perf_counter(), time.process_time()
            work()
            times[name].append((time.perf_counter() - began, time.process_time() - cpu))
        progress.advance(1)
    seconds = {name: np.median(taken, axis=0).round(3).tolist() for name, taken in times.items()}
    shown = {"whole": seconds["whole"][0], "whole, CPU": seconds["whole"][1], "opening": seconds["opening"][0]}
    return [
        {
            "input": kind,
            "candidates at once": most,
            "alone": seconds[most][0],
            "alone, CPU": seconds[most][1],
            **shown,
            "ratio": round(seconds[most][0] / seconds["whole"][0], 3),
            "ratio, CPU": round(seconds[most][1] / seconds["whole"][1], 3),
        }
        for most in feeds
    ]


def _write_lines(path: Path, rows: pa.RecordBatch, outcomes: Sequence[str]) -> None:
    """Rows of a session table as requests that send everything."""
    with path.open("wb") as file:
        for row in rows.to_pylist():
            candidates = [{k: v for k, v in one.items() if k not in outcomes} for one in row["candidates"]]
            body = {**row, "time": row["time"].isoformat(), "candidates": candidates}
            file.write(msgspec.json.encode(body) + b"\n")
