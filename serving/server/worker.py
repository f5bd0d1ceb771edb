"""A worker process: loads a bundle, gets warm, and serves when it is told to.

Workers are spawned, not forked: an ONNX Runtime session and Arrow's threads do not survive a fork, and a spawned
process imports only what a server needs, which is neither torch nor polars.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import uvloop

from rec.errors import BundleError
from serving.bundle import load
from serving.memory_limit import limited_memory
from serving.online.rank import RankService
from serving.scorer import Scorer, check_golden
from serving.server.access_log import AccessLog
from serving.server.admission import Admission
from serving.server.control import Control, send
from serving.server.counters import SharedCounters
from serving.server.endpoint import RankEndpoint
from serving.server.event_log import event_lines
from serving.server.generations import Generation
from serving.server.http_server import HttpServer
from serving.server.labels import Label
from serving.server.metrics import Metrics
from serving.server.router import Router
from serving.server.routes import Routes
from serving.server.settings import ServerSettings
from serving.server.shadow import ShadowEndpoint, outputs_of

_GC_OBJECTS = 100_000  # new containers before the collector looks for cycles, about 100 requests of 500 candidates
# candidates of the requests a worker ranks before the first real one; the largest first, so that ONNX Runtime allocates
# its arena in one piece
_WARM_UP = (2000, 200, 1)
_LOAD_BYTES, _LOAD_FACTOR = 4 << 30, 8
_FREE_FILES = 16  # for connections that have been accepted and not yet been counted
_OTHER_FILES = 256  # that a process holds beside its connections
_CANDIDATE_SECONDS = 20e-6  # a first estimate, where there is nothing to measure
_ACCEPT_SECONDS = 0.1  # to accept those who came before the last workers close the socket
_RETIRE_SECONDS = 0.05
_SHADOW_BODIES = 4  # a shadow's body is a request and the answer to it


@dataclass(frozen=True)
class Assignment:
    """What a worker serves, and where: row `row` of the counters is its own."""

    generation: Generation
    threads: int
    settings: ServerSettings
    address: socket.socket
    counters: SharedCounters
    row: int
    label: Label | None = None
    sockets: Path | None = None  # of other labels


def run_worker(pipe: Connection, assignment: Assignment) -> None:
    """The main function of a worker process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # signals reach the whole group; only the supervisor reacts
    control = Control(pipe)
    try:
        with limited_memory(assignment.settings.memory_bytes or default_memory(assignment.generation.path)):
            service, worst = load_service(
                assignment.generation, threads=assignment.threads, label=assignment.label or ""
            )
    except (BundleError, MemoryError) as error:
        send(pipe, {"failed": str(error) or "the bundle needs more memory than `memory_bytes` allows"})
        raise SystemExit(4) from None
    seconds = warm_up(service)
    # what was loaded lives as long as the process: collect rarely, and not all of it
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS)
    settings = assignment.settings
    if assignment.label == "shadow":
        settings = settings.model_copy(update={"max_body": _SHADOW_BODIES * settings.max_body})
    held = allow_connections(settings.connections)
    assignment = replace(assignment, settings=settings.model_copy(update={"connections": held}))
    with event_lines(settings.log_format):
        uvloop.run(_serve(control, assignment, service, seconds, worst))


def load_service(generation: Generation, *, threads: int, label: str = "") -> tuple[RankService, float]:
    """The rank service of a generation, and its golden difference; BundleError where it cannot be used."""
    bundle = load(generation.path)
    if bundle.digest != generation.digest:
        raise BundleError(f"{bundle.path}: expected the digest {generation.digest}, got {bundle.digest}")
    scorer = Scorer(bundle, threads=threads)
    worst = check_golden(scorer)
    return RankService(bundle, scorer, new_id=new_id, version=generation.version, label=label), worst


