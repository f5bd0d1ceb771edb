"""Swaps under load: another bundle taken into service again and again while requests arrive at a share of the peak.

    multigate bench swaps --bundle DIR --times 100 --rate 0.8

Two copies of a bundle, which differ in their digest alone, take turns. Requests are sent at moments drawn beforehand,
half of them on kept and half on new connections. One that is refused (503) found the machine too busy with loading;
one that is answered otherwise than with 200, or not at all, is a failure. Latencies are compared with those before the
first swap, memory and descriptors of all processes with those after the first.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz import good, post
from benchmarks.load import peak_rate
from benchmarks.speed.http_client import OK, Client
from benchmarks.speed.served import TOKEN, held, served
from rec.errors import BundleError
from rec.progress import Progress
from serving.bundle import load
from serving.server.settings import ServerSettings

_QUEUE_SECONDS = 10.0  # less than a worker that leaves has for those who wait, and than clients have patience


@dataclass
class Arrivals:
    """Requests at `rate` a second on an event loop in a thread; the moments and seconds of answers with 200."""

    port: int
    message: bytes
    rate: float
    seed: int
    seconds: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    refused: int = 0
    failures: list[int] = field(default_factory=list[int])
    stopped: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """While the block runs."""
        thread = threading.Thread(target=lambda: asyncio.run(self._send()))
        thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            thread.join()

    async def _send(self) -> None:
        clients = [Client(self.port, kept=True), Client(self.port, kept=False)]
        draw, tasks = np.random.default_rng(self.seed), set[asyncio.Task[None]]()
        moment, turn = time.perf_counter(), 0
        while not self.stopped.is_set():
            moment += draw.exponential(1 / self.rate)
            await asyncio.sleep(max(0.0, moment - time.perf_counter()))
            task = asyncio.create_task(self._ask(clients[turn % 2], moment))
            turn += 1
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        clients[0].close()

    async def _ask(self, client: Client, moment: float) -> None:
        status = await client.ask(self.message)
        if status == OK:
            self.seconds.append((moment, time.perf_counter() - moment))
        elif status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.refused += 1
        else:
            self.failures.append(status)


def bench(
    *, bundle: Path, times: int, rate: float, seed: int, progress: Progress, calm_seconds: float = 10.0
) -> dict[str, Any]:
    """Swap `times` times at `rate` of the peak; BundleError where a request failed."""
    message = post(good(load(bundle)))
    with tempfile.TemporaryDirectory(prefix="multigate-bench-") as folder:
        copies = [Path(shutil.copytree(bundle, Path(folder) / str(index))) for index in range(2)]
        with (copies[1] / "manifest.json").open("a") as manifest:
            manifest.write("\n")
        with served(copies[0], settings=ServerSettings(queue_seconds=_QUEUE_SECONDS)) as (port, admin, process):
            peak = asyncio.run(peak_rate(port, message))
            arrivals = Arrivals(port, message, rate * peak, seed)
            with arrivals.arriving():
                time.sleep(calm_seconds)
                first = time.perf_counter()
                _promote(admin, copies[1])
                before = _settled(process, calm_seconds)
                progress.start("swaps", times, "swaps")
                for index in range(times):
                    _promote(admin, copies[index % 2])
                    progress.advance(1)
                after = _settled(process, calm_seconds)
    if arrivals.failures:
        raise BundleError(f"swaps: {len(arrivals.failures)} requests failed, the first with {arrivals.failures[0]}")
    moments, seconds = np.array(arrivals.seconds).T
    parts = (seconds[moments < first], seconds[moments >= first])
    p99 = [round(1000 * float(np.quantile(part, 0.99)), 2) for part in parts]
    figures = {
        "requests": len(seconds),
        "refused": arrivals.refused,
        "failures": 0,
        "rate": round(rate * peak, 1),
        "p99_ms": p99,
        "p99_ratio": round(p99[1] / p99[0], 2),
    }
    return {"swaps": times + 1, **figures, "memory_mib": [before[0], after[0]], "descriptors": [before[1], after[1]]}


def _promote(port: int, bundle: Path) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    body = json.dumps({"bundle": str(bundle)}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/promote", body, headers)
    with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310  our own server
        answer.read()


def _settled(process: int, calm_seconds: float) -> tuple[int, int]:
    """Memory and descriptors when those that leave have left."""
    time.sleep(calm_seconds)
    return held(process)
