"""Who is served while strangers hold thousands of connections.

    multigate bench crowd --bundle DIR --idle 5000 --heads 1000 --bodies 1000 --unread 200

Requests at a share of the peak, on kept connections at moments drawn beforehand: without strangers, among them, and
after they have left. A request that is not answered or refused is a failure.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load import Cores, Tally, offered, peak_rate
from benchmarks.speed.serve import body_of, post
from benchmarks.speed.served import held, served
from benchmarks.strangers import gathered
from rec.errors import BundleError
from rec.progress import Progress
from serving.bundle import load
from serving.server.settings import ServerSettings

# that the server gets to accept the last stranger, and to see the last one leave
_ARRIVING_SECONDS, _LEAVING_SECONDS = 1.0, 2.0


@dataclass(frozen=True)
class Phase:
    """Requests of those who want to be served; memory and descriptors are of all processes of the server.

    `server_cores` and `client_cores` are core seconds a second; what strangers cost themselves is in neither.
    """

    strangers: int
    returned: int
    offered: int
    answered: int
    refused: int
    failed: int
    p50_ms: float
    p99_ms: float
    probe_p99_ms: float
    memory_mib: int
    descriptors: int
    server_cores: float
    client_cores: float


def bench(
    *,
    bundle: Path,
    crowd: Mapping[str, int],
    rate: float,
    seconds: float,
    candidates: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """A row without strangers, one among them, one after them. BundleError where a request failed."""
    import uvloop

    message = post(body_of(load(bundle), candidates))
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with served(bundle, settings=ServerSettings()) as (port, _, process), runner:
        per_second = rate * runner.run(peak_rate(port, message))
        draw, rows = np.random.default_rng(seed), list[Phase]()
        progress.start("crowd", round(3 * seconds), "s")
        for present in ({}, crowd, {}):
            moments = np.cumsum(draw.exponential(1 / per_second, size=max(1, round(per_second * seconds))))
            with _strangers(port, present) as returned:
                cores = Cores(process)
                tally = runner.run(offered(port, message, moments, "kept", progress))
                shares = cores.shares()
                used = *held(process), *shares
                rows.append(_phase(sum(present.values()), returned(), len(moments), tally, used))
            time.sleep(_LEAVING_SECONDS if present else 0)
    refuse_failed(rows)
    p99_ratio = round(rows[1].p99_ms / rows[0].p99_ms, 2)
    return {**crowd, "rate": round(per_second, 1), "candidates": candidates, "p99_ratio": p99_ratio, "rows": rows}


def refuse_failed(rows: Sequence[Phase]) -> None:
    """BundleError with all phases where a request was neither answered nor refused."""
    if failed := sum(row.failed for row in rows):
        phases = json.dumps([asdict(row) for row in rows])
        raise BundleError(f"crowd: {failed} requests were neither answered nor refused: {phases}")


@contextmanager
def _strangers(port: int, crowd: Mapping[str, int]) -> Iterator[Any]:
    """While the block runs; a function that says how many were dropped and came back."""
    if not crowd:
        yield lambda: 0
        return
    with gathered(port, crowd) as returned:
        time.sleep(_ARRIVING_SECONDS)
        before = returned.value
        yield lambda: returned.value - before


def _phase(strangers: int, returned: int, sent: int, tally: Tally, used: tuple[int, int, float, float]) -> Phase:
    answered = tally.statuses[HTTPStatus.OK]
    refused = tally.statuses[HTTPStatus.SERVICE_UNAVAILABLE] + tally.statuses[HTTPStatus.TOO_MANY_REQUESTS]
    seconds = np.array([each for _, each in tally.seconds] or [float("nan")])
    return Phase(
        strangers=strangers,
        returned=returned,
        offered=sent,
        answered=answered,
        refused=refused,
        failed=sent - answered - refused,
        p50_ms=_milliseconds(seconds, 0.5),
        p99_ms=_milliseconds(seconds, 0.99),
        probe_p99_ms=_milliseconds(np.array(tally.probes), 0.99),
        memory_mib=used[0],
        descriptors=used[1],
        server_cores=used[2],
        client_cores=used[3],
    )


def _milliseconds(seconds: np.ndarray, quantile: float) -> float:
    return round(1000 * float(np.quantile(seconds, quantile)), 2)
