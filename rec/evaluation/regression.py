"""Regression metrics, exact and in numpy: concordance (XAUC), MAE, RMSE, normalised error, calibration, reliability.

Concordance is to a regression what AUC is to a classification: the share of pairs that are ranked correctly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rec.evaluation import classification
from rec.evaluation.pairs import counted
from rec.evaluation.reliability import reliability
from rec.spec import Task

# classification metric -> its counterpart of a regression
COUNTERPARTS = {"auc": "concordance", "gauc": "grouped_concordance", "normalised_entropy": "normalised_error"}


def concordance(score_N: np.ndarray, label_N: np.ndarray) -> float | None:
    """Concordance (XAUC): share of pairs with different labels that are ranked correctly, tied scores count half.

    None without two different labels. With labels 0 and 1 it is AUC. O(N log N).

    >>> concordance(np.array([1.0, 5.0, 5.0, 9.0]), np.array([0.0, 2.5, 7.0, 3.0]))
    0.75
    Harrell et al., Evaluating the Yield of Medical Tests, JAMA 1982; as XAUC in Zhan et al., Deconfounding Duration
    Bias in Watch-time Prediction, KDD 2022.
    """
    return classification.share(counted(score_N, label_N, np.zeros(len(score_N), np.int8)))


def grouped_concordance(
    score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, *, weight: str
) -> classification.Grouped:
    """Concordance inside each group that has two different labels, averaged as `classification.gauc` is."""
    return classification.grouped(classification.group_sums(counted(score_N, label_N, group_N), weight=weight))


def normalised_error(score_N: np.ndarray, label_N: np.ndarray, *, predict: str, quantile: float) -> float | None:
    """A task's error divided by that of the best constant prediction; below 1 is better than it.

    `ordinal`: squared error; `log`: that of log(1 + y); `quantile`: pinball loss of log(1 + y). None where all labels
    are equal.
    """
    if not len(label_N) or (label_N == label_N[0]).all():
        return None
    sums = regression_sums(score_N, label_N, predict=predict, quantile=quantile)
    least = None
    if predict == "quantile":
        least = pinball(scaled(label_N, predict) - np.quantile(scaled(label_N, predict), quantile), quantile)
    return _normalised(sums, least)


def scaled(values: np.ndarray, predict: str) -> np.ndarray:
    """Labels or predictions [n] float64 on the scale of a task's error: log(1 + y), of `ordinal` y itself."""
    return values.astype(np.float64) if predict == "ordinal" else np.log1p(values.astype(np.float64))


def pinball(short_N: np.ndarray, quantile: float) -> float:
    """The sum of pinball losses of what is missing [n]: quantile times it, or (1 - quantile) times what is too much."""
    return float(np.maximum(quantile * short_N, (quantile - 1) * short_N).sum())


def regression_sums(score_N: np.ndarray, label_N: np.ndarray, *, predict: str, quantile: float) -> np.ndarray:
    """What the means of a regression are made of [8]; parts are put together by `merged`.

    Candidates; predictions, labels, absolute and squared errors; the task's error; mean and squared deviations of
    labels, both on the scale of that error.
    """
    if not len(label_N):
        return np.zeros(8)
    error = label_N.astype(np.float64) - score_N
    label, score = scaled(label_N, predict), scaled(score_N, predict)
    own = pinball(label - score, quantile) if predict == "quantile" else ((label - score) ** 2).sum()
    sums = [score_N.sum(dtype=np.float64), label_N.sum(dtype=np.float64), np.abs(error).sum(), (error**2).sum()]
    return np.array([len(label_N), *sums, own, label.mean(), ((label - label.mean()) ** 2).sum()])


def merged(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The sums of candidates that come in several parts.

    Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
    """
    all_parts = np.stack(parts)
    count, mean = all_parts[:, 0], all_parts[:, 6]
    whole = all_parts.sum(0)
    if whole[0]:
        whole[6] = (count * mean).sum() / whole[0]
        whole[7] += (count * (mean - whole[6]) ** 2).sum()
    return whole


def figures(
    sums: np.ndarray,
    least: float | None,
    order: float | None,
    inside: classification.Grouped,
    bins: list[dict[str, float]],
) -> dict[str, object]:
    """Every metric of one output as plain values for report.json, from `regression_sums`, concordances and bins.

    `least` is the summed pinball loss of the best constant for `quantile`, otherwise None; `order` is the concordance,
    None where all labels are equal.
    """
    count, predicted, labels, absolute, squared = sums[:5].tolist()
    known = count > 0
    return {
        "concordance": order,
        "grouped_concordance": inside.value,
        "groups": inside.groups,
        "groups_excluded": inside.excluded,
        "mae": absolute / count if known else None,
        "rmse": (squared / count) ** 0.5 if known else None,
        "normalised_error": None if order is None else _normalised(sums, least),
        "calibration": predicted / labels if labels else None,
        "mean_label": labels / count if known else None,
        "candidates": int(count),
        "reliability": bins,
    }


def error_of(task: Task, *, expected: bool) -> str:
    """How the error of an output is measured: as its task predicts, of an expectation over all candidates squared.

    `expected` is for P(parent) times the value given the parent.
    """
    return "ordinal" if expected else task.predict


def summary(
    score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, *, task: Task, weight: str, expected: bool
) -> dict[str, object]:
    """Every metric of one output whose candidates fit in memory; as an Accumulator gives it for any number of them."""
    predict = error_of(task, expected=expected)
    sums = regression_sums(score_N, label_N, predict=predict, quantile=task.quantile)
    return {
        **figures(
            sums,
            None,
            concordance(score_N, label_N),
            grouped_concordance(score_N, label_N, group_N, weight=weight),
            reliability(score_N, label_N, errors=True),
        ),
        "normalised_error": normalised_error(score_N, label_N, predict=predict, quantile=task.quantile),
    }


def _normalised(sums: np.ndarray, least: float | None) -> float | None:
    least = float(sums[7]) if least is None else least
    return float(sums[5]) / least if least > 0 else None
