"""The MMoE of another library, trained for an epoch from a Parquet file by its own loader, and asked for scores.

    PYTHON peers.py JOB.json        PYTHON has the library and torch, and needs nothing of multigate

The job says `library` (torch-rechub or deepctr-torch), `data`, `rows` per table, `dim`, `batch`, `lr`, `threads`,
`answer` and `scores`. The clock starts at the file and stops after the last step; importing, building the model and
predicting are outside. Sizes are those of benchmarks/speed/synthetic.py. Optimizers are Adam without decay.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

TASKS = ("click", "like", "buy")
EXPERTS, WIDTHS, TOWER = 8, (256, 128), (64,)
Columns = dict[str, np.ndarray]


def read(path: Path) -> tuple[Columns, np.ndarray]:
    """The ids by column, and the labels [N, 3]."""
    table = pq.read_table(path)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return {n: x for n, x in columns.items() if n not in TASKS}, np.stack([columns[n] for n in TASKS], 1)


def torch_rechub(job: dict[str, Any], names: list[str]) -> tuple[Callable[[], None], Callable[[Path], np.ndarray]]:
    """Torch-RecHub: its MMOE, DataGenerator and MTLTrainer."""
    from torch_rechub.basic.features import SparseFeature  # pyright: ignore[reportMissingImports]
    from torch_rechub.models.multi_task import MMOE  # pyright: ignore[reportMissingImports]
    from torch_rechub.trainers import MTLTrainer  # pyright: ignore[reportMissingImports]
    from torch_rechub.utils.data import DataGenerator, PredictDataset  # pyright: ignore[reportMissingImports]

    kinds = ["classification"] * len(TASKS)
    features = [SparseFeature(name, vocab_size=job["rows"], embed_dim=job["dim"]) for name in names]
    expert = {"dims": list(WIDTHS), "activation": "relu", "dropout": 0.0}
    towers = [{"dims": list(TOWER), "activation": "relu", "dropout": 0.0} for _ in TASKS]
    model = MMOE(features, kinds, EXPERTS, expert, towers)
    settings = {"lr": job["lr"], "weight_decay": 0.0}
    trainer = MTLTrainer(model, kinds, optimizer_params=settings, n_epoch=1, model_path=os.devnull)

    def fit() -> None:
        x, y = read(Path(job["data"]) / "train.parquet")
        none = {"x_val": x, "y_val": y, "x_test": x, "y_test": y}  # loaders that are never used
        trainer.train_one_epoch(DataGenerator(x, y).generate_dataloader(**none, batch_size=job["batch"])[0])

    def scores(path: Path) -> np.ndarray:
        batches = torch.utils.data.DataLoader(PredictDataset(read(path)[0]), batch_size=job["batch"])
        return np.array(trainer.predict(trainer.model, batches))

    return fit, scores


def deepctr(job: dict[str, Any], names: list[str]) -> tuple[Callable[[], None], Callable[[Path], np.ndarray]]:
    """DeepCTR-Torch: its MMOE and fit."""
    from deepctr_torch.inputs import SparseFeat  # pyright: ignore[reportMissingImports]
    from deepctr_torch.models import MMOE  # pyright: ignore[reportMissingImports]

    columns = [SparseFeat(name, vocabulary_size=job["rows"], embedding_dim=job["dim"]) for name in names]
    model = MMOE(
        columns,
        num_experts=EXPERTS,
        expert_dnn_hidden_units=WIDTHS,
        gate_dnn_hidden_units=(),
        tower_dnn_hidden_units=TOWER,
        l2_reg_linear=0,
        l2_reg_embedding=0,
        init_std=0.05,
        task_types=["binary"] * len(TASKS),
        task_names=list(TASKS),
    )
    model.compile(torch.optim.Adam(model.parameters(), lr=job["lr"]), loss=["binary_crossentropy"] * len(TASKS))

    def fit() -> None:
        x, y = read(Path(job["data"]) / "train.parquet")
        model.fit(x, y, batch_size=job["batch"], epochs=1, verbose=0)

    return fit, lambda path: model.predict(read(path)[0], job["batch"])


def main(job: dict[str, Any]) -> dict[str, float]:
    """Train, then leave the scores of the validation split [N, 3]; seconds and core seconds of the training."""
    torch.set_num_threads(job["threads"])
    torch.manual_seed(1)
    names = [n for n in pq.read_schema(Path(job["data"]) / "train.parquet").names if n not in TASKS]
    fit, scores = {"torch-rechub": torch_rechub, "deepctr-torch": deepctr}[job["library"]](job, names)
    began, cores = time.perf_counter(), time.process_time()
    fit()
    taken = {"seconds": time.perf_counter() - began, "core_seconds": time.process_time() - cores}
    np.save(job["scores"], scores(Path(job["data"]) / "validation.parquet"))
    return taken


if __name__ == "__main__":
    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with contextlib.redirect_stdout(sys.stderr):
        answer = main(work)
    Path(work["answer"]).write_text(json.dumps(answer), encoding="utf-8")
