"""Statistics of a regression task's training labels, from which its tower starts. No torch.

A regression label is a number of 0 or more, observed where an event happened, or at every candidate: seconds watched,
money spent. The losses that use what is fitted here are in rec/losses/regression.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rec.data.sketch import QuantileSketch
from rec.spec import Task


@dataclass(frozen=True)
class LabelBins:
    """The labels y of one regression task where it is learnt, as log1p(y): their mean, deviation and largest.

    `start` is where the model's z begins, in deviations from the mean. For `ordinal`, bin k holds edges[k-1] < y <=
    edges[k], its mean label is means[k], and cuts[k] is the logit of the share of labels that are at most edges[k].
    """

    mean: float
    std: float
    top: float
    start: float
    edges: list[float]
    means: list[float]
    cuts: list[float]


def fit(task: Task, label: QuantileSketch) -> LabelBins:
    """Statistics of the labels >= 0 of a regression task; without labels all is 0, and nothing is wider than 1."""
    count, logs = label.count, np.log1p(label.mean())
    mean = std = top = start = 0.0
    if len(count):
        mean = float((logs * count).sum()) / label.total()
        std = (float(((logs - mean) ** 2 * count).sum()) / label.total()) ** 0.5
        top = float(logs[-1])
    std = std if std > 1e-6 else 1.0
    if task.predict == "quantile" and len(count):
        start = (float(_quantile(logs, count, task.quantile)) - mean) / std
    edges, means, cuts = _binned(label, task.bins) if task.predict == "ordinal" else ([], [], [])
    return LabelBins(mean=mean, std=std, top=top, start=start, edges=edges, means=means, cuts=cuts)


def _quantile(value: np.ndarray, count: np.ndarray, quantile: float) -> float:
    """As numpy has it: between the two numbers whose ranks are next to `quantile` of the last one's."""
    last = np.cumsum(count)
    rank = quantile * (last[-1] - 1)
    low, high = (value[np.searchsorted(last, place, side="right")] for place in (np.floor(rank), np.ceil(rank)))
    return low + (high - low) * (rank - np.floor(rank))


def _binned(label: QuantileSketch, bins: int) -> tuple[list[float], list[float], list[float]]:
    """Edges, means and cuts of bins of about equal mass, fewer where many labels are equal.

    An edge is a label, or the last of a bucket of them.
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
    # a bin is empty only where all labels are one value, which then is the mean of both
    means = np.bincount(bin_K, weights=label.mean() * label.count, minlength=len(count)) / np.maximum(count, 1)
    means = np.where(count > 0, means, upper[ends[0]])
    share = (np.cumsum(count)[:-1] + 1) / (last[-1] + 2)
    return upper[ends].tolist(), means.tolist(), np.log(share / (1 - share)).tolist()
