"""Exact metrics of predicted quantities, in numpy: how far off, how right on the whole, and how well ordered.

Concordance is to a quantity what AUC is to an event: whether the larger of two labels has the larger prediction.
"""

from __future__ import annotations

import numpy as np

from rec.evaluation import classification
from rec.spec import Task

# a figure of an event, and the one that says the same of a quantity
LIKE = {"auc": "concordance", "gauc": "grouped_concordance", "normalised_entropy": "normalised_error"}


def concordance(score_N: np.ndarray, label_N: np.ndarray) -> float | None:
    """Probability that of two candidates with different labels the larger has the larger score, ties counting half.

    None without two different labels. Of labels 0 and 1 it is AUC. O(N log N).

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
    """Concordance inside each group that has two different labels, averaged as `metrics.gauc` is."""
    return classification.grouped(*_concordances(score_N, label_N, group_N), weight=weight)


def normalised_error(score_N: np.ndarray, label_N: np.ndarray, *, predict: str, quantile: float) -> float | None:
    """What a task's loss measures, over that of the best constant: 1 is useless, lower is better.

    `ordinal`: squared error; `log`: that of log(1 + y); `quantile`: pinball loss of log(1 + y). None of equal labels.
    """
    if not len(label_N):
        return None
    score, label = score_N.astype(np.float64), label_N.astype(np.float64)
    if predict != "ordinal":
        score, label = np.log1p(score), np.log1p(label)
    if predict == "quantile":
        found, least = _pinball(label - score, quantile), _pinball(label - np.quantile(label, quantile), quantile)
    else:
        found, least = float(((label - score) ** 2).mean()), float(label.var())
    return found / least if least > 0 else None


def summary(
    score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, *, task: Task, weight: str, whole: bool
) -> dict[str, object]:
    """Every figure of one output as plain values for report.json.

    `whole` is an amount over all candidates, made of a chance and a value: it is an expectation, of whichever kind the
    value is, and its error is the squared one.
    """
    inside = grouped_concordance(score_N, label_N, group_N, weight=weight)
    error = label_N.astype(np.float64) - score_N
    known = len(label_N) > 0
    predict = "ordinal" if whole else task.predict
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
    """As `metrics.reliability`, with `error_y`: the standard error of each bin's mean label."""
    order = np.argsort(score_N, kind="stable")
    parts = [part for part in np.array_split(label_N[order].astype(np.float64), bins) if len(part)]
    found = classification.reliability(score_N, label_N, bins=bins)
    return [{**one, "error_y": float(part.std() / len(part) ** 0.5)} for one, part in zip(found, parts, strict=True)]


def _pinball(short_N: np.ndarray, quantile: float) -> float:
    return float(np.maximum(quantile * short_N, (quantile - 1) * short_N).mean())


def _concordances(score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per group: concordance [G] (NaN with equal labels), size [G]."""
    if not len(score_N):
        return np.zeros(0), np.zeros(0, np.int64)
    _, group = np.unique(group_N, return_inverse=True)
    _, score = np.unique(score_N, return_inverse=True)
    _, label = np.unique(label_N, return_inverse=True)
    size = np.bincount(group)
    # equal labels in falling order of score, so that no pair of them rises
    order = np.lexsort((-score, label, group))
    rising = _rising(group[order], score[order])
    pairs = _pairs(size) - _tied(group, label)
    tied = _tied(group, score) - _tied(group, score, label)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (rising + tied / 2) / pairs, np.nan), size


def _pairs(count: np.ndarray) -> np.ndarray:
    return count * (count - 1) // 2


def _tied(group_N: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Per group: pairs that agree in every key [G]."""
    run = np.zeros(len(group_N), np.int64)
    for key in (group_N, *keys):
        _, run = np.unique(run * (int(key.max()) + 1) + key, return_inverse=True)
    count = np.bincount(run)
    owner = np.zeros(len(count), np.int64)
    owner[run] = group_N
    return np.bincount(owner, weights=_pairs(count), minlength=int(group_N.max()) + 1)


def _rising(group_N: np.ndarray, rank_N: np.ndarray) -> np.ndarray:
    """Per group: pairs i < j with rank[i] < rank[j] [G]; rows are sorted by group, from 0.

    Two ranks differ first in one bit, and there the smaller has 0. Bit by bit from the highest, rows that agree so far
    lie together in their first order, so every row with a 1 counts the zeros before it in its run.
    """
    group_first = np.flatnonzero(np.diff(group_N, prepend=-1))
    found, place = np.zeros(len(group_first), np.int64), np.arange(len(rank_N))
    first, run = group_first, group_N  # where the runs begin, and the run of every row
    for bit in range(int(rank_N.max()).bit_length() - 1, -1, -1):
        one = (rank_N >> bit & 1).astype(bool)
        zeros = np.cumsum(~one)
        before = zeros - ~one - (zeros - ~one)[first][run]  # zeros before the row in its run
        found += np.add.reduceat(np.where(one, before, 0), group_first)
        # in every run its zeros, then its ones, each in the order they had
        split = first + np.add.reduceat(~one, first, dtype=np.int64)
        ranked = np.empty_like(rank_N)
        ranked[np.where(one, split[run] + place - first[run] - before, first[run] + before)] = rank_N
        rank_N = ranked
        begin = np.zeros(len(rank_N) + 1, bool)
        begin[first] = begin[split] = True
        first = np.flatnonzero(begin[:-1])
        run = np.cumsum(begin[:-1]) - 1
    return found
