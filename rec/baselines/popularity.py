"""Popularity: for each task the best single rate, such as an item's clicks per impression; nothing else is learnt.

    rate(v) = (events of v + prior x base rate) / (candidates of v + prior)      of a value v in training

A task's rates are those of every id, of every hour and weekday, and of every count, by powers of two; a declared rate
is a rate as it is. The one with the best `train.monitor` on validation is taken, task by task. The number of a
regression task is the mean label of v instead of the rate: of log(1 + y) for `log` and `quantile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save

from rec.atomic import read_json, write_bytes, write_json
from rec.data import splits
from rec.data.preprocessor import Preprocessor
from rec.data.session_table import group_of
from rec.errors import BundleError, DataError
from rec.evaluation.evaluate import MEMORY, Evaluation
from rec.evaluation.regression import COUNTERPARTS
from rec.progress import Progress
from rec.request import RequestBatch
from rec.spec import Id, Number, Spec, Strict, Task, has_rows
from rec.spec.features import is_bias
from rec.spec.tasks import along_graph, given, metric_rows, own_output, sample_weights
from rec.trees.matrix import SessionTables

# counts of 0, 1, 2 to 3, 4 to 7, ...: the lower ends of what is above 0
POWERS = np.array([2.0**power - 1 for power in range(1, 32)], np.float32)
LEAST = np.float32(1e-6)  # of a declared rate, and as far from 1


class Config(Strict):
    """Settings of the best single rate."""

    prior: Annotated[float, Field(gt=0)] = Field(default=20.0, description="weight of the base rate in every rate")


@dataclass(frozen=True)
class SingleRate:
    """What a rate is of: the feature of a side, and how its values are told apart.

    `rows`: by row of a table; `powers`: a count by powers of two; `declared`: the feature is a rate itself.
    """

    side: str
    feature: str
    make: str

    def row(self, batch: RequestBatch) -> np.ndarray:
        """The row of every candidate's value [N] int64, 0 where it is missing; not of a declared rate."""
        value = self.value(batch)
        if self.make == "rows":
            return value
        return np.where(np.isnan(value), 0, 1 + np.searchsorted(POWERS, value, side="right"))

    def value(self, batch: RequestBatch) -> np.ndarray:
        """The feature of every candidate [N]."""
        return batch.candidates[self.feature] if self.side == "candidates" else batch.context[self.feature][batch.owner]


@dataclass(frozen=True)
class Chosen:
    """A task's rate and its values by row [rows] float32; of a declared one, one number for where it is missing."""

    rate: SingleRate
    values: np.ndarray

    def of(self, batch: RequestBatch) -> np.ndarray:
        """Every candidate's probability or number [N] float32."""
        if self.rate.make != "declared":
            return self.values[self.rate.row(batch)]
        value = self.rate.value(batch)
        return np.where(np.isnan(value), self.values[0], value.clip(LEAST, 1 - LEAST))


@dataclass(frozen=True)
class Model:
    """The chosen rate of every task, parents first."""

    tasks: Mapping[str, Chosen]

    def conditional(self, batch: RequestBatch) -> dict[str, np.ndarray]:
        """{task: its probability or number where its parent happened [N] float32}."""
        return {name: chosen.of(batch) for name, chosen in self.tasks.items()}

    def numbers(self) -> int:
        """Rates of all tasks."""
        return sum(len(chosen.values) for chosen in self.tasks.values())


def rates(spec: Spec, task: Task) -> list[SingleRate]:
    """What a task's rate may be of, in the order of the spec."""
    out = []
    for side, features in spec.sides():
        for name, feature in features.items():
            if is_bias(feature):
                continue
            if isinstance(feature, Id) or (has_rows(feature) and getattr(feature, "make", "") in ("rate", "count")):
                out.append(SingleRate(side, name, "rows"))
            elif isinstance(feature, Number) and feature.make == "count":
                out.append(SingleRate(side, name, "powers"))
            elif isinstance(feature, Number) and feature.make == "rate" and task.predict == "event":
                out.append(SingleRate(side, name, "declared"))
    return out


def fit(spec: Spec, learnt: Preprocessor, data: Path, folder: Path, progress: Progress) -> dict[str, Any]:
    """Count in training, choose on validation; the choice of each task, and what every other rate came to."""
    config = Config.model_validate({key: value for key, value in spec.model.items() if key != "name"})
    every = {name: rates(spec, spec.tasks[name]) for name in given(spec.tasks)}
    for name, some in every.items():
        if not some:
            raise DataError(f"tasks.{name}: there is not one id, count or rate among the features")
    tables = SessionTables(data, spec, learnt, progress)
    counted = _counted(tables, every, prior=config.prior)
    split = "validation" if splits.count(data, "validation") else "train"
    if split == "train":
        progress.say("validation: no request, so that rates are chosen by their figures on training")
    figures = _figures(tables, split, counted)
    best = {name: _best(figures[name], spec) for name in every}
    chosen = {name: counted[name][place] for name, place in best.items()}
    write_bytes(folder / "rates.safetensors", save({name: of.values for name, of in chosen.items()}))
    metric = spec.train.monitor
    tasks = {
        name: {
            **asdict(chosen[name].rate),
            "others": [
                {**asdict(of.rate), metric: figure} for of, figure in zip(counted[name], figures[name], strict=True)
            ],
        }
        for name in every
    }
    write_json(folder / "model.json", {"tasks": tasks})
    lines = [
        f"{name}: the rate of {of.rate.side}.{of.rate.feature}, of {len(every[name])}" for name, of in chosen.items()
    ]
    return {"step": 1, "loss": {}, "lines": lines}


