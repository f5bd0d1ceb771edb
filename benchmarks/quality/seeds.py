"""`multigate bench quality`: test metrics of a spec's model, with their spread over seeds.

Session tables are built once; each seed has its own initial weights and order of batches, and is evaluated on the
same requests. A difference smaller than the spread is not significant.
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

CLASSIFICATION = ("auc", "gauc", "log_loss", "normalised_entropy", "calibration")
REGRESSION = ("concordance", "grouped_concordance", "mae", "rmse", "normalised_error", "calibration")


def bench(path: Path, overrides: Sequence[str], *, seeds: Sequence[int], progress: Progress) -> dict[str, Any]:
    """A row per output: each figure as mean and sample deviation over seeds, None where it is undefined.

    Classifications are in `rows`, regressions in `regressions`, where there are any; `remarks` has what must be said
    beside the figures, seed by seed.
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
    tables = {"rows": _rows(reports, CLASSIFICATION), "regressions": _rows(reports, REGRESSION)}
    remarks = [text for report in reports for figures in report.values() for text in figures["remarks"]]
    parts = {**tables, "remarks": list(dict.fromkeys(remarks))}
    about = {"spec": path.name, "split": "test", "seeds": len(seeds)}
    return about | {name: part for name, part in parts.items() if part}


def _rows(reports: Sequence[dict[str, Any]], figures: Sequence[str]) -> list[dict[str, str | None]]:
    """A row for every output that has the first of these figures."""
    by_output = {name: [report[name] for report in reports] for name in reports[0]}
    return [
        {"output": name, **{figure: _mean([seed[figure] for seed in by_seed]) for figure in figures}}
        for name, by_seed in by_output.items()
        if figures[0] in by_seed[0]
    ]


def _mean(values: Sequence[float | None]) -> str | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return f"{statistics.mean(known):.4f} +- {statistics.stdev(known):.4f}"
