"""`multigate serve`: verify the bundle, start worker processes, say when they are warm, stop without losing a request.

Workers (serving/server/workers.py) are started afresh, not forked: an ONNX Runtime session and Arrow's threads do not
survive a fork, and a fresh process holds only what a server needs, which is neither torch nor polars. The bundle's
large files are mapped, so workers share their memory.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import socket
import tempfile
from collections.abc import Callable
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path
from uuid import uuid4

import msgspec

from rec.progress import Progress
from serving.bundle import Bundle, load
from serving.online.rank import Ranker
from serving.scorer import Scorer, check_golden
from serving.server import protocol
from serving.server.app import App
from serving.server.metrics import Metrics
from serving.server.workers import Shared, bound, supervise

_CONNECTIONS = (
    16  # for every request in flight: more than the app admits, so that it is the app that refuses, and says so
)
_GC_OBJECTS = 100_000  # new containers before the collector looks for cycles, about 100 requests of 500 candidates
# candidates of the requests a worker answers before the first real one; the largest first, so that ONNX Runtime takes
# its memory in one piece
_WARM = (2000, 200, 1)


def serve(
    bundle_path: Path,
    *,
    host: str,
    port: int,
    workers: int,
    threads: int,
    progress: Progress,
    drain_seconds: float = 0.5,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT; `threads` is how many work on one request in each worker.

    On SIGTERM /readyz says 503 for `drain_seconds`, so that a load balancer looks away, before connections are refused;
    requests already accepted are answered. Raises, before anything listens, BundleError when the bundle is wrong and
    OSError when the address is taken.
    """
    bundle = load(bundle_path)
    worst = check_golden(Scorer(bundle, threads=threads))
    progress.say(f"{bundle.name} {bundle.digest[:12]}: files verified, golden scores agree to {worst:.1e}")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="multigate-") as folder, bound(host, port) as address:
        shared = Shared(Path(folder), context.Semaphore(0), context.Event())

        def start() -> SpawnProcess:
            process = context.Process(target=worker, args=(bundle_path, threads, shared, address))
            process.start()
            return process

        announce = partial(progress.say, f"ready: http://{host}:{port}/v1/rank ({workers} x {threads} threads)")
        supervise(start, workers=workers, shared=shared, drain_seconds=drain_seconds, announce=announce)
    progress.say("stopped")


def worker(bundle_path: Path, threads: int, shared: Shared, address: socket.socket) -> None:
    """The life of one worker process: load, check, warm, serve until SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; only the parent acts on it
    bundle = load(bundle_path)
    app, ranker = make_app(bundle, shared.folder, threads=threads, ready=lambda: not shared.draining.is_set())
    warm(bundle, ranker)
    # what was loaded lives as long as the process, and a request leaves no cycles: look rarely, and not at all of it
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS)
    server = protocol.server(app, connections=_CONNECTIONS * bundle.spec.serve.in_flight)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from here on the server hears it, and leaves in its own time
    address.listen()
    shared.warm.release()
    server.run(sockets=[address])


def make_app(bundle: Bundle, folder: Path, *, threads: int, ready: Callable[[], bool]) -> tuple[App, Ranker]:
    """The ASGI app of a bundle, its golden scores checked; `folder` holds the metrics of all its workers."""
    scorer = Scorer(bundle, threads=threads)
    check_golden(scorer)
    ranker = Ranker(bundle, scorer, make_id=make_id)
    metrics = Metrics(folder, model=bundle.name, digest=bundle.digest)
    return App(ranker, metrics, bundle.spec.serve, make_id=make_id, ready=ready), ranker


def make_id() -> str:
    """A new request id."""
    return str(uuid4())


def warm(bundle: Bundle, ranker: Ranker) -> None:
    """Answer a few requests for stored items, so that the first real one finds every code path and buffer in place."""
    key, side = bundle.spec.keys.item, bundle.store.candidates
    if key is None or side is None:
        ranker.answer(b'{"candidates": []}', 0)
        return
    for count in _WARM:
        ids = side.rows.field(key).slice(0, min(count, bundle.spec.serve.max_candidates)).to_pylist()
        ranker.answer(msgspec.json.encode({"candidates": {key: ids}}), 0)
