"""Boosted trees: an ensemble per task, over the features of the networks (LightGBM, the extra `gbdt`).

    raw = sum of the leaves that a candidate reaches          P(task | parent) = sigmoid(raw)

What trees read of ids and lists stands in rec/trees/columns.py. Every task has trees of its own, as many as do best on
validation. A run holds LightGBM's text models; neither evaluation nor a bundle needs LightGBM.
Ke et al., LightGBM: A Highly Efficient Gradient Boosting Decision Tree, NeurIPS 2017.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save

from rec.atomic import read_json, write_bytes, write_json
from rec.data.preprocessor import Preprocessor
from rec.errors import BundleError, DataError, InstallationError
from rec.progress import Progress
from rec.request import RequestBatch
from rec.spec import Positive, Spec, Strict, Task
from rec.spec.tasks import given, metric_rows, own_output, sample_weights
from rec.trees import columns, ensemble
from rec.trees.columns import Codes, Column
from rec.trees.ensemble import Trees
from rec.trees.matrix import Matrix, SessionTables, filled

FIXED = {"verbosity": -1, "deterministic": True, "force_row_wise": True, "feature_pre_filter": False}


class Config(Strict):
    """Settings of boosted trees, the same for every task."""

    trees: Positive = Field(default=2000, description="of a task, at most")
    patience: Positive = Field(default=50, description="trees without a better loss on validation before it stops")
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(default=0.05, description="what each tree is worth")
    leaves: Annotated[int, Field(ge=2, le=131_072)] = Field(default=31, description="of a tree, at most")
    min_leaf: Positive = Field(default=100, description="training candidates in a leaf, at least")
    l2: Annotated[float, Field(ge=0)] = Field(default=5.0, description="L2 penalty of leaves")
    rows: Annotated[float, Field(gt=0, le=1)] = Field(default=0.8, description="share of candidates a tree is grown on")
    columns: Annotated[float, Field(gt=0, le=1)] = Field(default=0.8, description="share of columns a tree may split")
    codes: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=10_000, description="values of an id that have a code of their own, the most frequent first"
    )
    threads: Positive | None = Field(default=None, description="none: as many as there are cores")


@dataclass(frozen=True)
class Ensemble:
    """A task's trees, none where training had but one outcome, and what is added to their sum."""

    trees: Trees | None
    offset: float

    def raw(self, columns_NF: np.ndarray) -> np.ndarray:
        """The score before the link [N] float64."""
        return self.offset + (0.0 if self.trees is None else self.trees.raw(columns_NF)) + np.zeros(len(columns_NF))


@dataclass(frozen=True)
class Model:
    """Fitted boosted trees: the columns they read, the codes of ids, and an ensemble by task."""

    columns: list[Column]
    codes: Codes
    tasks: Mapping[str, Ensemble]
    predict: Mapping[str, str]
    top: Mapping[str, float]

    def conditional(self, batch: RequestBatch) -> dict[str, np.ndarray]:
        """{task: its probability or number where its parent happened [N] float32}."""
        columns_NF = columns.matrix(batch, self.columns, self.codes)
        return {name: self._value(name, of.raw(columns_NF)).astype(np.float32) for name, of in self.tasks.items()}

    def _value(self, name: str, raw_N: np.ndarray) -> np.ndarray:
        """What a raw score stands for: log(1 + y) of `log` and `quantile`, the number itself of `ordinal`."""
        match self.predict[name]:
            case "event":
                return 0.5 + 0.5 * np.tanh(0.5 * raw_N)
            case "ordinal":
                return raw_N.clip(0.0, np.expm1(self.top[name]))
            case _:
                return np.expm1(raw_N.clip(0.0, self.top[name]))

    def numbers(self) -> int:
        """Leaves of all trees."""
        return sum(len(of.trees.leaf) for of in self.tasks.values() if of.trees is not None)


def refuse_here() -> None:
    """InstallationError where the library that grows trees is not installed."""
    if find_spec("lightgbm") is None:
        raise InstallationError(
            "model.name: 'gbdt' needs lightgbm to train, which is not installed; "
            "`pip install 'multigate[gbdt]'` installs it"
        )


def fit(spec: Spec, learnt: Preprocessor, data: Path, folder: Path, progress: Progress) -> dict[str, Any]:
    """Grow the trees of every task; the loss of training and the trees of each task."""
    refuse_here()
    config = Config.model_validate({key: value for key, value in spec.model.items() if key != "name"})
    feature_columns = columns.columns(spec)
    if not feature_columns:
        raise DataError("there is not one feature for trees to split")
    tables = SessionTables(data, spec, learnt, progress)
    count = columns.counted(
        (batch for _, batch in tables.read("train", "counting ids")), feature_columns, learnt.rows(spec)
    )
    codes = columns.codes_of(count, config.codes)
    matrices = {
        split: filled(tables, split, feature_columns, codes, beside=folder) for split in ("train", "validation")
    }
    if not len(matrices["train"].columns):
        raise DataError(f"{data / 'train'}: there is not one candidate to learn from")
    write_bytes(folder / "codes.safetensors", save(dict(codes)))
    grown = _grown(tables, config, matrices, folder)
    tasks = {name: {key: of[key] for key in ("trees", "offset")} for name, of in grown.items()}
    write_json(folder / "model.json", {"columns": [column.name for column in feature_columns], "tasks": tasks})
    return {
        "step": sum(of["trees"] for of in grown.values()),
        "loss": {name: of["loss"] for name, of in grown.items() if of["loss"] is not None},
        "lines": [f"{name}: {of['trees']} trees" for name, of in grown.items()],
    }


