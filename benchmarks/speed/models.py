"""`multigate bench train --models ...`: training steps of the models side by side, all with as many dense weights.

A model should cost what it computes: its multiply-adds and MMoE's time predict its time; what is above goes into moving
memory. Experts run as batched products; the same model with a loop over experts runs beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.speed import equal_size, synthetic
from benchmarks.speed.looped_experts import looped
from benchmarks.speed.train import seconds
from rec import models
from rec.progress import Progress
from rec.request import RequestBatch
from rec.spec import Spec
from rec.spec.tasks import given
from rec.training.step import new_fit, step

ROWS, CANDIDATES, PER_REQUEST = 10_000, 4096, 20
WARM = 2  # rounds that are not counted
# what others are compared with: the cheapest, and the one whose widths set the budget
PLAIN, STANDARD = "shared_bottom", "mmoe"


@dataclass(frozen=True)
class ModelSpeed:
    """A model at the budget. Multiply-adds are per candidate, forward; times and ratios are medians over repeats."""

    model: str
    parameters: int
    multiply_adds: int
    step_ms: float
    of_shared_bottom: float
    of_predicted: float
    batched_of_looped: float


@dataclass(frozen=True)
class ModelSteps:
    """A model ready to be measured: its settings, its steps, what it holds and computes."""

    settings: Mapping[str, Any]
    step: Callable[[], object]
    loop: Callable[[], object]
    parameters: int
    multiply_adds: float


def chosen(argument: str) -> list[str]:
    """The models a command names, `all` or names with commas between them; MMoE and shared bottom always come first.

    Raises SpecError when there is no such model.
    """
    names = list(models.names()) if argument == "all" else [name.strip() for name in argument.split(",")]
    for name in names:
        models.config_of(name)
    return list(dict.fromkeys([PLAIN, STANDARD, *names]))


def bench(names: Sequence[str], *, rows: int, candidates: int, repeats: int, progress: Progress) -> dict[str, Any]:
    """A row per model, in the order of the names; MMoE and shared bottom must be among them."""
    described = synthetic.spec(rows)
    count = candidates // PER_REQUEST * PER_REQUEST
    batch = synthetic.batch(described, rows=rows, candidates=count, per_request=PER_REQUEST, seed=1)
    parameters = equal_size.parameters(described.model, **_shape(described))
    progress.start("bench models", len(names) * (repeats + WARM))
    entries = {name: entry(name, parameters, described, batch) for name in names}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    # interleaved, so that whatever else the machine does falls on all; memory is not all there in the first rounds
    for _ in range(repeats + WARM):
        for name, steps in entries.items():
            times[name].append((seconds(steps.step), seconds(steps.loop)))
            progress.advance(1)
    warm = {name: pairs[WARM:] for name, pairs in times.items()}
    return {
        "candidates": count,
        "candidates_per_request": PER_REQUEST,
        "rows_per_table": rows,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "rows": [_row(name, entries, warm) for name in names],
    }


def entry(name: str, parameters: int, described: Spec, batch: RequestBatch) -> ModelSteps:
    """A model of the bench's spec with about the wanted number of dense weights, and its steps on a batch."""
    shape = _shape(described)
    unscaled = described.model if name == STANDARD else {"name": name, "tower_widths": described.model["tower_widths"]}
    settings = equal_size.fitted_to(unscaled, **shape, parameters=parameters)
    mine = described.model_copy(update={"model": settings})
    return ModelSteps(
        settings,
        step=_step(mine, batch, loop=False),
        loop=_step(mine, batch, loop=True),
        parameters=equal_size.parameters(settings, **shape),
        multiply_adds=equal_size.multiply_adds(settings, **shape, per_request=PER_REQUEST),
    )


def _step(described: Spec, batch: RequestBatch, *, loop: bool) -> Callable[[], object]:
    fit = new_fit(described, synthetic.preprocessor(described))
    if loop:
        looped(fit.ranker)
    return lambda: step(fit, described, batch)


def _shape(described: Spec) -> dict[str, Any]:
    """What a body of the bench's spec reads."""
    width = synthetic.DIM
    sides = {"context": synthetic.CONTEXT * width, "candidate": synthetic.CANDIDATE * width}
    return sides | {"tasks": given(described.tasks)}


def _row(
    name: str, entries: Mapping[str, ModelSteps], times: Mapping[str, Sequence[tuple[float, float]]]
) -> ModelSpeed:
    mine = [step for step, _ in times[name]]
    predicted = entries[name].multiply_adds / entries[STANDARD].multiply_adds

    def ratio(other: str) -> float:
        return statistics.median(a / b for a, (b, _) in zip(mine, times[other], strict=True))

    return ModelSpeed(
        model=name,
        parameters=entries[name].parameters,
        multiply_adds=round(entries[name].multiply_adds),
        step_ms=statistics.median(mine) * 1e3,
        of_shared_bottom=ratio(PLAIN),
        of_predicted=ratio(STANDARD) / predicted,
        batched_of_looped=statistics.median(step / loop for step, loop in times[name]),
    )
