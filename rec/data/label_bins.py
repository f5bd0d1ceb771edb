"""Statistics of a regression task's training labels, which scale and initialise its head. No torch.

A regression label is a number of 0 or more, observed where an event happened, or at every candidate: seconds watched,
money spent. The losses that use what is fitted here are in rec/losses/regression.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rec.data import sketch
from rec.data.sketch import QuantileSketch
from rec.spec import Task


@dataclass(frozen=True)
class LabelBins:
    """Mean, standard deviation and maximum of log(1 + y) over the labels y that a regression task is trained on.

    `start` is the initial z of the model, in standard deviations from the mean. For `ordinal`, bin k holds
    edges[k-1] < y <= edges[k], its mean label is means[k], and cuts[k] is the logit of the share of labels that are
    at most edges[k].
    """

    mean: float
    std: float
    top: float
    start: float
    edges: list[float]
    means: list[float]
    cuts: list[float]


def fit(task: Task, label: QuantileSketch) -> LabelBins:
    """Statistics of a regression task's labels (0 or more); without labels all are 0, and `std` is 1."""
    count, logs = label.count, np.log1p(label.mean())
    mean = std = top = start = 0.0
    if len(count):
        mean = float((logs * count).sum()) / label.total()
        std = (float(((logs - mean) ** 2 * count).sum()) / label.total()) ** 0.5
        top = float(logs[-1])
    std = sketch.divisor(std, mean)
    if task.predict == "quantile" and len(count):
        start = (float(_quantile(logs, count, task.quantile)) - mean) / std
    edges, means, cuts = _binned(label, task.bins) if task.predict == "ordinal" else ([], [], [])
    return LabelBins(mean=mean, std=std, top=top, start=start, edges=edges, means=means, cuts=cuts)


def _quantile(value: np.ndarray, count: np.ndarray, quantile: float) -> float:
    """A weighted quantile with linear interpolation between neighbouring ranks, as numpy's default."""
    last = np.cumsum(count)
    rank = quantile * (last[-1] - 1)
    low, high = (value[np.searchsorted(last, place, side="right")] for place in (np.floor(rank), np.ceil(rank)))
    return low + (high - low) * (rank - np.floor(rank))


def _binned(label: QuantileSketch, bins: int) -> tuple[list[float], list[float], list[float]]:
    """Edges, means and cuts of bins of about equal mass; fewer bins where many labels are equal.

    An edge is a label, or the upper end of a bucket of the sketch.
    """
    if not len(label.count):
        return [0.0], [0.0, 0.0], [0.0]
    last = np.cumsum(label.count)
    ends = np.unique(np.searchsorted(last, -(-np.arange(1, bins) * last[-1] // bins)))
    ends = ends[ends < len(last) - 1]
    ends = ends if len(ends) else np.zeros(1, np.int64)
    upper = label.upper().astype(np.float64)
    bin_K = np.searchsorted(ends, np.arange(len(last)), side="left")
    count = np.bincount(bin_K, weights=label.count, minlength=len(ends) + 1)
    # a bin is empty only if all labels are equal; that value is then the mean of both bins
    means = np.bincount(bin_K, weights=label.mean() * label.count, minlength=len(count)) / np.maximum(count, 1)
    means = np.where(count > 0, means, upper[ends[0]])
    share = (np.cumsum(count)[:-1] + 1) / (last[-1] + 2)
    return upper[ends].tolist(), means.tolist(), np.log(share / (1 - share)).tolist()
