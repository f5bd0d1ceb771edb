"""A training step beside its floor, in fp32 and bf16, and the loader beside the step.

All figures are core seconds (of the process, by the kernel's clock), which other work on the machine changes little;
one thread. What is compared is measured in turn.

The floor of a step is its multiply-adds at the rate of the largest matrix product of it, and the bytes of the rows of
tables that it reads and writes at the rate of a copy. Each multiply-add of the forward pass has two in the backward.
The floor of its own products has the time of each product of the step by itself instead (products.py). bf16 is left
out on a CPU that is slower in it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.speed import equal_size, synthetic
from benchmarks.speed.training import files, products
from rec.data import loader
from rec.modules import precision
from rec.progress import Progress
from rec.spec import Spec
from rec.spec.tasks import given
from rec.training.step import new_fit, step

ROWS = 10_000  # of a table, in these measurements
_PASSES = 3  # forward, and the gradients of inputs and weights
_BYTES_OF_ROW = 16 * 4
# a row is read and written out; its gradient is read, the row read and written, and so is one number of its optimizer
_ROW_MOVES = 5
_COPIED = 1 << 26  # bytes of the copy that measures bandwidth


@dataclass(frozen=True)
class StepFloor:
    """Core milliseconds of a step, medians; ratios are medians of those of each repeat."""

    candidates: int
    candidates_per_request: int
    fp32_ms: float
    fp32_of_floor: float
    fp32_of_products: float
    bf16_ms: float | None = None
    bf16_faster: float | None = None
    bf16_of_floor: float | None = None
    bf16_of_products: float | None = None


@dataclass(frozen=True)
class LoaderSpeed:
    """Candidates per core second of the loader alone, and of a step."""

    candidates_per_request: int
    loader: float
    fp32_step: float
    of_fp32: float
    bf16_step: float | None = None
    of_bf16: float | None = None


def floors(sizes: Sequence[tuple[int, int]], *, repeats: int, progress: Progress) -> list[StepFloor]:
    """A row for every (candidates, candidates per request)."""
    progress.start("bench train: steps", len(sizes) * repeats)
    return [_floor(*size, repeats=repeats, progress=progress) for size in sizes]


def loaders(
    per_requests: Sequence[int], *, candidates: int, batch: int, repeats: int, progress: Progress
) -> list[LoaderSpeed]:
    """A row for every number of candidates per request: an epoch of `candidates`, as batches of tensors."""
    progress.start("bench train: loader", len(per_requests) * repeats)
    return [_loader(per, candidates, batch, repeats, progress) for per in per_requests]


def precisions() -> tuple[str, ...]:
    """Those that a CPU trains in, fp32 first."""
    return ("fp32", "bf16") if precision.quick(torch.device("cpu")) else ("fp32",)


def core_seconds(work: Callable[[], object]) -> float:
    """What a piece of work takes of the process's cores."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _floor(candidates: int, per_request: int, *, repeats: int, progress: Progress) -> StepFloor:
    kinds, works = precisions(), _steps(candidates, per_request)
    own = {kind: products.of(works[kind]) for kind in kinds}
    works |= {f"{kind} products": _product(_TYPES[kind]) for kind in kinds} | {"copy": _copy()}
    times = _in_turn(works, repeats, progress)
    adds, moved = _multiply_adds(per_request) * candidates * _PASSES, _bytes(candidates, per_request)
    rows = [moved * copied / (2 * _COPIED) for copied in times["copy"]]
    figures: dict[str, float] = {}
    for kind in kinds:
        large = [adds * taken / _ADDS for taken in times[f"{kind} products"]]
        alone = [products.alone(own[kind], core_seconds) for _ in range(repeats)]
        figures[f"{kind}_ms"] = statistics.median(times[kind]) * 1e3
        figures[f"{kind}_of_floor"] = _ratio(times[kind], large, rows)
        figures[f"{kind}_of_products"] = _ratio(times[kind], alone, rows)
    if "bf16" in kinds:
        figures["bf16_faster"] = statistics.median(a / b for a, b in zip(times["fp32"], times["bf16"], strict=True))
    return StepFloor(candidates, per_request, **figures)


def _ratio(step: Sequence[float], products: Sequence[float], rows: Sequence[float]) -> float:
    """How many times a floor of products and rows of tables the step takes, the median of repeats."""
    return statistics.median(t / (p + r) for t, p, r in zip(step, products, rows, strict=True))


_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SHAPE = (2048, 256, 1024)  # rows, inner and outer width of the product that measures the matrix rate
_ADDS = _SHAPE[0] * _SHAPE[1] * _SHAPE[2]


def _product(kind: torch.dtype) -> Callable[[], object]:
    left, right = torch.randn(_SHAPE[0], _SHAPE[1]).to(kind), torch.randn(_SHAPE[1], _SHAPE[2]).to(kind)
    out = torch.empty(_SHAPE[0], _SHAPE[2], dtype=kind)
    return lambda: torch.mm(left, right, out=out)


def _copy() -> Callable[[], object]:
    source, target = torch.zeros(_COPIED // 4), torch.zeros(_COPIED // 4)
    return lambda: target.copy_(source)


def _steps(candidates: int, per_request: int) -> dict[str, Callable[[], object]]:
    """A step in each precision, on the same random batch."""
    described = synthetic.spec(ROWS)
    drawn = synthetic.batch(
        described,
        rows=ROWS,
        candidates=candidates // per_request * per_request,
        per_request=per_request,
        seed=1,
    )

    def work(kind: str) -> Callable[[], object]:
        mine = _precise(described, kind)
        fit = new_fit(mine, synthetic.preprocessor(mine))
        fit.ranker.train()
        return lambda: step(fit, mine, drawn)

    return {kind: work(kind) for kind in precisions()}


def _precise(described: Spec, kind: str) -> Spec:
    return described.model_copy(update={"train": described.train.model_copy(update={"precision": kind})})


def _in_turn(works: dict[str, Callable[[], object]], repeats: int, progress: Progress) -> dict[str, list[float]]:
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(core_seconds(work))
        progress.advance(1)
    return times


def _multiply_adds(per_request: int) -> float:
    """Of the forward pass, per candidate."""
    described = synthetic.spec(ROWS)
    sides = {"context": synthetic.CONTEXT * synthetic.DIM, "candidate": synthetic.CANDIDATE * synthetic.DIM}
    return equal_size.multiply_adds(described.model, **sides, tasks=given(described.tasks), per_request=per_request)


def _bytes(candidates: int, per_request: int) -> float:
    ids = candidates * (synthetic.CANDIDATE + synthetic.CONTEXT / per_request)
    return ids * _BYTES_OF_ROW * _ROW_MOVES


def _loader(per_request: int, candidates: int, batch: int, repeats: int, progress: Progress) -> LoaderSpeed:
    described = synthetic.spec(ROWS, batch=batch)
    encoders = synthetic.preprocessor(described).encoders
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        files.write(described, data, rows=ROWS, candidates=candidates, held_out=batch, per_request=per_request)

        def epoch() -> None:
            for part in loader.shuffled(data, described, encoders, epoch=1):
                loader.tensors(part.mine, torch.device("cpu"))

        times = _in_turn({"loader": epoch, **_steps(batch, per_request)}, repeats, progress)
    speed = {name: (candidates if name == "loader" else batch) / statistics.median(t) for name, t in times.items()}
    figures = {f"{kind}_step": speed[kind] for kind in precisions()}
    figures |= {f"of_{kind}": speed["loader"] / speed[kind] for kind in precisions()}
    return LoaderSpeed(per_request, loader=speed["loader"], **figures)
