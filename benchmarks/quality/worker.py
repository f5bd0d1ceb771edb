"""One training of a suite, in a process of its own: train, evaluate on the test split, measure, leave one JSON file.

python -m benchmarks.quality.worker JOB.json
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch

from rec import spec as specs
from rec.atomic import read_json, write_json
from rec.progress import Silent
from rec.training import run as evaluate
from rec.training import trainer


def main(job: dict[str, Any]) -> None:
    """Do a job of runner.py; an interrupted training resumes after its last complete epoch."""
    torch.set_num_threads(1)
    data, run = Path(job["data"]), Path(job["run"])
    spec = specs.load(Path(job["spec"]))
    best = trainer.train(spec, data, run, overwrite="stale", progress=Silent())
    report = evaluate.evaluate_run(run, data, split="test", progress=Silent())
    for figures in report["outputs"].values():
        figures.pop("reliability", None)
    write_json(
        Path(job["result"]),
        {
            "key": job["key"],
            "row": job["row"],
            "seed": job["seed"],
            "model": spec.model,
            "best": best["epoch"],
            "validation": {name: figures.get("auc") for name, figures in best["validation"].items()},
            "epochs": [{key: entry[key] for key in ("epoch", "seconds")} for entry in read_json(run / "history.json")],
            "weights": evaluate.sizes(run),
            "report": report,
            "measured": _measured(job["measure"], run, data),
        },
    )


def _measured(name: str | None, run: Path, data: Path) -> Any:
    if name is None:
        return None
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)(run, data)


if __name__ == "__main__":
    main(read_json(Path(sys.argv[1])))
