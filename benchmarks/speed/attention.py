"""What self-attention among the candidates of a request adds to a run of the graph: the bench's MMoE with and without.

    plain        ONNX Runtime's own run() of the exported graph, one request, one thread
    attention    the same model with `[model.request]`: self-attention of width 32, no summaries

Both graphs have fresh weights: what they compute takes as long as if they were trained. They take turns of a few runs
each; milliseconds are those of the core that runs, so that whatever else the machine does is not in them.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from rec.errors import BundleError
from rec.progress import Progress
from serving.graph.signature import OWNER

GRAPHS: Mapping[str, tuple[str, ...]] = {"plain": (), "attention": ("model.request={ summaries = [], width = 32 }",)}
_TABLE_ROWS = 10_000
_WARM, _TURN = 10, 5


def bench(*, sizes: Sequence[int], repeats: int, progress: Progress) -> dict[str, Any]:
    """A row per size: median milliseconds of both graphs, and attention's over plain's."""
    progress.start("bench serve --self-attention", len(sizes) * repeats)
    with tempfile.TemporaryDirectory(prefix="multigate-bench-") as name:
        sessions = _sessions(Path(name))
        rows = [_row(sessions, size, repeats, progress) for size in sizes]
    return {"threads": 1, "repeats": repeats, "unit": "ms of a core", "rows": rows}


def _sessions(folder: Path) -> dict[str, ort.InferenceSession]:
    """The graphs, written in a process of its own: torch must not share one with what is measured."""
    maker = multiprocessing.get_context("spawn").Process(target=_write_graphs, args=(folder,))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise BundleError("bench: the graphs could not be written; the reason is above")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    return {name: ort.InferenceSession(str(folder / f"{name}.onnx"), options, providers) for name in GRAPHS}


def _write_graphs(folder: Path) -> None:
    import torch

    from benchmarks.speed import synthetic
    from rec import ranker
    from rec.request import RequestBatch
    from rec.spec import dump, parse
    from serving.graph import network

    for name, overrides in GRAPHS.items():
        described = parse(dump(synthetic.spec(_TABLE_ROWS)), overrides=overrides)
        drawn = synthetic.batch(described, rows=_TABLE_ROWS, candidates=60, per_request=20, seed=1)
        model = ranker.create(described, synthetic.preprocessor(described), seed=1, device=torch.device("cpu"))
        plain = ranker.from_weights(described, synthetic.preprocessor(described), ranker.weights_of(model))
        sides = ({name: ids.numpy() for name, ids in side.items()} for side in (drawn.context, drawn.candidates))
        example = RequestBatch(drawn.size, *sides, owner=drawn.owner.numpy())
        network.write(plain, described, example, folder / f"{name}.onnx")


def _row(sessions: Mapping[str, ort.InferenceSession], size: int, repeats: int, progress: Progress) -> dict[str, Any]:
    feeds = _feeds(sessions["plain"], size)
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for session in sessions.values():
        for _ in range(_WARM):
            session.run(None, feeds)
    for _ in range(-(-repeats // _TURN)):
        for name, session in sessions.items():
            for _ in range(_TURN):
                began = time.thread_time()
                session.run(None, feeds)
                seconds[name].append(time.thread_time() - began)
        progress.advance(_TURN)
    median = {name: 1000 * float(np.median(times)) for name, times in seconds.items()}
    ratio = median["attention"] / median["plain"]
    return {"candidates": size, **{name: round(ms, 3) for name, ms in median.items()}, "ratio": round(ratio, 3)}


def _feeds(session: ort.InferenceSession, size: int) -> dict[str, np.ndarray]:
    """One request of random ids."""
    draw = np.random.default_rng(size)
    rows = {value.name: size if value.name.startswith("candidates.") else 1 for value in session.get_inputs()}
    feeds = {name: draw.integers(1, _TABLE_ROWS, count) for name, count in rows.items()}
    return feeds | {OWNER: np.zeros(size, np.int64)}