def load(spec: Spec, learnt: Preprocessor, folder: Path) -> Model:
    """Read what `fit` left; BundleError where it does not fit the spec."""
    tasks, values = read_json(folder / "model.json", dict)["tasks"], load_file(folder / "rates.safetensors")
    rows, out = learnt.rows(spec), {}
    for name in given(spec.tasks):
        rate = SingleRate(**{key: tasks[name][key] for key in ("side", "feature", "make")})
        if rate not in rates(spec, spec.tasks[name]) or len(values[name]) != _rows(rate, spec, rows):
            raise BundleError(f"{folder}: the rate of {rate.feature} does not fit the spec; train again")
        out[name] = Chosen(rate, values[name])
    return Model(out)


def _rows(rate: SingleRate, spec: Spec, rows: Mapping[str, int]) -> int:
    if rate.make == "rows":
        return rows[spec.table_of(rate.side, rate.feature)]
    return len(POWERS) + 2 if rate.make == "powers" else 1


def _counted(tables: SessionTables, every: Mapping[str, list[SingleRate]], *, prior: float) -> dict[str, list[Chosen]]:
    """All rates of every task on the training split."""
    spec, rows = tables.spec, tables.learnt.rows(tables.spec)
    # of every value [2, rows]: the sum of labels, and of candidates
    sums = {name: [np.zeros((2, _rows(rate, spec, rows))) for rate in some] for name, some in every.items()}
    whole = {name: np.zeros(2) for name in every}
    scale = {name: np.zeros(2) for name in every}  # the sum of sample weights, and how many are above 0
    for _, batch in tables.read("train", "counting"):
        row_of = {rate: rate.row(batch) for some in every.values() for rate in some if rate.make != "declared"}
        for name, some in every.items():
            in_N, label, weight, sample = _labelled(name, spec, batch)
            scale[name] += sample.sum(), (sample > 0).sum()
            whole[name] += (label * weight).sum(), weight.sum()
            for rate, total in zip(some, sums[name], strict=True):
                if rate.make != "declared":
                    row = row_of[rate][in_N]
                    total += [np.bincount(row, by, total.shape[1]) for by in (label * weight, weight)]
    out: dict[str, list[Chosen]] = {}
    for name, some in every.items():
        weight, count = scale[name]
        mean = weight / count if weight else 1.0  # only ratios of sample weights matter, whatever `prior` is
        happened, seen = whole[name] / mean
        base = (happened + 1) / (seen + 2) if spec.tasks[name].predict == "event" else happened / max(seen, 1.0)
        smooth = [(total[0] / mean + prior * base) / (total[1] / mean + prior) for total in sums[name]]
        out[name] = [Chosen(rate, _number(spec.tasks[name], value)) for rate, value in zip(some, smooth, strict=True)]
    return out


def _labelled(name: str, spec: Spec, batch: RequestBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The candidates a task is learnt on [N] bool, and of these the labels, the weights and the sample weights [n].

    A weight is the sample weight, of a negative over the share of negatives that are learnt from.
    """
    task = spec.tasks[name]
    in_N = metric_rows(spec.tasks, batch.labels)[own_output(name, task)][1]
    label, samples = batch.labels[name][in_N].astype(np.float64), sample_weights(name, batch.labels)
    sample = np.ones(len(label)) if samples is None else samples[in_N].astype(np.float64)
    weight = np.where(label == 0, sample / task.negatives, sample) if task.predict == "event" else sample
    return in_N, np.log1p(label) if task.predict in ("log", "quantile") else label, weight, sample


def _number(task: Task, value: np.ndarray) -> np.ndarray:
    return (np.expm1(value) if task.predict in ("log", "quantile") else value).astype(np.float32)


def _figures(tables: SessionTables, split: str, counted: Mapping[str, list[Chosen]]) -> dict[str, list[float | None]]:
    """`train.monitor` of every rate of every task, over the candidates whose parent happened.

    The k-th evaluation is of the k-th rate of each task.
    """
    spec = tables.spec
    turns = max(map(len, counted.values()))
    evaluations = [Evaluation(spec, memory=MEMORY // turns) for _ in range(turns)]
    requests = 0
    for block, batch in tables.read(split, "choosing"):
        group_B = group_of(block, spec, start=requests)
        for turn, evaluation in enumerate(evaluations):
            own = {name: some[turn % len(some)].of(batch) for name, some in counted.items()}
            if len(batch):
                evaluation.add(batch, along_graph(own, given(spec.tasks)), group_B)
        requests += len(block)
    reports: list[Any] = [evaluation.report()["outputs"] for evaluation in evaluations]
    return {
        name: [_figure(reports[turn][own_output(name, spec.tasks[name])], spec) for turn in range(len(some))]
        for name, some in counted.items()
    }


def _figure(figures: Mapping[str, Any], spec: Spec) -> float | None:
    metric = spec.train.monitor
    return figures[metric] if metric in figures else figures.get(COUNTERPARTS[metric])


def _best(figures: list[float | None], spec: Spec) -> int:
    """The place of the best figure, the first of equal ones and where none is known."""
    sign = -1 if spec.train.monitor == "normalised_entropy" else 1
    known = [sign * figure if figure is not None else -np.inf for figure in figures]
    return int(np.argmax(known))
