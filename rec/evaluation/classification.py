"""Metrics of predicted probabilities, exact and in numpy: every candidate counts, nothing is binned or sampled.

AUC, grouped AUC (GAUC), log loss, normalised entropy (NE), calibration ratio and reliability. A metric that is
undefined, such as AUC with one class only, is None. Metrics of regressions are in rec/evaluation/regression.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_EPSILON = 1e-7


@dataclass(frozen=True)
class Grouped:
    """A metric computed inside each group and averaged; `excluded` is the share of groups where it is undefined."""

    value: float | None
    groups: int
    excluded: float


def auc(score_N: np.ndarray, label_N: np.ndarray) -> float | None:
    """Area under the ROC curve: P(a positive scores above a negative), ties count half; None with one class only.

    >>> auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]))
    0.875
    Mann-Whitney U; Fawcett, An introduction to ROC analysis, 2006, section 7.
    """
    value_G, _, _ = _aucs(score_N, label_N, np.zeros(len(score_N), np.int64))
    return float(value_G[0]) if len(value_G) and not np.isnan(value_G[0]) else None


def gauc(score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, *, weight: str) -> Grouped:
    """AUC inside each group that has both classes, averaged by candidates (`candidates`) or evenly (`equal`).

    `excluded` is the share of groups with one class only, which count in neither numerator nor denominator.
    Zhu et al., Optimized Cost per Click in Taobao Display Advertising, KDD 2017, section 4.
    """
    value_G, size_G, _ = _aucs(score_N, label_N, group_N)
    return grouped(value_G, size_G, weight=weight)


def grouped(value_G: np.ndarray, size_G: np.ndarray, *, weight: str) -> Grouped:
    """The mean over groups of a metric [G], NaN where it is undefined, weighted by candidates or evenly."""
    defined = ~np.isnan(value_G)
    if not defined.any():
        return Grouped(None, len(value_G), 1.0 if len(value_G) else 0.0)
    weights = size_G[defined] if weight == "candidates" else np.ones(int(defined.sum()))
    return Grouped(float(np.average(value_G[defined], weights=weights)), len(value_G), float(1 - defined.mean()))


def log_loss(score_N: np.ndarray, label_N: np.ndarray) -> float | None:
    """Mean of -log P(label); None without candidates."""
    if not len(score_N):
        return None
    p = np.clip(score_N.astype(np.float64), _EPSILON, 1 - _EPSILON)
    return float(-np.where(label_N == 1, np.log(p), np.log1p(-p)).mean())


def normalised_entropy(score_N: np.ndarray, label_N: np.ndarray) -> float | None:
    """Log loss divided by that of always predicting the base rate; below 1 is better than it. None with one class only.

    He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, 2014, section 3.
    """
    rate = label_N.mean() if len(label_N) else 0.0
    if rate in (0.0, 1.0):
        return None
    loss = log_loss(score_N, label_N)
    return None if loss is None else float(loss / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def calibration(score_N: np.ndarray, label_N: np.ndarray) -> float | None:
    """Sum of predictions over sum of labels: 1 is calibrated, above 1 overpredicts; None where labels sum to 0."""
    total = float(label_N.sum(dtype=np.float64))
    return float(score_N.sum(dtype=np.float64) / total) if total else None


def reliability(score_N: np.ndarray, label_N: np.ndarray, *, bins: int = 15) -> list[dict[str, float]]:
    """Mean prediction and mean label in bins of equally many candidates, in order of score."""
    order = np.argsort(score_N, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [
        {
            "low": float(score_N[part[0]]),
            "high": float(score_N[part[-1]]),
            "mean_p": float(score_N[part].mean(dtype=np.float64)),
            "mean_y": float(label_N[part].mean()),
            "count": len(part),
        }
        for part in parts
    ]


def summary(score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, *, weight: str) -> dict[str, object]:
    """Every metric of one output as plain values for report.json."""
    inside = gauc(score_N, label_N, group_N, weight=weight)
    return {
        "auc": auc(score_N, label_N),
        "gauc": inside.value,
        "gauc_groups": inside.groups,
        "gauc_excluded": inside.excluded,
        "log_loss": log_loss(score_N, label_N),
        "normalised_entropy": normalised_entropy(score_N, label_N),
        "calibration": calibration(score_N, label_N),
        "base_rate": float(label_N.mean()) if len(label_N) else None,
        "candidates": len(label_N),
        "positives": int(label_N.sum()),
        "reliability": reliability(score_N, label_N),
    }


def _aucs(score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per group: AUC [G] (NaN with one class), size [G], positives [G]; one sort, no loop."""
    if not len(score_N):
        empty = np.zeros(0)
        return empty, empty, empty
    _, group = np.unique(group_N, return_inverse=True)
    order = np.lexsort((score_N, group))
    group, score, label = group[order], score_N[order], label_N[order] == 1
    size = np.bincount(group)
    start = np.cumsum(size) - size
    # tied scores in a group share the mean of their ranks, counted from 1 inside the group
    new_run = np.r_[True, (score[1:] != score[:-1]) | (group[1:] != group[:-1])]
    run = np.cumsum(new_run) - 1
    first = np.flatnonzero(new_run)
    last = np.r_[first[1:], len(score)] - 1
    rank = (first[run] + last[run]) / 2 - start[group] + 1
    positives = np.bincount(group, weights=label)
    rank_sum = np.bincount(group, weights=np.where(label, rank, 0.0))
    pairs = positives * (size - positives)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(pairs > 0, (rank_sum - positives * (positives + 1) / 2) / pairs, np.nan)
    return value, size, positives
