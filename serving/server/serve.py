"""`multigate serve`: verify and copy the bundle, start worker processes, announce readiness, shut down gracefully.

The supervisor (serving/server/supervisor.py) loads no model: workers do, each in a process of its own, and what fails
there fails there.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from rec.errors import BundleError, SpecError
from rec.progress import Progress
from serving.server.admin import AdminEndpoint, admin_pages
from serving.server.counters import ROWS, SharedCounters
from serving.server.event_log import event_lines, log_event
from serving.server.generations import Generation, GenerationStore, generation_store
from serving.server.listener import bind, listen, place
from serving.server.metrics import COLUMNS
from serving.server.settings import ServerSettings
from serving.server.supervisor import Supervisor
from serving.server.worker import Assignment, run_worker

_ADMIN_BACKLOG = 128


def serve(
    bundle_path: Path,
    *,
    host: str,
    port: int,
    workers: int,
    threads: int,
    progress: Progress,
    settings: ServerSettings,
    admin_port: int | None = None,
    token: str | None = None,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT; `threads` is the number of intra-op threads of each worker.

    Health, metrics and, with a `token`, control are on `admin_port` of 127.0.0.1 too. On SIGTERM /readyz returns 503
    for `settings.drain_seconds`, so that load balancers stop routing here, before connections are refused; accepted
    requests get their response. Raises, before listening, BundleError when the bundle cannot be used and OSError when
    an address is in use.
    """
    most = (ROWS - 1 - settings.spare_workers) // 2  # beside them, as many of another bundle
    if workers > most:
        raise SpecError(f"workers: expected at most {most}, got {workers}")
    with ExitStack() as stack:
        stack.enter_context(event_lines(settings.log_format))
        store = stack.enter_context(generation_store())
        generation = store.take(bundle_path)
        admin = None if admin_port is None else stack.enter_context(bind("127.0.0.1", admin_port))
        if admin is not None:
            listen(admin, _ADMIN_BACKLOG)  # before the other is bound, which then cannot have the same port
        address = stack.enter_context(bind(host, port))
        counters = SharedCounters(COLUMNS)
        assigned = {"threads": threads, "settings": settings, "address": address, "counters": counters}
        spawn = partial(_spawn, assigned)
        supervisor = Supervisor(spawn, address, settings, counters, workers=workers, log=log_event)
        log_event("started", host=host, port=port, workers=workers, **_named(generation))
        if admin is not None:
            promoting = threading.Lock()
            pages = AdminEndpoint(
                supervisor.metrics,
                ready=lambda: supervisor.ready,
                status=supervisor.status,
                promote=lambda path: _promote(supervisor, store, promoting, Path(path)),
                rollback=lambda: _rollback(supervisor),
                token=token,
            )
            stack.enter_context(admin_pages(pages, admin))

        def announce(worst: float) -> None:
            name = f"{generation.name} {generation.digest[:12]}"
            progress.say(f"{name}: files verified, golden scores agree to {worst:.1e}")
            log_event("ready", golden_difference=worst, **_named(generation))
            progress.say(f"ready: http://{place(host, port)}/v1/rank ({workers} x {threads} threads)")

        try:
            supervisor.run(generation, announce)
        except BundleError as error:
            raise BundleError(str(error).replace(str(generation.path), str(bundle_path))) from None
        log_event("stopped")
    progress.say("stopped")


def _spawn(assigned: Mapping[str, Any], generation: Generation, row: int) -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    assignment = Assignment(generation=generation, row=row, **assigned)
    process = context.Process(target=run_worker, args=(theirs, assignment))
    process.start()
    theirs.close()  # the worker has it; held here as well, its end would never come
    return process, ours


def _promote(supervisor: Supervisor, store: GenerationStore, promoting: threading.Lock, path: Path) -> Future[str]:
    with promoting:  # a copy is removed by nobody between being made and being asked for
        try:
            generation = store.take(path)
        except (BundleError, OSError) as error:
            log_event("promote_refused", reason=str(error))
            raise
        log_event("promote", **_named(generation))
        store.keep(supervisor.needed | {generation.digest})
        return supervisor.swap(generation)


def _rollback(supervisor: Supervisor) -> Future[str]:
    before = supervisor.previous
    if before is None:
        raise BundleError("nothing was served before")
    log_event("rollback", **_named(before))
    return supervisor.swap(before)


def _named(generation: Generation) -> dict[str, str | int]:
    """A generation as fields of an event."""
    return {"model": generation.name, "digest": generation.digest, "generation": generation.number}
