"""Metrics of predicted probabilities, exact and in numpy: every candidate counts, nothing is sampled.

AUC, grouped AUC (GAUC), log loss, normalised entropy (NE), calibration ratio and reliability. A metric that is
undefined, such as AUC with one class only, is None. Metrics of regressions are in rec/evaluation/regression.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rec.evaluation.pairs import Pairs, counted
from rec.evaluation.reliability import reliability

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
    return share(counted(score_N, label_N == 1, np.zeros(len(score_N), np.int8)))


def gauc(score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, *, weight: str) -> Grouped:
    """AUC inside each group that has both classes, averaged by candidates (`candidates`) or evenly (`equal`).

    `excluded` is the share of groups with one class only, which count in neither numerator nor denominator.
    Zhu et al., Optimized Cost per Click in Taobao Display Advertising, KDD 2017, section 4.
    """
    return grouped(group_sums(counted(score_N, label_N == 1, group_N), weight=weight))


def share(pairs: Pairs) -> float | None:
    """Concordant pairs over pairs of the one group there is; None where there is no pair."""
    return float(pairs.share()[0]) if pairs.pairs.any() else None


def group_sums(pairs: Pairs, *, weight: str) -> np.ndarray:
    """What a mean over groups is made of [4]: groups, those with a pair, their weights, weights times shares."""
    weight_G = np.where(pairs.pairs > 0, pairs.rows if weight == "candidates" else 1, 0)
    total = (weight_G * np.nan_to_num(pairs.share())).sum()
    return np.array([len(pairs.rows), (pairs.pairs > 0).sum(), weight_G.sum(), total], np.float64)


def grouped(sums: np.ndarray) -> Grouped:
    """The mean over groups, from `group_sums` or the sum of several of them."""
    groups, known, weights, total = sums.tolist()
    return Grouped(total / weights if known else None, int(groups), 1 - known / groups if groups else 0.0)


def log_loss(score_N: np.ndarray, label_N: np.ndarray) -> float | None:
    """Mean of -log P(label); None without candidates."""
    if not len(score_N):
        return None
    return float(losses(score_N, label_N).mean())


def losses(score_N: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """-log P(label) of every candidate [N]."""
    p = np.clip(score_N.astype(np.float64), _EPSILON, 1 - _EPSILON)
    return -np.where(label_N == 1, np.log(p), np.log1p(-p))


def normalised_entropy(score_N: np.ndarray, label_N: np.ndarray) -> float | None:
    """Log loss divided by that of always predicting the base rate; below 1 is better than it. None with one class only.

    He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, 2014, section 3.
    """
    return _normalised(log_loss(score_N, label_N), float(label_N.mean()) if len(label_N) else None)


def calibration(score_N: np.ndarray, label_N: np.ndarray) -> float | None:
    """Sum of predictions over sum of labels: 1 is calibrated, above 1 overpredicts; None where labels sum to 0."""
    total = float(label_N.sum(dtype=np.float64))
    return float(score_N.sum(dtype=np.float64) / total) if total else None


def event_sums(score_N: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """What the means of an event are made of [4]: candidates, positives, predictions, losses; parts are added up."""
    loss = log_loss(score_N, label_N) or 0.0
    count = len(label_N)
    return np.array([count, (label_N == 1).sum(), score_N.sum(dtype=np.float64), loss * count])


def figures(sums: np.ndarray, auc: float | None, inside: Grouped, bins: list[dict[str, float]]) -> dict[str, object]:
    """Every metric of one output as plain values for report.json: means from `event_sums`, and what needs an order."""
    count, positives, predicted, loss = sums.tolist()
    rate = positives / count if count else None
    mean_loss = loss / count if count else None
    return {
        "auc": auc,
        "gauc": inside.value,
        "gauc_groups": inside.groups,
        "gauc_excluded": inside.excluded,
        "log_loss": mean_loss,
        "normalised_entropy": _normalised(mean_loss, rate),
        "calibration": predicted / positives if positives else None,
        "base_rate": rate,
        "candidates": int(count),
        "positives": int(positives),
        "reliability": bins,
    }


def summary(score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, *, weight: str) -> dict[str, object]:
    """Every metric of one output whose candidates fit in memory; as an Accumulator gives it for any number of them."""
    inside = gauc(score_N, label_N, group_N, weight=weight)
    bins = reliability(score_N, label_N, errors=False)
    return figures(event_sums(score_N, label_N), auc(score_N, label_N), inside, bins)


def _normalised(loss: float | None, rate: float | None) -> float | None:
    if loss is None or rate is None or rate in (0.0, 1.0):
        return None
    return float(loss / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))