async def _serve(control: Control, assignment: Assignment, service: RankService, seconds: float, worst: float) -> None:
    loop, settings = asyncio.get_running_loop(), assignment.settings
    generation, label = assignment.generation, assignment.label
    routes = None if label is None else Routes()
    metrics = Metrics(assignment.counters, assignment.row, {generation.digest: generation.name}, routes)
    draining, stop = asyncio.Event(), asyncio.Event()
    router = None
    if label == "stable" and assignment.sockets is not None:
        router = Router(assignment.sockets, service.bundle.spec, settings, metrics)
    if label == "shadow":
        server = HttpServer(ShadowEndpoint(service, metrics), settings, metrics)
    else:
        server = create_server(
            service,
            metrics,
            settings,
            seconds_per_candidate=seconds,
            ready=lambda: not draining.is_set(),
            access=access_log(settings, generation, label),
            router=router,
        )
    orders: asyncio.Queue[Any] = asyncio.Queue()
    watching = asyncio.create_task(server.watch(lambda: metrics.beat(time.monotonic())))
    control.obeyed_by(partial(loop.call_soon_threadsafe, orders.put_nowait))
    metrics.beat(time.monotonic())
    keyed = service.bundle.spec.key_feature("user") is not None
    send(control.pipe, {"warm": worst, "keyed": keyed, "outputs": outputs_of(service)})
    while not stop.is_set():
        order = await orders.get()
        if isinstance(order, dict):
            if router is not None:
                router.update(msgspec.convert(order, Routes))
        elif order == "serve":
            await server.listen(assignment.address)
            send(control.pipe, {"serving": True})
        elif order == "drain":
            draining.set()
            server.draining = True
        else:
            if order == "finish":
                await asyncio.sleep(_ACCEPT_SECONDS)
                server.accept_all()
            stop.set()
    server.stop_accepting()
    send(control.pipe, {"closed": True})
    deadline = time.monotonic() + settings.grace_seconds
    while server.retire() and time.monotonic() < deadline:  # noqa: ASYNC110  connections come and go
        await asyncio.sleep(_RETIRE_SECONDS)
    watching.cancel()


def create_server(
    service: RankService,
    metrics: Metrics,
    settings: ServerSettings,
    *,
    seconds_per_candidate: float,
    ready: Callable[[], bool],
    access: AccessLog | None = None,
    router: Router | None = None,
) -> HttpServer:
    """The server of one process, which listens nowhere yet; ranking a candidate took `seconds_per_candidate`."""
    spec = service.bundle.spec
    admission = Admission(
        queue_seconds=settings.queue_seconds,
        in_flight=settings.in_flight,
        seconds_per_candidate=seconds_per_candidate,
        most=spec.serve.max_candidates,
        names=len(spec.candidates),
        seed=os.getpid(),
    )
    endpoint = RankEndpoint(service, metrics, admission, new_id=new_id, ready=ready, access=access, router=router)
    endpoint.server = HttpServer(endpoint, settings, metrics, endpoint)
    return endpoint.server


def access_log(settings: ServerSettings, generation: Generation, label: Label | None) -> AccessLog | None:
    """The request lines of this process, or None where no request is to be logged."""
    if not settings.access_log:
        return None
    labelled = {} if label is None else {"label": label}
    served = {**generation.named, "generation": generation.number, **labelled}
    return AccessLog(settings.access_log, seed=os.getpid(), **served)


def default_memory(folder: Path) -> int:
    """What loading a bundle may take: some, and several times what it holds."""
    return _LOAD_BYTES + _LOAD_FACTOR * sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def allow_connections(count: int) -> int:
    """Raise this process's limit of open files as far as `count` connections need and the system allows.

    Returns how many of `count` it can hold: beyond, the system would drop who comes, whoever it is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = count + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    if soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    return count if soft >= count + _OTHER_FILES else max(1, min(count, soft - _open_files() - _FREE_FILES))


def _open_files() -> int:
    """Files that this process has open; half of those it would like to, where the system does not say."""
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return _OTHER_FILES // 2


def new_id() -> str:
    """A new request id."""
    return str(uuid4())


def warm_up(service: RankService) -> float:
    """Rank a few requests for stored items, so that buffers are allocated before the first real one.

    Returns the seconds that a candidate of the last but one took, for a first estimate.
    """
    bundle = service.bundle
    key, table = bundle.spec.key_feature("item"), bundle.store.candidates
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
