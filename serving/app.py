"""`multigate serve`: verify the bundle, start worker processes, say when they are warm, stop without losing a request.

Workers are started afresh rather than forked: an ONNX Runtime session and Arrow's threads do not survive a fork, and a
fresh process holds only what a server needs, which is neither torch nor polars. The bundle's large files are mapped,
so workers share their memory.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Event, Semaphore
from pathlib import Path
from uuid import uuid4

import msgspec
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from rec.errors import BundleError
from rec.progress import Progress
from serving.asgi import App
from serving.bundle import Bundle, load
from serving.metrics import Metrics
from serving.rank import Ranker
from serving.scorer import Scorer, check_golden

_HEADER_MS = 30_000  # a connection may idle, or take over its headers, this long: hyper has one clock for both
_KILL_SECONDS = 15  # a worker may take this long over the requests it still holds
_GC_OBJECTS = 100_000  # new containers before the collector looks for cycles, about 100 requests of 500 candidates
# candidates of the requests a worker answers before the first real one; the largest first, so that ONNX Runtime takes
# its memory in one piece
_WARM = (2000, 200, 1)


@dataclass(frozen=True)
class _Shared:
    """What all processes of one server share."""

    folder: Path
    warm: Semaphore
    draining: Event


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
    _check_free(host, port)
    multiprocessing.set_start_method("spawn", force=True)
    with tempfile.TemporaryDirectory(prefix="multigate-") as folder:
        shared = _Shared(Path(folder), multiprocessing.Semaphore(0), multiprocessing.Event())
        server = _server(bundle, host, port, workers)
        _drain_first(server, shared.draining, drain_seconds)
        announce = partial(progress.say, f"ready: http://{host}:{port}/v1/rank ({workers} x {threads} threads)")
        waiting = threading.Thread(target=_announce, args=(shared.warm, workers, (host, port), announce), daemon=True)
        waiting.start()
        try:
            server.serve(target_loader=partial(worker, bundle_path, threads, shared), wrap_loader=False)
        except SystemExit:
            raise BundleError(f"{bundle_path}: the workers did not stay up; their own messages are above") from None
    progress.say("stopped")


def worker(bundle_path: Path, threads: int, shared: _Shared) -> App:
    """The app of one worker process, loaded, checked and warm."""
    bundle = load(bundle_path)
    app, ranker = make_app(bundle, shared.folder, threads=threads, ready=lambda: not shared.draining.is_set())
    warm(bundle, ranker)
    # what was loaded lives as long as the process, and a request leaves no cycles: look rarely, and not at all of it
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS)
    asyncio.get_event_loop().call_soon(_started, shared.warm)
    return app


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


def _server(bundle: Bundle, host: str, port: int, workers: int) -> MPServer:
    in_flight = bundle.spec.serve.in_flight
    return MPServer(
        target="multigate",
        address=host,
        port=port,
        interface=Interfaces.ASGINL,
        workers=workers,
        loop=Loops.auto,  # uvloop where it is installed
        http=HTTPModes.http1,
        websockets=False,
        # more than the app admits, so that it is the app that refuses, and says so
        backpressure=16 * in_flight,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_MS),
        log_level=LogLevels.warning,
        respawn_failed_workers=True,
        workers_kill_timeout=_KILL_SECONDS,
    )


def _check_free(host: str, port: int) -> None:
    """Refuse a taken address: the workers' own sockets would silently share it with another server of this user."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise OSError(f"{host}:{port}: cannot listen here: {error.strerror}") from None


def _drain_first(server: MPServer, draining: Event, seconds: float) -> None:
    """Let SIGTERM announce the stop `seconds` before it comes; SIGINT, or a second signal, stops at once."""
    stop = server.signal_handler_interrupt

    def interrupted(number: int, frame: object) -> None:
        again = draining.is_set()
        draining.set()
        if again or number == signal.SIGINT:
            stop(number, frame)
        else:
            threading.Timer(seconds, stop).start()

    server.signal_handler_interrupt = interrupted


def _announce(warm_workers: Semaphore, workers: int, address: tuple[str, int], say: Callable[[], None]) -> None:
    """Say it once every worker is warm and connections are taken."""
    for _ in range(workers):
        warm_workers.acquire()
    while True:
        try:
            socket.create_connection(address, timeout=1.0).close()
        except OSError:
            time.sleep(0.01)
        else:
            break
    say()


def _started(warm_workers: Semaphore) -> None:
    """The worker's event loop runs.

    Ctrl-C reaches the whole process group; only the parent may act on it, or requests in flight would be lost.
    """
    asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm_workers.release()