def load(spec: Spec, learnt: Preprocessor, folder: Path) -> Model:
    """Read what `fit` left; BundleError where it does not fit the spec."""
    about, feature_columns = read_json(folder / "model.json", dict), columns.columns(spec)
    if about.get("columns") != [column.name for column in feature_columns] or set(about["tasks"]) != set(spec.tasks):
        raise BundleError(f"{folder}: its trees read other columns than this version makes of its spec; train again")
    tasks = {
        name: Ensemble(
            ensemble.read(folder / f"{name}.txt", len(feature_columns)) if of["trees"] else None, float(of["offset"])
        )
        for name, of in about["tasks"].items()
    }
    return Model(
        feature_columns,
        load_file(folder / "codes.safetensors"),
        {name: tasks[name] for name in given(spec.tasks)},
        {name: task.predict for name, task in spec.tasks.items()},
        {name: bins.top for name, bins in learnt.label_bins.items()},
    )


def _grown(tables: SessionTables, config: Config, matrices: Mapping[str, Matrix], folder: Path) -> dict[str, Any]:
    """A file of trees per task; how many, the loss of training, and the offset of each."""
    import lightgbm

    spec, progress = tables.spec, tables.progress
    base = {"max_bin": 255, "seed": spec.seed % 2**31, "num_threads": config.threads or 0, **FIXED}
    train, validation = matrices["train"], matrices["validation"]
    whole = lightgbm.Dataset(train.columns, np.zeros(len(train.columns)), params=base)
    out = {}
    for name, task in spec.tasks.items():
        rows, label, weight = _labelled(name, task, spec, train)
        if len(np.unique(label)) < 2:
            out[name] = {"trees": 0, "loss": None, "offset": _constant(name, task, tables.learnt, label)}
            continue
        sets = {"train": whole.subset(rows.tolist()).construct().set_label(label).set_weight(weight)}
        offset = math.log(task.negatives)
        rows, label, weight = _labelled(name, task, spec, validation)
        if len(np.unique(label)) > 1:
            # its negatives were not sampled
            start = np.full(len(rows), offset)
            sets["validation"] = lightgbm.Dataset(
                validation.columns[rows], label, whole, weight, init_score=start, params=base
            )
        else:
            progress.say(
                f"{name}: labels of validation do not differ, so that nothing stops its {config.trees:,} trees"
            )
        progress.start(f"trees of {name}", config.trees, "trees")
        booster = lightgbm.train(
            {**base, **_parameters(task, config)},
            sets["train"],
            config.trees,
            valid_sets=list(sets.values()),
            valid_names=list(sets),
            callbacks=_callbacks(config, progress, stops="validation" in sets),
        )
        count = booster.best_iteration if "validation" in sets else booster.num_trees()
        write_bytes(folder / f"{name}.txt", booster.model_to_string(num_iteration=count).encode())
        loss = next(iter(booster.best_score["train"].values()))
        out[name] = {"trees": count, "loss": float(loss), "offset": offset}
    return out


def _labelled(name: str, task: Task, spec: Spec, part: Matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The candidates that a task is learnt on, as rows [n], their labels, and their weights where the task has some.

    Weights are 1 on average: only their ratios matter, whatever `l2` is.
    """
    rows = np.flatnonzero(metric_rows(spec.tasks, part.labels)[own_output(name, task)][1])
    label, weight = part.labels[name][rows].astype(np.float64), sample_weights(name, part.labels)
    if weight is not None:
        rows, label, weight = (values[weight[rows] > 0] for values in (rows, label, weight[rows].astype(np.float64)))
        weight = weight / weight.mean() if len(weight) else weight
    return rows, np.log1p(label) if task.predict in ("log", "quantile") else label, weight


def _constant(name: str, task: Task, learnt: Preprocessor, label: np.ndarray) -> float:
    """The raw score of a task of which training has but one outcome: nothing can be split by."""
    if task.predict == "event":
        return math.log(learnt.rates[name] / (1 - learnt.rates[name]))
    return float(label[0]) if len(label) else 0.0


def _parameters(task: Task, config: Config) -> dict[str, Any]:
    """LightGBM's names of the settings, and the loss of a kind of task."""
    kinds = {"event": "binary", "quantile": "quantile", "log": "regression", "ordinal": "regression"}
    return {
        "objective": kinds[task.predict],
        "alpha": task.quantile,
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.min_leaf,
        "lambda_l2": config.l2,
        "bagging_fraction": config.rows,
        "bagging_freq": 1 if config.rows < 1 else 0,
        "feature_fraction": config.columns,
    }


def _callbacks(config: Config, progress: Progress, *, stops: bool) -> list[Any]:
    import lightgbm

    def advance(_: Any) -> None:
        progress.advance(1)

    return [advance, *([lightgbm.early_stopping(config.patience, verbose=False)] if stops else [])]
