"""`multigate bench quality`: how good a spec's model is on its test split, and how much of that is luck.

The tables are made once; each seed draws fresh weights and another order of batches, trains, and is judged on the same
requests. A difference smaller than the spread is no difference.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.cli import commands
from rec import spec as specs
from rec.progress import Progress
from rec.training import run as evaluate
from rec.training import trainer

EVENTS = ("auc", "gauc", "log_loss", "normalised_entropy", "calibration")
QUANTITIES = ("concordance", "grouped_concordance", "mae", "rmse", "normalised_error", "calibration")


def bench(path: Path, overrides: Sequence[str], *, seeds: Sequence[int], progress: Progress) -> dict[str, Any]:
    """A row per output: each figure as mean and sample deviation over seeds, None where it is undefined.

    Outputs of events are in `rows`, amounts in `quantities`, where there are any.
    Raises what `features` and `train` raise.
    """
    with tempfile.TemporaryDirectory(prefix="multigate-bench-") as folder:
        data = Path(folder) / "data"
        commands.features(path, overrides, data, progress)
        reports = []
        for seed in seeds:
            spec, run = specs.load(path, [*overrides, f"seed={seed}"]), Path(folder) / f"run-{seed}"
            progress.say(f"seed {seed}")
            trainer.train(spec, data, run, progress=progress)
            reports.append(evaluate.evaluate_run(run, data, split="test", progress=progress)["outputs"])
    tables = {"rows": _rows(reports, EVENTS), "quantities": _rows(reports, QUANTITIES)}
    return {"spec": path.name, "split": "test", "seeds": len(seeds)} | {k: rows for k, rows in tables.items() if rows}


def _rows(reports: Sequence[dict[str, Any]], figures: Sequence[str]) -> list[dict[str, str | None]]:
    """A row for every output that has these figures, which the first of them tells."""
    found = {name: [report[name] for report in reports] for name in reports[0]}
    return [
        {"output": name, **{figure: _mean([one[figure] for one in ones]) for figure in figures}}
        for name, ones in found.items()
        if figures[0] in ones[0]
    ]


def _mean(values: Sequence[float | None]) -> str | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return f"{statistics.mean(known):.4f} +- {statistics.stdev(known):.4f}"
