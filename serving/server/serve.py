"""`multigate serve`: verify the bundle, start worker processes, announce readiness, shut down gracefully.

Workers (serving/server/workers.py) are spawned, not forked: an ONNX Runtime session and Arrow's threads do not
survive a fork, and a spawned process imports only what a server needs, which is neither torch nor polars. The
bundle's large files are memory-mapped, so workers share their memory.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import socket
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path
from uuid import uuid4

import msgspec

from rec.progress import Progress
from serving.bundle import Bundle, load
from serving.online.rank import RankService
from serving.scorer import Scorer, check_golden
from serving.server import protocol
from serving.server.app import create_app
from serving.server.metrics import Metrics, metrics_folder
from serving.server.workers import SharedState, bind, supervise

# connections for every request in flight: more than the app admits, so that the app refuses with a problem body
_CONNECTIONS = 16
_GC_OBJECTS = 100_000  # new containers before the collector looks for cycles, about 100 requests of 500 candidates
# candidates of the requests a worker ranks before the first real one; the largest first, so that ONNX Runtime allocates
# its arena in one piece
_WARM_UP = (2000, 200, 1)


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
    """Serve a bundle until SIGTERM or SIGINT; `threads` is the number of intra-op threads of each worker.

    On SIGTERM /readyz returns 503 for `drain_seconds`, so that load balancers stop routing here, before connections are
    refused; accepted requests get their response. Raises, before listening, BundleError when the bundle cannot be used
    and OSError when the address is in use.
    """
    bundle = load(bundle_path)
    worst = check_golden(Scorer(bundle, threads=threads))
    progress.say(f"{bundle.name} {bundle.digest[:12]}: files verified, golden scores agree to {worst:.1e}")
    context = multiprocessing.get_context("spawn")
    with metrics_folder() as folder, bind(host, port) as address:
        shared = SharedState(folder, context.Semaphore(0), context.Event())

        def start() -> SpawnProcess:
            process = context.Process(target=run_worker, args=(bundle_path, threads, shared, address))
            process.start()
            return process

        announce = partial(progress.say, f"ready: http://{host}:{port}/v1/rank ({workers} x {threads} threads)")
        supervise(start, workers=workers, shared=shared, drain_seconds=drain_seconds, announce=announce)
    progress.say("stopped")


def run_worker(bundle_path: Path, threads: int, shared: SharedState, address: socket.socket) -> None:
    """The main function of a worker process: load, check, warm up, serve until SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; only the parent reacts
    bundle = load(bundle_path)
    service = create_service(bundle, threads=threads)
    warm_up(bundle, service)
    metrics = Metrics(shared.metrics, model=bundle.name, digest=bundle.digest)
    app = create_app(service, metrics, bundle.spec.serve, new_id=new_id, ready=lambda: not shared.draining.is_set())
    # what was loaded lives as long as the process, and a request leaves no cycles: collect rarely, and not all of it
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS)
    server = protocol.create_server(app, connections=_CONNECTIONS * bundle.spec.serve.in_flight)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from here on the server handles it, and stops in its own time
    address.listen()
    shared.warm.release()
    server.run(sockets=[address])


def create_service(bundle: Bundle, *, threads: int) -> RankService:
    """The rank service of a bundle, its golden scores checked."""
    scorer = Scorer(bundle, threads=threads)
    check_golden(scorer)
    return RankService(bundle, scorer, new_id=new_id)


def new_id() -> str:
    """A new request id."""
    return str(uuid4())


def warm_up(bundle: Bundle, service: RankService) -> None:
    """Rank a few requests for stored items, so that buffers are allocated before the first real one."""
    key, table = bundle.spec.keys.item, bundle.store.candidates
    if key is None or table is None:
        service.rank(b'{"candidates": []}', 0)
        return
    for count in _WARM_UP:
        ids = table.rows.field(key).slice(0, min(count, bundle.spec.serve.max_candidates)).to_pylist()
        service.rank(msgspec.json.encode({"candidates": {key: ids}}), 0)
