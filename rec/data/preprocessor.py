"""The preprocessor: what is fitted on the training split before training.

Vocabularies, scales and bucket edges of numbers, base rates of events, and label bins of regression tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from rec.atomic import read_json, write_json
from rec.data import encoders as encode
from rec.data import label_bins, sketch, statistics
from rec.data.encoders import Buckets, Encoder
from rec.data.label_bins import LabelBins
from rec.data.sketch import QuantileSketch
from rec.data.statistics import Statistics
from rec.data.transforms import CLOCK_ROWS
from rec.spec import Id, Number, Spec
from rec.spec.tasks import regression_tasks


@dataclass(frozen=True)
class Scale:
    """A number x is fed to the model as `(f(x) - mean) / std`, with f(x) = sign(x) log(1 + |x|) when `log`."""

    mean: float
    std: float
    log: bool


@dataclass(frozen=True)
class Preprocessor:
    """Encoders by table, scales by feature, base rates by event, and label statistics by regression task.

    Rates and label statistics are over candidates whose parent task happened.
    """

    encoders: Mapping[str, Encoder]
    scales: Mapping[str, Scale]
    rates: Mapping[str, float]
    label_bins: Mapping[str, LabelBins] = field(default_factory=dict[str, LabelBins])

    def rows(self, spec: Spec) -> dict[str, int]:
        """How many rows each embedding table has, row 0 (missing or unknown) included."""
        fixed = {
            name: CLOCK_ROWS[f.make] for name, f in spec.tables().items() if isinstance(f, Id) and f.make in CLOCK_ROWS
        }
        return {name: fixed.get(name) or self.encoders[name].rows for name in spec.tables()}

    def save(self, folder: Path) -> None:
        """Write vocabularies, edges, scales, rates and label bins into a folder."""
        encode.save(self.encoders, folder)
        write_json(folder / "rates.json", dict(self.rates))
        write_json(folder / "scales.json", {name: asdict(scale) for name, scale in self.scales.items()})
        write_json(folder / "targets.json", {name: asdict(target) for name, target in self.label_bins.items()})


def load(spec: Spec, folder: Path) -> Preprocessor:
    """Read what `Preprocessor.save` wrote; BundleError when a part is missing or broken."""
    scales = {name: Scale(**scale) for name, scale in read_json(folder / "scales.json", dict).items()}
    bins = {name: LabelBins(**target) for name, target in read_json(folder / "targets.json", dict).items()}
    return Preprocessor(encode.load(spec, folder), scales, read_json(folder / "rates.json", dict), bins)


def fit(rows: Iterable[pa.RecordBatch], spec: Spec) -> Preprocessor:
    """The preprocessor of training rows; at least one batch."""
    return from_statistics(spec, statistics.merge(statistics.of_rows(batch, spec) for batch in rows))


def from_statistics(spec: Spec, counts: Statistics) -> Preprocessor:
    """The preprocessor of the merged statistics of all training rows.

    A base rate is over candidates whose label is observed and whose parent happened, with add-one smoothing; where
    negatives are sampled (tasks.negatives), each counts 1 / sampling rate.
    """
    encoders = encode.stateless(spec)
    scales: dict[str, Scale] = {}
    for _, name, feature in statistics.vocabularies(spec):
        encoders[name] = encode.vocabulary_of(counts.ids[name], min_count=feature.min_count)
    for name, feature in _numbers(spec):
        if feature.scale == "quantile":
            encoders[name] = Buckets(_edges(counts.numbers[name], feature.buckets))
        elif feature.scale == "none":
            scales[name] = Scale(0.0, 1.0, log=False)
        else:
            scales[name] = _scale(counts.numbers[name], log=feature.scale == "log")
    rates = {
        name: (yes + 1) / (yes + no / spec.tasks[name].negatives + 2) for name, (yes, no) in counts.happened.items()
    }
    bins = {name: label_bins.fit(task, counts.labels[name]) for name, task in regression_tasks(spec.tasks).items()}
    return Preprocessor(encoders, scales, rates, bins)


def _numbers(spec: Spec) -> list[tuple[str, Number]]:
    return [(name, f) for _, features in spec.sides() for name, f in features.items() if isinstance(f, Number)]


def _scale(numbers: QuantileSketch, *, log: bool) -> Scale:
    """Mean and standard deviation of f(x) over the values that are not missing."""
    if not len(numbers.count):
        return Scale(0.0, 1.0, log=log)
    value = numbers.mean()
    value = np.sign(value) * np.log1p(np.abs(value)) if log else value
    mean = float((value * numbers.count).sum()) / numbers.total()
    std = (float(((value - mean) ** 2 * numbers.count).sum()) / numbers.total()) ** 0.5
    return Scale(mean, sketch.divisor(std, mean), log=log)


def _edges(numbers: QuantileSketch, buckets: int) -> list[float]:
    """Lower edges of buckets of about equal mass, without the first; fewer buckets where many numbers are equal."""
    if not len(numbers.count):
        return []
    last = np.cumsum(numbers.count)
    # the sketch's bucket with the quantile is the last below an edge
    rank = -(-np.arange(1, buckets) * numbers.total() // buckets)
    begin = np.unique(np.searchsorted(last, rank) + 1)
    return numbers.lower()[begin[begin < len(last)]].astype(float).tolist()
