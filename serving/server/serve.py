"""`multigate serve`: verify and copy the bundle, start worker processes, announce readiness, shut down gracefully.

The supervisor (serving/server/supervisor.py) loads no model: workers do, each in a process of its own, and what fails
there fails there.
"""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Mapping
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
from serving.server.generations import Generation, generation_store
from serving.server.label_changes import BundleChanges, LabelChanges, named
from serving.server.labels import LABELS, ROWS_OF, Label, label_of
from serving.server.listener import bind, bind_private, listen, place
from serving.server.metric_series import COLUMNS
from serving.server.models_folder import models_folder
from serving.server.settings import ServerSettings
from serving.server.supervisor import Supervisor
from serving.server.worker import Assignment, run_worker

_ADMIN_BACKLOG = 128


def serve(
    path: Path,
    *,
    host: str,
    port: int,
    workers: int,
    threads: int,
    progress: Progress,
    settings: ServerSettings,
    admin_port: int | None = None,
    token: str | None = None,
    models: bool = False,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT; `threads` is the number of intra-op threads of each worker.

    With `models`, the path is a folder of versions, those of which are served that have labels. Health, metrics and,
    with a `token`, control are on `admin_port` of 127.0.0.1 too. On SIGTERM /readyz returns 503 for
    `settings.drain_seconds`, so that load balancers stop routing here, before connections are refused; accepted
    requests get their response. Raises, before listening, BundleError when the bundle cannot be used and OSError when
    an address is in use.
    """
    _check_workers(workers, settings, models=models)
    with ExitStack() as stack:
        stack.enter_context(event_lines(settings.log_format))
        store = stack.enter_context(generation_store())
        folder = stack.enter_context(models_folder(path)) if models else None
        generation = store.take(path) if folder is None else folder.generation(folder.labels.stable)
        admin = None if admin_port is None else stack.enter_context(_admin(admin_port))
        addresses: dict[Label, socket.socket] = {"stable": stack.enter_context(bind(host, port))}
        counters = SharedCounters(COLUMNS)
        assigned = {"threads": threads, "settings": settings, "counters": counters}
        if folder is not None:
            assigned["sockets"] = store.folder
            addresses |= {label: stack.enter_context(bind_private(store.folder / label)) for label in LABELS[1:]}
        spawn = partial(_spawn, assigned, addresses)
        salt = None if folder is None else folder.labels.salt
        supervisor = Supervisor(
            spawn, addresses["stable"], settings, counters, workers=workers, log=log_event, salt=salt
        )
        log_event("started", host=host, port=port, workers=workers, **named(generation))
        changes = BundleChanges(supervisor, store) if folder is None else LabelChanges(supervisor, folder)
        if admin is not None:
            pages = AdminEndpoint(supervisor.metrics, changes, ready=lambda: supervisor.ready, token=token)
            stack.enter_context(admin_pages(pages, admin))

        def announce(worst: float) -> None:
            name = f"{generation.name} {generation.digest[:12]}"
            progress.say(f"{name}: files verified, golden scores agree to {worst:.1e}")
            log_event("ready", golden_difference=worst, **named(generation))
            if isinstance(changes, LabelChanges):
                changes.begin(generation)
            progress.say(f"ready: http://{place(host, port)}/v1/rank ({workers} x {threads} threads)")

        try:
            supervisor.run(generation, announce)
        except BundleError as error:
            raise BundleError(str(error).replace(str(generation.path), str(path / generation.version))) from None
        log_event("stopped")
    progress.say("stopped")


def _admin(port: int) -> socket.socket:
    """The listener of the admin pages; bound before the public one, which then cannot have the same port."""
    admin = bind("127.0.0.1", port)
    listen(admin, _ADMIN_BACKLOG)
    return admin


def _check_workers(workers: int, settings: ServerSettings, *, models: bool) -> None:
    """SpecError where the counters have no rows for so many, and as many of another bundle beside them."""
    rows = min(len(ROWS_OF["stable"]), len(ROWS_OF["canary"])) if models else ROWS
    most = (rows - 1 - settings.spare_workers) // 2
    if workers > most:
        raise SpecError(f"workers: expected at most {most}, got {workers}")


def _spawn(
    assigned: Mapping[str, Any], addresses: Mapping[Label, socket.socket], generation: Generation, row: int
) -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    label = label_of(row) if len(addresses) > 1 else None
    address = addresses[label or "stable"]
    assignment = Assignment(generation=generation, row=row, address=address, label=label, **assigned)
    process = context.Process(target=run_worker, args=(theirs, assignment))
    process.start()
    theirs.close()  # the worker has it; held here as well, its end would never come
    return process, ours
