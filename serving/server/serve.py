"""`multigate serve`: verify the bundle, start worker processes, announce readiness, shut down gracefully.

Workers (serving/server/workers.py) are spawned, not forked: an ONNX Runtime session and Arrow's threads do not
survive a fork, and a spawned process imports only what a server needs, which is neither torch nor polars. The
bundle's large files are memory-mapped, so workers share their memory.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path
from uuid import uuid4

import msgspec
import uvloop

from rec.progress import Progress
from serving.bundle import Bundle, load
from serving.online.rank import RankService
from serving.scorer import Scorer, check_golden
from serving.server.admission import Admission
from serving.server.counters import SharedCounters
from serving.server.endpoint import RankEndpoint
from serving.server.http_server import HttpServer
from serving.server.metrics import COLUMNS, Metrics
from serving.server.settings import ServerSettings
from serving.server.workers import SharedState, bind, supervise

_BACKLOG = 2048  # connections that the system accepts for us
_OTHER_FILES = 256  # that a process holds beside its connections
_CANDIDATE_SECONDS = 20e-6  # a first estimate, where there is nothing to measure
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
    settings: ServerSettings,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT; `threads` is the number of intra-op threads of each worker.

    On SIGTERM /readyz returns 503 for `settings.drain_seconds`, so that load balancers stop routing here, before
    connections are refused; accepted requests get their response. Raises, before listening, BundleError when the bundle
    cannot be used and OSError when the address is in use.
    """
    bundle = load(bundle_path)
    worst = check_golden(Scorer(bundle, threads=threads))
    progress.say(f"{bundle.name} {bundle.digest[:12]}: files verified, golden scores agree to {worst:.1e}")
    context = multiprocessing.get_context("spawn")
    with bind(host, port) as address:
        shared = SharedState(SharedCounters(COLUMNS), context.Semaphore(0), context.Event())

        def start(row: int) -> SpawnProcess:
            process = context.Process(
                target=run_worker,
                args=(bundle_path, threads, shared, address),
                kwargs={"settings": settings, "row": row},
            )
            process.start()
            return process

        announce = partial(progress.say, f"ready: http://{host}:{port}/v1/rank ({workers} x {threads} threads)")
        supervise(start, workers=workers, shared=shared, drain_seconds=settings.drain_seconds, announce=announce)
    progress.say("stopped")


def run_worker(
    bundle_path: Path, threads: int, shared: SharedState, address: socket.socket, *, settings: ServerSettings, row: int
) -> None:
    """The main function of a worker process: load, check, warm up, serve until SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; only the parent reacts
    bundle = load(bundle_path)
    service = create_service(bundle, threads=threads)
    seconds = warm_up(bundle, service)
    metrics = Metrics(shared.counters, row, {bundle.digest: bundle.name})
    server = create_server(
        service, metrics, settings, seconds_per_candidate=seconds, ready=lambda: not shared.draining.is_set()
    )
    # what was loaded lives as long as the process: collect rarely, and not all of it
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS)
    allow_connections(settings.connections)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from here on the server handles it, and stops in its own time
    address.listen(_BACKLOG)
    shared.warm.release()
    uvloop.run(_serve(server, address, metrics, settings))


async def _serve(server: HttpServer, address: socket.socket, metrics: Metrics, settings: ServerSettings) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.listen(address)
    watching = asyncio.create_task(server.watch(lambda: metrics.beat(time.monotonic())))
    await stop.wait()
    await asyncio.sleep(0.1)
    server.stop_accepting()
    deadline = time.monotonic() + settings.grace_seconds
    while server.retire() and time.monotonic() < deadline:  # noqa: ASYNC110  connections come and go
        await asyncio.sleep(0.05)
    watching.cancel()


def create_server(
    service: RankService,
    metrics: Metrics,
    settings: ServerSettings,
    *,
    seconds_per_candidate: float,
    ready: Callable[[], bool],
) -> HttpServer:
    """The server of one process, which listens nowhere yet; ranking a candidate took `seconds_per_candidate`."""
    admission = Admission(
        queue_seconds=settings.queue_seconds,
        in_flight=settings.in_flight,
        seconds_per_candidate=seconds_per_candidate,
        seed=os.getpid(),
    )
    endpoint = RankEndpoint(service, metrics, admission, new_id=new_id, ready=ready)
    endpoint.server = HttpServer(endpoint, settings, metrics)
    return endpoint.server


def allow_connections(count: int) -> None:
    """Raise this process's limit of open files as far as `count` connections need and the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def create_service(bundle: Bundle, *, threads: int) -> RankService:
    """The rank service of a bundle, its golden scores checked."""
    scorer = Scorer(bundle, threads=threads)
    check_golden(scorer)
    return RankService(bundle, scorer, new_id=new_id)


def new_id() -> str:
    """A new request id."""
    return str(uuid4())


def warm_up(bundle: Bundle, service: RankService) -> float:
    """Rank a few requests for stored items, so that buffers are allocated before the first real one.

    Returns the seconds that a candidate of the last but one took, for a first estimate.
    """
    key, table = bundle.spec.keys.item, bundle.store.candidates
    if key is None or table is None:
        service.rank(b'{"candidates": []}', 0)
        return _CANDIDATE_SECONDS
    seconds = _CANDIDATE_SECONDS
    for count in _WARM_UP:
        ids = table.rows.field(key).slice(0, min(count, bundle.spec.serve.max_candidates)).to_pylist()
        body = msgspec.json.encode({"candidates": {key: ids}})
        service.rank(body, 0)
        began = time.perf_counter()
        service.rank(body, 0)
        if count > 1:
            seconds = (time.perf_counter() - began) / max(1, len(ids))
    return seconds
