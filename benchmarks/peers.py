"""The endpoint beside other servers around the same ONNX file: requests a second under one bound of latency.

    multigate bench peers --bundle DIR --python PYTHON      PYTHON has onnxruntime, orjson and other servers

A request of the endpoint holds ids; it looks the features up, converts them, scores, calibrates and ranks. A request
of a peer holds the graph's inputs as they are fed (benchmarks/speed/serving_peers.py), so that it has less to do. Every
server has its peak measured by clients that ask without pause; then requests are offered at growing shares of that, at
moments drawn beforehand. What counts is the largest share at which the 99th percentile keeps the bound.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.load import offered, peak_rate
from benchmarks.speed import serving_peers
from benchmarks.speed.serve import body_of, post
from benchmarks.speed.served import free_port, served
from rec.data.session_table import to_batch
from rec.errors import BundleError
from rec.progress import Progress, Silent
from serving.bundle import load
from serving.online.rank import RankService
from serving.scorer import Scorer
from serving.server.settings import ServerSettings

SHARES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the peak
TOLERANCE = 1e-5
OURS = "multigate"
_START_SECONDS = 180.0
_READY_SECONDS = 30.0  # some answer before their model is there


@dataclass(frozen=True)
class Server:
    """A server, its peak, and the requests a second at the largest share whose p99 is within the bound (0: at none)."""

    server: str
    workers: int
    peak_per_second: float
    within_bound_per_second: float
    p99_ms: float
    bytes_sent: int


@dataclass(frozen=True)
class Question:
    """What servers are asked: the endpoint's message, the peers' body, and the outputs of the graph."""

    message: bytes
    body: bytes
    outputs: Sequence[np.ndarray]


def bench(
    *,
    bundle: Path,
    pythons: Sequence[str],
    candidates: int,
    workers: Sequence[int],
    seconds: float,
    bound_ms: float,
    progress: Progress,
) -> dict[str, Any]:
    """A row per server and number of workers; a peer that is not installed is left out, and named."""
    question, rows = _question(bundle, candidates), list[Server]()
    libraries = _libraries(pythons, progress)
    progress.start("peers", len(workers) * (1 + len(libraries)), "servers")
    for count in workers:
        settings = ServerSettings(in_flight=1024)
        with served(bundle, workers=count, settings=settings) as (port, _, _):
            rows.append(_measured(OURS, count, port, question.message, seconds=seconds, bound_ms=bound_ms))
            progress.advance(1)
        for name, python in libraries.items():
            with _peer(name, python, load(bundle).model, count) as port:
                message = _posted(serving_peers.PATHS[name], question.body)
                _agreeing(name, port, question)
                rows.append(_measured(name, count, port, message, seconds=seconds, bound_ms=bound_ms))
            progress.advance(1)
    ratios = [_ratio([row for row in rows if row.workers == count]) for count in workers]
    return {"candidates": candidates, "p99_bound_ms": bound_ms, "of_the_best_peer": ratios, "rows": rows}


def _ratio(rows: Sequence[Server]) -> float | None:
    """Requests a second of the endpoint, relative to the best peer; None where no peer keeps the bound."""
    ours = next(row for row in rows if row.server == OURS)
    best = max((row.within_bound_per_second for row in rows if row is not ours), default=0.0)
    return round(ours.within_bound_per_second / best, 2) if best else None


def _measured(name: str, workers: int, port: int, message: bytes, *, seconds: float, bound_ms: float) -> Server:
    asyncio.run(peak_rate(port, message))  # warm
    peak, held, slow = asyncio.run(peak_rate(port, message)), 0.0, float("nan")
    for share in SHARES:
        rate = share * peak
        moments = np.cumsum(np.random.default_rng(1).exponential(1 / rate, size=max(10, round(rate * seconds))))
        tally = asyncio.run(offered(port, message, moments, "kept", Silent()))
        p99 = 1000 * float(np.quantile([spent for _, spent in tally.seconds] or [np.inf], 0.99))
        if p99 <= bound_ms and len(tally.seconds) == len(moments):
            held, slow = len(moments) / float(moments[-1]), p99
    return Server(name, workers, round(peak, 1), round(held, 1), round(slow, 2), len(message))


def _question(bundle: Path, candidates: int) -> Question:
    opened = load(bundle)
    scorer = Scorer(opened, threads=1)
    body = body_of(opened, candidates)
    service = RankService(opened, scorer, new_id=lambda: "bench")
    feeds = scorer.feeds(to_batch(service.row(body, 0), opened.spec, opened.preprocessor.encoders))
    tensors = [
        {"name": n, "shape": x.shape, "datatype": serving_peers.TYPES[str(x.dtype)], "data": x.ravel().tolist()}
        for n, x in feeds.items()
    ]
    return Question(post(body), json.dumps({"inputs": tensors}).encode(), list(scorer.run(feeds).values()))


@contextmanager
def _peer(name: str, python: str, model: Path, workers: int) -> Iterator[int]:
    """The port of a peer, which is gone with all its processes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="multigate-bench-") as folder, tempfile.TemporaryFile() as output:
        job = {"library": name, "model": str(model.absolute()), "port": free_port(), "workers": workers}
        path, inner = Path(folder) / "job.json", Path(folder) / "server"
        inner.mkdir()
        path.write_text(json.dumps(job | {"folder": str(inner)}))
        command = [python, str(Path(serving_peers.__file__).absolute()), str(path)]
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=inner)  # noqa: S603
        try:
            _wait(name, process, job["port"])
            yield job["port"]
        finally:
            _end(process)


def _wait(name: str, process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if _response(name, port, b"{}") is not None:
                return
        except OSError:
            time.sleep(0.5)
    raise BundleError(f"peers: {name} did not start within {_START_SECONDS:g} seconds")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Everything a peer started; some leave processes behind."""
    descendants = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    _, alive = psutil.wait_procs([psutil.Process(process.pid), *descendants] if descendants else [], timeout=10)
    for each in alive:
        each.kill()
    process.wait()


def _agreeing(name: str, port: int, question: Question) -> None:
    """The peer gives the graph's outputs, once its model is loaded; BundleError otherwise."""
    deadline = time.monotonic() + _READY_SECONDS
    while "outputs" not in (answer := json.loads(_response(name, port, question.body) or b"{}")):
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    actual = [np.array(output["data"]) for output in answer.get("outputs", ())]
    if len(actual) != len(question.outputs) or any(
        np.abs(mine - theirs).max() > TOLERANCE for mine, theirs in zip(actual, question.outputs, strict=True)
    ):
        raise BundleError(f"peers: {name} answers {json.dumps(answer)[:200]} where the graph's outputs were expected")


def _response(name: str, port: int, body: bytes) -> bytes | None:
    """The body of an answer; None where the server is not ready yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", serving_peers.PATHS[name], body, {"content-type": "application/json"})
        answer = connection.getresponse()
        read = answer.read()
    finally:
        connection.close()
    return None if answer.status in (404, 503) else read


def _posted(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def _libraries(pythons: Sequence[str], progress: Progress) -> dict[str, str]:
    """The first interpreter that has each library; one that none has is not measured."""
    chosen: dict[str, str] = {}
    for name, module in serving_peers.LIBRARIES.items():
        having = (python for python in pythons if not _run([python, "-c", f"import {module}, onnxruntime"]))
        if python := next(having, None):
            chosen[name] = python
        else:
            progress.say(f"{name} is in none of {', '.join(pythons) or 'no --python'}, and is not measured")
    return chosen


def _run(command: Sequence[str]) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode  # noqa: S603
