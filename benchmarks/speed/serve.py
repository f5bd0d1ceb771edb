"""What HTTP, JSON and features add to the model: one request of 50 to 1000 candidates, timed at three depths.

    run      ONNX Runtime's own run() on inputs that lie ready, one thread
    score    Scorer.score: run, feeds, and the check that every score is finite
    answer   RankService.rank: the body's bytes to the answer's bytes, in this process
    http     the same body over a kept-alive connection to a server process on this machine
    columns  the same request and answer over HTTP in columns: {"item_id": [...]} in, {"score": [...]} out

Depths take turns of a few calls each, so that whatever else the machine does falls on all alike. A request sends ids
and nothing else; users and items come from the bundle's store.
"""

from __future__ import annotations

import multiprocessing
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.speed.served import served
from rec.data.session_table import to_batch
from rec.errors import BundleError
from rec.progress import Progress, Silent
from serving.bundle import Bundle, load
from serving.graph.signature import output_names
from serving.online.rank import RankService
from serving.scorer import Scorer
from serving.server.settings import ServerSettings

SIZES = (50, 200, 500, 1000)
WARM = 10
TURN = 10  # calls of one depth before the next has its turn: a server does not idle between requests
_TABLE_ROWS = 100_000


def bench(*, bundle: Path | None, sizes: Sequence[int], repeats: int, progress: Progress) -> dict[str, Any]:
    """A row per size: median and p99 milliseconds at every depth, and the whole over run; None makes a bundle.

    Raises BundleError when the bundle's store holds fewer items than a size asks for.
    """
    with ExitStack() as stack:
        path = bundle or stack.enter_context(bench_bundle(progress))
        opened = load(path)
        scorer = Scorer(opened, threads=1)
        service = RankService(opened, scorer, new_id=lambda: "bench")
        connection = stack.enter_context(server(path))
        progress.start("bench serve", len(sizes) * repeats)
        rows = [_row(_depths(opened, service, scorer, connection, size), size, repeats, progress) for size in sizes]
    return {"bundle": opened.name, "threads": 1, "repeats": repeats, "unit": "ms", "rows": rows}


@contextmanager
def bench_bundle(progress: Progress) -> Iterator[Path]:
    """A bundle of the bench's MMoE, trained for a moment; gone when the block ends."""
    with bench_folder(progress) as folder:
        yield folder / "bundle"


@contextmanager
def bench_folder(progress: Progress) -> Iterator[Path]:
    """A folder with that `bundle` and the `data` it is trained on; gone when the block ends.

    Made in a process of its own: torch must not share one with what is measured.
    """
    progress.say("making a bundle of 20 id features x 16, 8 experts 256-128, 3 tasks")
    with tempfile.TemporaryDirectory(prefix="multigate-bench-") as folder:
        maker = multiprocessing.get_context("spawn").Process(target=_make_bundle, args=(Path(folder),))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise BundleError("bench: the bundle could not be made; the reason is above")
        yield Path(folder)


def _make_bundle(folder: Path) -> None:
    from benchmarks.speed import synthetic
    from rec.training import trainer
    from serving import export

    described = synthetic.spec(_TABLE_ROWS)
    sizes = {"users": 10_000, "items": 50_000, "requests": 2_000, "per_request": 20}
    synthetic.write_data(described, folder / "data", **sizes, seed=1)
    trainer.train(described, folder / "data", folder / "run", progress=Silent())
    export.export(folder / "run", folder / "bundle", data=folder / "data", progress=Silent())


