"""What the training labels of a quantity look like: what a task that predicts one starts from. No torch.

A quantity is a number of 0 or more that is had where an event happened, or at every candidate: seconds watched, money
spent. How one is learnt from what is fitted here is in rec/quantities.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rec.spec import Task

SAMPLE = 262_144  # labels of one task that are held to be looked at, at most


@dataclass(frozen=True)
class Target:
    """The labels y of one quantity where it is learnt, as log1p(y): their mean, deviation and largest.

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


class Sample:
    """At most SAMPLE of the values that are put in, evenly spaced, the same however they are cut into pieces."""

    def __init__(self, most: int = SAMPLE) -> None:
        """Nothing is held yet."""
        self._most, self._every, self._seen = most, 1, 0
        self._held = np.zeros(0, np.float32)

    def add(self, values: np.ndarray) -> None:
        """Put in the next values [n]."""
        first = -self._seen % self._every
        self._seen += len(values)
        self._held = np.concatenate([self._held, values[first :: self._every]])
        while len(self._held) > self._most:
            self._held, self._every = self._held[::2], 2 * self._every

    def values(self) -> np.ndarray:
        """Those held, in order, float64."""
        return self._held.astype(np.float64)


def fit(task: Task, label_N: np.ndarray) -> Target:
    """What a sample of labels [N] >= 0 says about a quantity; without labels all is 0, and nothing is wider than 1."""
    logs = np.log1p(label_N)
    mean, std, top = (float(logs.mean()), float(logs.std()), float(logs.max())) if len(logs) else (0.0, 0.0, 0.0)
    std = std if std > 1e-6 else 1.0
    start = (float(np.quantile(logs, task.quantile)) - mean) / std if task.predict == "quantile" and len(logs) else 0.0
    edges, means, cuts = _binned(label_N, task.bins) if task.predict == "ordinal" else ([], [], [])
    return Target(mean=mean, std=std, top=top, start=start, edges=edges, means=means, cuts=cuts)


def _binned(label_N: np.ndarray, bins: int) -> tuple[list[float], list[float], list[float]]:
    """Edges, means and cuts of bins of about equal mass, fewer where many labels are equal; an edge is a label."""
    if not len(label_N):
        return [0.0], [0.0, 0.0], [0.0]
    ordered = np.sort(label_N)
    edges = np.unique(ordered[(np.arange(1, bins) * len(ordered) + bins - 1) // bins - 1])
    edges = edges[edges < ordered[-1]]
    edges = edges if len(edges) else ordered[:1]
    bin_N = np.searchsorted(edges, label_N, side="left")
    count = np.bincount(bin_N, minlength=len(edges) + 1)
    # a bin is empty only where all labels are one value, which then is the mean of both
    means = np.bincount(bin_N, weights=label_N, minlength=len(count)) / np.maximum(count, 1)
    means = np.where(count > 0, means, edges[0])
    share = (np.cumsum(count)[:-1] + 1) / (len(label_N) + 2)
    return edges.tolist(), means.tolist(), np.log(share / (1 - share)).tolist()
