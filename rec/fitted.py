"""What is learnt from the training split before training.

Which ids get a row, how numbers are scaled, how often each event happens, and how large each quantity is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from rec import encode, targets
from rec.arrow import CLOCK_ROWS, to_batch
from rec.encode import Encoder
from rec.files import read_json, write_json
from rec.spec import Id, Number, Spec
from rec.targets import Sample, Target
from rec.tasks import conditional, events, loss_rows, metric_rows, quantities


@dataclass(frozen=True)
class Scale:
    """A number x is fed to the model as `(f(x) - mean) / std`, with f(x) = sign(x) log(1 + |x|) when `log`."""

    mean: float
    std: float
    log: bool


@dataclass(frozen=True)
class Fitted:
    """The encoder of every table, the scale of every number, and what is known of every task where its parent happened.

    That is the rate of an event, and the target of a quantity.
    """

    encoders: Mapping[str, Encoder]
    scales: Mapping[str, Scale]
    rates: Mapping[str, float]
    targets: Mapping[str, Target] = field(default_factory=dict[str, Target])

    def rows(self, spec: Spec) -> dict[str, int]:
        """How many rows each embedding table has, row 0 (missing or unknown) included."""
        fixed = {
            name: CLOCK_ROWS[f.make] for name, f in spec.tables().items() if isinstance(f, Id) and f.make != "column"
        }
        return {name: fixed.get(name) or self.encoders[name].rows for name in spec.tables()}

    def save(self, folder: Path) -> None:
        """Write vocabularies, scales, rates and targets into a folder."""
        encode.save(self.encoders, folder)
        write_json(folder / "rates.json", dict(self.rates))
        write_json(folder / "scales.json", {name: asdict(scale) for name, scale in self.scales.items()})
        write_json(folder / "targets.json", {name: asdict(target) for name, target in self.targets.items()})


def load(spec: Spec, folder: Path) -> Fitted:
    """Read what `Fitted.save` wrote; BundleError when a part is missing or broken."""
    scales = {name: Scale(**scale) for name, scale in read_json(folder / "scales.json").items()}
    found = {name: Target(**target) for name, target in read_json(folder / "targets.json").items()}
    return Fitted(encode.load(spec, folder), scales, read_json(folder / "rates.json"), found)


def fit(tables: Iterable[pa.RecordBatch], spec: Spec, encoders: Mapping[str, Encoder]) -> Fitted:
    """Mean and standard deviation of every number over training rows, missing ones left out; what is known of tasks.

    One pass (Chan et al. 1979). A rate is over candidates whose label is observed and whose parent happened, with one
    event and one non-event added; a target is fitted to a sample of such candidates.
    """
    moments = {name: (0, 0.0, 0.0) for name, _ in _numbers(spec)}
    happened, total = dict.fromkeys(events(spec.tasks), 1), dict.fromkeys(events(spec.tasks), 2)
    samples = {name: Sample() for name in quantities(spec.tasks)}
    for rows in tables:
        batch = to_batch(rows, spec, encoders)
        for name, feature in _numbers(spec):
            values = batch.context[name] if name in batch.context else batch.candidates[name]
            moments[name] = _merged(moments[name], _transformed(values, log=feature.scale == "log"))
        rows_of = metric_rows(spec.tasks, batch.labels)
        for name, task in events(spec.tasks).items():
            _, judged = rows_of[conditional(name, task.given) if task.given else name]
            happened[name] += int((batch.labels[name][judged] == 1).sum())
            total[name] += int(judged.sum())
        for name, sample in samples.items():
            sample.add(batch.labels[name][loss_rows(name, spec.tasks[name], batch.labels)])
    scales = {name: _scale(feature, *moments[name]) for name, feature in _numbers(spec)}
    found = {name: targets.fit(spec.tasks[name], sample.values()) for name, sample in samples.items()}
    return Fitted(encoders, scales, {name: happened[name] / total[name] for name in happened}, found)


def _numbers(spec: Spec) -> list[tuple[str, Number]]:
    return [(name, f) for _, features in spec.sides() for name, f in features.items() if isinstance(f, Number)]


def _transformed(values: np.ndarray, *, log: bool) -> np.ndarray:
    known = values[~np.isnan(values)].astype(np.float64)
    return np.sign(known) * np.log1p(np.abs(known)) if log else known


def _merged(moments: tuple[int, float, float], values: np.ndarray) -> tuple[int, float, float]:
    count, mean, spread = moments
    if not len(values):
        return moments
    total = count + len(values)
    delta = float(values.mean()) - mean
    spread += float(((values - values.mean()) ** 2).sum()) + delta * delta * count * len(values) / total
    return total, mean + delta * len(values) / total, spread


def _scale(feature: Number, count: int, mean: float, spread: float) -> Scale:
    if feature.scale == "none":
        return Scale(0.0, 1.0, log=False)
    std = (spread / count) ** 0.5 if count else 0.0
    return Scale(mean, std if std > 1e-6 else 1.0, log=feature.scale == "log")
