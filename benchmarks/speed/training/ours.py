"""multigate's own side of the comparison with other libraries: an epoch from session tables, in a process of its own.

python -m benchmarks.speed.training.ours JOB.json        the job is that of peers.py, and `precision`
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rec import spec as specs
from rec.atomic import read_json, write_json
from rec.data import loader, preprocessor, splits
from rec.data.prefetch import ahead
from rec.data.session_table import to_batch
from rec.spec.tasks import given
from rec.training.epoch import AHEAD
from rec.training.scorer import scorer
from rec.training.step import new_fit, seed_step, step

TASKS = ("click", "like", "buy")


def main(job: dict[str, Any]) -> dict[str, float]:
    """Train one epoch as the trainer does, then leave the scores of the validation split [N, 3]."""
    torch.set_num_threads(job["threads"])
    data = Path(job["data"])
    described = specs.load(data / "spec.toml")
    changed = {"batch": job["batch"], "lr": job["lr"], "precision": job["precision"]}
    described = described.model_copy(update={"train": described.train.model_copy(update=changed)})
    learnt = preprocessor.load(described, data / "fitted")
    fit = new_fit(described, learnt)
    fit.ranker.train()
    began, cores = time.perf_counter(), time.process_time()
    parts = loader.shuffled(data, described, learnt.encoders, epoch=1)
    for batch in ahead((loader.tensors(part.mine, fit.device) for part in parts), AHEAD):
        seed_step(described, fit.steps)
        step(fit, described, batch)
    taken = {"seconds": time.perf_counter() - began, "core_seconds": time.process_time() - cores}
    score = scorer(fit.ranker.eval(), given(described.tasks), fit.device)
    batches = [to_batch(rows, described, learnt.encoders) for rows in splits.read(data, "validation", described)]
    outputs = [score(batch) for batch in batches]
    np.save(job["scores"], np.stack([np.concatenate([out[task] for out in outputs]) for task in TASKS], 1))
    return taken


if __name__ == "__main__":
    work = read_json(Path(sys.argv[1]))
    write_json(Path(work["answer"]), main(work))
