"""Load from intended send times: what an endpoint answers at shares of its peak, and whether it stays so.

    multigate bench load --bundle DIR --rates 0.5,0.8,2,5       seconds of each, on kept and on new connections
    multigate bench load --bundle DIR --rates 0.5 --seconds 3600 --connections kept      a soak

The peak is measured first: clients that ask without pause. Then requests are sent at moments drawn beforehand (a
Poisson process by a seed), whether or not earlier ones were answered, and latency counts from the intended moment: a
server that stops for a second is charged for every request of that second ("coordinated omission"; Tene, How NOT to
Measure Latency, 2015). Meanwhile /livez and /readyz are asked ten times a second, each on a new connection.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.speed.http_client import OK, Client
from benchmarks.speed.serve import body_of, post
from benchmarks.speed.served import core_seconds, held, served
from rec.errors import BundleError
from rec.progress import Progress
from serving.bundle import load
from serving.server.settings import ServerSettings

Connections = Literal["kept", "new"]
PEAK_CLIENTS, PEAK_SECONDS = 16, 3.0
WINDOWS = 10  # of a rate, between which drift is seen
_PROBE_SECONDS = 0.1


@dataclass(frozen=True)
class Rate:
    """A share of the peak, and what came of it. Latencies are of answers with status 200, from the intended moment.

    `goodput` is how many of these there are a second, until the last of them. `server_cores` and `client_cores` are
    core seconds a second: a server under overload that got less than a core a worker was held back by the machine.
    """

    of_peak: float
    connections: Connections
    offered: int
    answered: int
    goodput: float
    refused: int
    failed: int
    p50_ms: float
    p99_ms: float
    probe_p99_ms: float
    late_ms: float
    drift: float
    server_cores: float
    client_cores: float


@dataclass
class Tally:
    """Statuses (0: no answer), moments and seconds of answers with 200, seconds of probes, seconds sent too late."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    seconds: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    probes: list[float] = field(default_factory=list[float])
    late: list[float] = field(default_factory=list[float])


@dataclass
class Cores:
    """Core seconds a second of a server's processes and of this one, the client's, since it was made."""

    process: int

    def __post_init__(self) -> None:
        """Begins now."""
        self._began = self._used()

    def shares(self) -> tuple[float, float]:
        """Of the server and of the client, until now."""
        wall, server, client = (now - then for now, then in zip(self._used(), self._began, strict=True))
        return round(server / wall, 2), round(client / wall, 2)

    def _used(self) -> tuple[float, float, float]:
        return time.perf_counter(), core_seconds(self.process), time.process_time()


def bench(
    *,
    bundle: Path,
    rates: Sequence[float],
    seconds: float,
    candidates: int,
    connections: Sequence[Connections],
    workers: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """A row per rate and kind of connection; memory and descriptors before and after.

    Raises BundleError where a connection failed: a request that was neither answered nor refused.
    """
    import uvloop

    message = post(body_of(load(bundle), candidates))
    with served(bundle, workers=workers, settings=ServerSettings()) as (port, _, process):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            cores = Cores(process)
            peak, peak_cores = runner.run(peak_rate(port, message)), cores.shares()
            before, rows = held(process), []
            progress.start("load", round(len(rates) * len(connections) * seconds), "s")
            for share in rates:
                for kind in connections:
                    draw = np.random.default_rng([seed, len(rows)])
                    rate = share * peak
                    moments = np.cumsum(draw.exponential(1 / rate, size=max(1, round(rate * seconds))))
                    cores = Cores(process)
                    tally = runner.run(offered(port, message, moments, kind, progress))
                    rows.append(_row(share, kind, moments, tally, cores.shares()))
        after = held(process)
    if failed := sum(row.failed for row in rows):
        raise BundleError(f"load: {failed} requests were neither answered nor refused: {json.dumps(str(rows))}")
    grown = {"memory_mib": [before[0], after[0]], "descriptors": [before[1], after[1]]}
    at_peak = {"peak_per_second": round(peak, 1), "peak_cores": list(peak_cores)}
    return {**at_peak, "candidates": candidates, "workers": workers, **grown, "rows": rows}


async def peak_rate(port: int, message: bytes) -> float:
    """Answers a second to clients that ask without pause."""
    client, statuses = Client(port, kept=True), Counter[int]()
    end = time.perf_counter() + PEAK_SECONDS

    async def ask() -> None:
        while time.perf_counter() < end:
            statuses[await client.ask(message)] += 1

    await asyncio.gather(*(ask() for _ in range(PEAK_CLIENTS)))
    client.close()
    return statuses[OK] / PEAK_SECONDS


async def offered(port: int, message: bytes, moments: np.ndarray, kind: Connections, progress: Progress) -> Tally:
    """Every request at its moment (seconds from now), and probes beside them."""
    tally, client, tasks = Tally(), Client(port, kept=kind == "kept"), set[asyncio.Task[None]]()
    began, reported = time.perf_counter(), 0

    async def one(moment: float) -> None:
        status = await client.ask(message)
        tally.statuses[status] += 1
        if status == OK:
            tally.seconds.append((moment, time.perf_counter() - began - moment))

    probing = asyncio.create_task(_probed(port, tally))
    for moment in moments.tolist():
        wait = began + moment - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tally.late.append(max(0.0, time.perf_counter() - began - moment))
        task = asyncio.create_task(one(moment))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if moment - reported >= 1:
            progress.advance(int(moment) - reported)
            reported = int(moment)
    await asyncio.gather(*tasks)
    probing.cancel()
    client.close()
    return tally


async def _probed(port: int, tally: Tally) -> None:
    """Ask for health on new connections until cancelled."""
    client, page = Client(port, kept=False), 0
    while True:
        began = time.perf_counter()
        path = ("/livez", "/readyz")[page % 2]
        await client.ask(f"GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n".encode())
        tally.probes.append(time.perf_counter() - began)
        page += 1
        await asyncio.sleep(_PROBE_SECONDS)


def _row(share: float, kind: Connections, moments: np.ndarray, tally: Tally, cores: tuple[float, float]) -> Rate:
    answered, failed = tally.statuses[OK], tally.statuses[0]
    meant, seconds = np.array(tally.seconds or [(0.0, float("nan"))]).T
    window = np.minimum((meant / moments[-1] * WINDOWS).astype(int), WINDOWS - 1)
    end = max(float(moments[-1]), float(np.nanmax(meant + seconds))) if tally.seconds else float(moments[-1])
    p99 = [float(np.quantile(seconds[window == w], 0.99)) for w in range(WINDOWS) if (window == w).any()]
    return Rate(
        of_peak=share,
        connections=kind,
        offered=len(moments),
        answered=answered,
        goodput=round(answered / end, 1),
        refused=len(moments) - answered - failed,
        failed=failed,
        p50_ms=round(1000 * float(np.quantile(seconds, 0.5)), 2),
        p99_ms=round(1000 * float(np.quantile(seconds, 0.99)), 2),
        probe_p99_ms=round(1000 * float(np.quantile(tally.probes, 0.99)), 2),
        late_ms=round(1000 * float(np.quantile(tally.late, 0.99)), 2),
        drift=round(p99[-1] / p99[0], 2),
        server_cores=cores[0],
        client_cores=cores[1],
    )
