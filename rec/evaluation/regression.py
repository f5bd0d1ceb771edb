"""Regression metrics, exact and in numpy: concordance (XAUC), MAE, RMSE, normalised error, calibration, reliability.

Concordance is to a regression what AUC is to a classification: the share of pairs that are ranked correctly.
"""

from __future__ import annotations

import numpy as np

from rec.evaluation import classification
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
    value_G, _ = _concordances(score_N, label_N, np.zeros(len(score_N), np.int64))
    return float(value_G[0]) if len(value_G) and not np.isnan(value_G[0]) else None


def grouped_concordance(
    score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, *, weight: str
) -> classification.Grouped:
    """Concordance inside each group that has two different labels, averaged as `classification.gauc` is."""
    return classification.grouped(*_concordances(score_N, label_N, group_N), weight=weight)


def normalised_error(score_N: np.ndarray, label_N: np.ndarray, *, predict: str, quantile: float) -> float | None:
    """A task's error divided by that of the best constant prediction; below 1 is better than it.

    `ordinal`: squared error; `log`: that of log(1 + y); `quantile`: pinball loss of log(1 + y). None where all labels
    are equal.
    """
    if not len(label_N):
        return None
    score, label = score_N.astype(np.float64), label_N.astype(np.float64)
    if predict != "ordinal":
        score, label = np.log1p(score), np.log1p(label)
    if predict == "quantile":
        error, least = _pinball(label - score, quantile), _pinball(label - np.quantile(label, quantile), quantile)
    else:
        error, least = float(((label - score) ** 2).mean()), float(label.var())
    return error / least if least > 0 else None


def summary(
    score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, *, task: Task, weight: str, expected: bool
) -> dict[str, object]:
    """Every metric of one output as plain values for report.json.

    `expected` is for an expectation over all candidates, P(parent) times the value given the parent: its error is the
    squared one, whatever the task predicts.
    """
    inside = grouped_concordance(score_N, label_N, group_N, weight=weight)
    error = label_N.astype(np.float64) - score_N
    known = len(label_N) > 0
    predict = "ordinal" if expected else task.predict
    return {
        "concordance": concordance(score_N, label_N),
        "grouped_concordance": inside.value,
        "groups": inside.groups,
        "groups_excluded": inside.excluded,
        "mae": float(np.abs(error).mean()) if known else None,
        "rmse": float(np.sqrt((error**2).mean())) if known else None,
        "normalised_error": normalised_error(score_N, label_N, predict=predict, quantile=task.quantile),
        "calibration": classification.calibration(score_N, label_N),
        "mean_label": float(label_N.mean(dtype=np.float64)) if known else None,
        "candidates": len(label_N),
        "reliability": reliability(score_N, label_N),
    }


def reliability(score_N: np.ndarray, label_N: np.ndarray, *, bins: int = 15) -> list[dict[str, float]]:
    """As `classification.reliability`, with `error_y`: the standard error of each bin's mean label."""
    order = np.argsort(score_N, kind="stable")
    parts = [part for part in np.array_split(label_N[order].astype(np.float64), bins) if len(part)]
    filled = classification.reliability(score_N, label_N, bins=bins)
    return [
        {**of_bin, "error_y": float(part.std() / len(part) ** 0.5)} for of_bin, part in zip(filled, parts, strict=True)
    ]


def _pinball(short_N: np.ndarray, quantile: float) -> float:
    return float(np.maximum(quantile * short_N, (quantile - 1) * short_N).mean())


def _concordances(score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per group: concordance [G] (NaN where all labels are equal), size [G]."""
    if not len(score_N):
        return np.zeros(0), np.zeros(0, np.int64)
    _, group = np.unique(group_N, return_inverse=True)
    _, score = np.unique(score_N, return_inverse=True)
    _, label = np.unique(label_N, return_inverse=True)
    size = np.bincount(group)
    # equal labels in descending order of score, so that no pair of them is ascending
    order = np.lexsort((-score, label, group))
    rising = _rising(group[order], score[order])
    pairs = _pairs(size) - _tied(group, label)
    tied = _tied(group, score) - _tied(group, score, label)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (rising + tied / 2) / pairs, np.nan), size


def _pairs(count: np.ndarray) -> np.ndarray:
    return count * (count - 1) // 2


def _tied(group_N: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Tied pairs per group: equal in every key [G]."""
    run = np.zeros(len(group_N), np.int64)
    for key in (group_N, *keys):
        _, run = np.unique(run * (int(key.max()) + 1) + key, return_inverse=True)
    count = np.bincount(run)
    owner = np.zeros(len(count), np.int64)
    owner[run] = group_N
    return np.bincount(owner, weights=_pairs(count), minlength=int(group_N.max()) + 1)


def _rising(group_N: np.ndarray, rank_N: np.ndarray) -> np.ndarray:
    """Ascending pairs per group [G]: i < j with rank[i] < rank[j]; rows are sorted by group, numbered from 0.

    A stable radix sort from the highest bit: rows that agree in all bits so far form a run in their original order,
    and a row whose next bit is 1 makes a pair with every row before it in its run whose next bit is 0.
    """
    group_first = np.flatnonzero(np.diff(group_N, prepend=-1))
    pairs, place = np.zeros(len(group_first), np.int64), np.arange(len(rank_N))
    first, run = group_first, group_N  # first row of every run, and the run of every row
    for bit in range(int(rank_N.max()).bit_length() - 1, -1, -1):
        bit_N = (rank_N >> bit & 1).astype(bool)
        zeros = np.cumsum(~bit_N)
        before = zeros - ~bit_N - (zeros - ~bit_N)[first][run]  # zeros before the row in its run
        pairs += np.add.reduceat(np.where(bit_N, before, 0), group_first)
        # every run is split stably: its zeros, then its ones
        split = first + np.add.reduceat(~bit_N, first, dtype=np.int64)
        ranked = np.empty_like(rank_N)
        ranked[np.where(bit_N, split[run] + place - first[run] - before, first[run] + before)] = rank_N
        rank_N = ranked
        begin = np.zeros(len(rank_N) + 1, bool)
        begin[first] = begin[split] = True
        first = np.flatnonzero(begin[:-1])
        run = np.cumsum(begin[:-1]) - 1
    return pairs