@contextmanager
def server(bundle: Path) -> Iterator[socket.socket]:
    """A connection to a server of a bundle, one worker with one thread, which stops when the block ends."""
    with served(bundle, settings=ServerSettings(drain_seconds=0.0)) as (port, _, _), socket.socket() as connection:
        connection.settimeout(30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # room for a whole answer, so that the server never waits for this client to read
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        connection.connect(("127.0.0.1", port))
        yield connection


def body_of(bundle: Bundle, size: int) -> bytes:
    """A request for `size` stored items and a stored user, by their ids alone."""
    context, candidates = {}, {}
    for side, key, rows, into in (
        ("context", bundle.spec.key_feature("user"), bundle.store.context, context),
        ("candidates", bundle.spec.key_feature("item"), bundle.store.candidates, candidates),
    ):
        if key is None or rows is None:
            raise BundleError(f"{bundle.path}: has no store of {side}; this bench sends ids only")
        into["key"], into["ids"] = key, rows.rows.field(key)
    if len(candidates["ids"]) < size:
        raise BundleError(f"{bundle.path}: {size} candidates asked for, the store knows {len(candidates['ids'])}")
    picked = np.random.default_rng(size).choice(len(candidates["ids"]), size, replace=False)
    ids = candidates["ids"].take(picked).to_pylist()
    return msgspec.json.encode(
        {
            "time": "2026-01-01T00:00:00Z",
            "context": {context["key"]: context["ids"][0].as_py()},
            "candidates": [{candidates["key"]: item} for item in ids],
        }
    )


def _depths(
    bundle: Bundle, service: RankService, scorer: Scorer, connection: socket.socket, size: int
) -> dict[str, Callable[[], object]]:
    body = body_of(bundle, size)
    batch = to_batch(service.row(body, 0), bundle.spec, bundle.preprocessor.encoders)
    feeds, names = scorer.feeds(batch), output_names(bundle.spec)
    message, columns = post(body), post(in_columns(body))
    room = bytearray(1 << 22)
    return {
        "run": lambda: scorer.session.run(names, feeds),
        "score": lambda: scorer.score(batch),
        "answer": lambda: service.rank(body, 0),
        "http": lambda: ask(connection, message, room),
        "columns": lambda: ask(connection, columns, room),
    }


def in_columns(body: bytes) -> bytes:
    """A request in rows as one in columns."""
    tree = msgspec.json.decode(body)
    names = tree["candidates"][0]
    tree["candidates"] = {name: [candidate[name] for candidate in tree["candidates"]] for name in names}
    return msgspec.json.encode(tree)


def post(body: bytes) -> bytes:
    """A whole HTTP request for /v1/rank."""
    head = f"POST /v1/rank HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def ask(connection: socket.socket, message: bytes, room: bytearray) -> bytes:
    """The body that answers a whole HTTP request on a kept-alive connection; BundleError when it is not a 200.

    By hand and into `room`, because http.client costs as much as the server does.
    """
    connection.sendall(message)
    view, size, whole, end = memoryview(room), 0, 0, -1
    while not whole or size < whole:
        got = connection.recv_into(view[size:])
        if not got:
            raise BundleError("bench: the server hung up")
        size += got
        end = room.find(b"\r\n\r\n", 0, size)
        if not whole and end >= 0:
            head = bytes(view[:end]).lower()
            whole = end + 4 + int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    if not room.startswith(b"HTTP/1.1 200 "):
        raise BundleError(f"bench: the server answered {bytes(view[:200])!r}")
    return bytes(view[end + 4 : size])


@dataclass
class _Times:
    """Seconds of every repeat of one depth."""

    seconds: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        return {
            "median": round(1000 * float(np.median(self.seconds)), 3),
            "p99": round(1000 * float(np.quantile(self.seconds, 0.99)), 3),
        }


def _row(depths: Mapping[str, Callable[[], object]], size: int, repeats: int, progress: Progress) -> dict[str, Any]:
    for work in depths.values():
        for _ in range(WARM):
            work()
    times = {name: _Times() for name in depths}
    for _ in range(-(-repeats // TURN)):
        for name, work in depths.items():
            for _ in range(TURN):
                began = time.perf_counter()
                work()
                times[name].seconds.append(time.perf_counter() - began)
        progress.advance(TURN)
    figures = {name: timed.figures() for name, timed in times.items()}
    run = figures["run"]["median"]
    whole = {f"{name}/run": round(figures[name]["median"] / run, 3) for name in ("http", "columns")}
    return {"candidates": size, **figures, **whole}
