"""`multigate bench train --whole`: all of it, and the tables of docs/measured/training.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.quality import PageContent
from benchmarks.quality.page import table
from benchmarks.speed.training import epochs, steps
from rec.progress import Progress

SIZES = ((4096, 1), (4096, 20), (4096, 200), (16_384, 1), (16_384, 20), (16_384, 200))
EPOCH = (65_536, 16_384)  # candidates of an epoch: of small tables, of large ones
LOADED = 100_000  # candidates of an epoch of the loader


def bench(
    rows: Sequence[int],
    per_request: Sequence[int],
    *,
    peers: str | None,
    procs: Sequence[int],
    repeats: int,
    progress: Progress,
) -> dict[str, Any]:
    """Epochs, floors, loaders and processes; `peers` is an interpreter with the other libraries, or None."""
    if peers is None:
        progress.say("no --peers PYTHON: other libraries are not measured")
    if "bf16" not in steps.precisions():
        progress.say("this CPU has no instructions for bf16, which is not measured")
    return {
        "floors": steps.floors(SIZES, repeats=repeats, progress=progress),
        "loaders": steps.loaders(
            sorted(per_request), candidates=LOADED, batch=epochs.BATCH, repeats=repeats, progress=progress
        ),
        "epochs": epochs.epochs(rows, per_request, peers=peers, candidates=EPOCH, threads=1, progress=progress),
        "processes": epochs.processes(procs, candidates=EPOCH[0], progress=progress),
    }


def page(result: Mapping[str, Any]) -> PageContent:
    """The tables of the page."""
    return PageContent(
        {
            "epochs": _table([_epoch(row) for row in result["epochs"]]),
            "floors": _table([_floor(row) for row in result["floors"]]),
            "loaders": _table([_loader(row) for row in result["loaders"]]),
            "processes": _table([_processes(row) for row in result["processes"]]),
        }
    )


def _epoch(row: epochs.Epoch) -> dict[str, str]:
    return {
        "rows per table": f"{row.rows_per_table:,}",
        "candidates per request": f"{row.candidates_per_request}",
        "system": row.system,
        "candidates per core second": f"{row.per_core_second:,.0f}",
        "of the best peer": "" if row.of_best_peer is None else f"{row.of_best_peer:.1f}",
        "candidates per second": f"{row.per_second:,.0f}",
        "AUC click": f"{row.auc_click:.3f}",
        "AUC like": f"{row.auc_like:.3f}",
        "AUC buy": f"{row.auc_buy:.3f}",
    }


def _floor(row: steps.StepFloor) -> dict[str, str]:
    return {
        "candidates": f"{row.candidates:,}",
        "candidates per request": f"{row.candidates_per_request}",
        "fp32, ms": _shown(row.fp32_ms, 0),
        "bf16, ms": _shown(row.bf16_ms, 0),
        "bf16 faster": _shown(row.bf16_faster, 2),
        "fp32 of its floor": _shown(row.fp32_of_floor, 2),
        "bf16 of its floor": _shown(row.bf16_of_floor, 2),
        "fp32 of its products": _shown(row.fp32_of_products, 2),
        "bf16 of its products": _shown(row.bf16_of_products, 2),
    }


def _loader(row: steps.LoaderSpeed) -> dict[str, str]:
    return {
        "candidates per request": f"{row.candidates_per_request}",
        "loader": _shown(row.loader, 0),
        "fp32 step": _shown(row.fp32_step, 0),
        "bf16 step": _shown(row.bf16_step, 0),
        "loader of fp32": _shown(row.of_fp32, 1),
        "loader of bf16": _shown(row.of_bf16, 1),
    }


def _processes(row: epochs.ProcessSpeed) -> dict[str, str]:
    return {
        "processes": f"{row.processes}",
        "seconds of an epoch": f"{row.seconds:.1f}",
        "faster": f"{row.faster:.2f}",
        "largest share of a batch": f"{row.largest_share:.3f}",
    }


def _shown(figure: float | None, digits: int) -> str:
    """Empty where a precision was not measured."""
    return "" if figure is None else f"{figure:,.{digits}f}"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    return table(list(rows[0]), [list(row.values()) for row in rows])
