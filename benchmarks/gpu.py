"""Training on one CUDA device: examples per second of MMoE, HoME and AdaTT, beside the limits of the device.

    python benchmarks/gpu.py                            tables of 1, 10 and 50 GB
    python benchmarks/gpu.py --gigabytes 20 --models mmoe
    python benchmarks/gpu.py --small                    a few steps at toy sizes, on any machine

One table on standard output. Needs torch, torchrec, fbgemm and this checkout, and no data: batches of random ids lie in
host memory and are copied to the device for every step, ahead of it by a thread (`pipelined`) or in between. TorchRec's
TrainPipelineSparseDist overlaps the exchange of ids between devices, which one device has none of. `flat` repeats the
context for each candidate, as libraries without requests do. Every model has about as many dense weights as the MMoE.

    matrix    multiply-adds of a step, forward and backward, at the measured rate of a product, as a share of its time
    memory    bytes of rows of tables that it reads and writes at the measured rate of a copy, as a share of its time
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.speed import equal_size, synthetic
from rec.data import loader
from rec.data.prefetch import ahead
from rec.request import RequestBatch
from rec.spec import Spec
from rec.spec.tasks import given, in_order
from rec.training.step import Fit, new_fit, step

MODELS = ("mmoe", "home", "adatt")
PER_REQUEST = (20, 200)
_BATCHES = 4  # distinct ones, drawn before the clock starts
_AHEAD = 4  # batches that the thread has ready
_PASSES = 3  # forward, and the gradients of inputs and weights
_ROW_MOVES = 5  # a row is read and written out; its gradient is read, the row read and written
_TABLES = synthetic.CONTEXT + synthetic.CANDIDATE


@dataclass(frozen=True)
class Sizes:
    """Sizes of tables; candidates of a batch, steps; side of the square product, bytes of the copy."""

    gigabytes: Sequence[float]
    candidates: int
    steps: int
    side: int
    copied: int


FULL = Sizes((1, 10, 50), candidates=65_536, steps=20, side=8192, copied=1 << 30)
SMALL = Sizes((0.001,), candidates=400, steps=1, side=128, copied=1 << 20)


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    model: str
    gigabytes: float
    per_request: int
    shape: str
    precision: str
    pipelined: str
    examples_per_second: float
    matrix: float
    memory: float


@dataclass(frozen=True)
class Limits:
    """Multiply-adds per second by precision, and bytes per second."""

    products: dict[str, float]
    copy: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--small", action="store_true", help="toy sizes")
    options.add_argument("--gigabytes", type=float, nargs="+", help="sizes of all tables together")
    options.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    given = options.parse_args(arguments)
    sizes = SMALL if given.small else FULL
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    limits = measured_limits(sizes, device)
    rates = ", ".join(f"{kind} {2 * rate / 1e12:,.3f} TFLOP/s" for kind, rate in limits.products.items())
    sys.stdout.write(f"{name}; torch {torch.__version__}; {rates}, copy {limits.copy / 1e9:,.1f} GB/s\n\n")
    sys.stdout.write(" ".join(f"{field.name:>19}" for field in fields(Line)) + "\n")
    for model, gigabytes in product(given.models, given.gigabytes or sizes.gigabytes):
        for line in measured(model, gigabytes, sizes, limits, device):
            cells = (getattr(line, field.name) for field in fields(Line))
            sys.stdout.write(" ".join(f"{_text(cell):>19}" for cell in cells) + "\n")
            sys.stdout.flush()


def measured_limits(sizes: Sizes, device: torch.device) -> Limits:
    """The rate of a square product in each precision, and of a copy, which reads and writes."""
    rates = {}
    for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left = torch.ones(sizes.side, sizes.side, dtype=dtype, device=device)
        rates[kind] = sizes.side**3 / _seconds(lambda left=left: torch.mm(left, left), device)
    source = torch.zeros(sizes.copied // 4, device=device)
    target = torch.empty_like(source)
    return Limits(rates, 2 * sizes.copied / _seconds(lambda: target.copy_(source), device))


def measured(model: str, gigabytes: float, sizes: Sizes, limits: Limits, device: torch.device) -> Iterator[Line]:
    """A line for every number of candidates per request, shape, precision, and way to copy."""
    rows = max(2, round(gigabytes * 1e9 / (_TABLES * synthetic.DIM * 4)))
    described = _spec(model, rows, device)
    fit = new_fit(described, synthetic.preprocessor(described))
    fit.ranker.train()
    for per, shape in product(PER_REQUEST, ("requests", "flat")):
        batches = [drawn(described, rows, sizes.candidates, per, flat=shape == "flat", seed=n) for n in range(_BATCHES)]
        adds = _multiply_adds(described, per if shape == "requests" else 1) * sizes.candidates * _PASSES
        ids = sizes.candidates * synthetic.CANDIDATE + batches[0].size * synthetic.CONTEXT
        moved = ids * synthetic.DIM * 4 * _ROW_MOVES
        for precision, pipelined in product(("fp32", "bf16"), (False, True)):
            fit.ranker.bf16 = precision == "bf16"
            seconds = _step_seconds(fit, described, batches, sizes.steps, pipelined=pipelined)
            yield Line(
                model,
                gigabytes,
                per,
                shape,
                precision,
                "yes" if pipelined else "no",
                len(batches[0]) / seconds,
                adds / limits.products[precision] / seconds,
                moved / limits.copy / seconds,
            )


def drawn(described: Spec, rows: int, candidates: int, per_request: int, *, flat: bool, seed: int) -> RequestBatch:
    """A numpy batch of random ids and labels; `flat` makes every candidate a request with a context of its own."""
    draw = np.random.default_rng(seed)
    requests = candidates // per_request
    owner = np.arange(requests).repeat(per_request)
    context = {name: draw.integers(1, rows, requests) for name in described.context}
    return RequestBatch(
        size=len(owner) if flat else requests,
        context={name: ids[owner] for name, ids in context.items()} if flat else context,
        candidates={name: draw.integers(1, rows, len(owner)) for name in described.candidates},
        owner=np.arange(len(owner)) if flat else owner,
        labels={name: (draw.random(len(owner)) < 0.2).astype(np.int8) for name in in_order(described.tasks)},
    )


def _step_seconds(fit: Fit, described: Spec, batches: Sequence[RequestBatch], steps: int, *, pipelined: bool) -> float:
    """Mean seconds of a step, the copies to the device included."""

    def run(count: int) -> None:
        copied = (loader.tensors(batch, fit.device) for batch in islice(cycle(batches), count))
        for batch in ahead(copied, _AHEAD) if pipelined else copied:
            step(fit, described, batch)
        _wait(fit.device)

    run(2)  # compiles kernels and fills caches
    began = time.perf_counter()
    run(steps)
    return (time.perf_counter() - began) / steps


def _seconds(work: Callable[[], object], device: torch.device, *, repeats: int = 5) -> float:
    work()
    _wait(device)
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    _wait(device)
    return (time.perf_counter() - began) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _spec(model: str, rows: int, device: torch.device) -> Spec:
    described = synthetic.spec(rows)
    settings = described.model
    if model != settings["name"]:
        parameters = equal_size.parameters(settings, **_shape(described))
        unscaled = {"name": model, "tower_widths": settings["tower_widths"]}
        settings = equal_size.fitted_to(unscaled, **_shape(described), parameters=parameters)
    train = described.train.model_copy(update={"device": device.type})
    return described.model_copy(update={"model": settings, "train": train})


def _shape(described: Spec) -> dict[str, Any]:
    width = synthetic.DIM
    return {
        "context": synthetic.CONTEXT * width,
        "candidate": synthetic.CANDIDATE * width,
        "tasks": given(described.tasks),
    }


def _multiply_adds(described: Spec, per_request: int) -> float:
    return equal_size.multiply_adds(described.model, **_shape(described), per_request=per_request)


def _text(cell: object) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:,.0f}" if cell >= 100 else f"{cell:.3g}"


if __name__ == "__main__":
    main()
