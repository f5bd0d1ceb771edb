"""Metrics by their definitions, one pair or one candidate at a time."""

from __future__ import annotations

import math


def auc(scores, labels):
    """Share of (positive, negative) pairs in the right order, ties half; None without a pair."""
    pairs = [
        (p, n) for p, y in zip(scores, labels, strict=True) if y for n, z in zip(scores, labels, strict=True) if not z
    ]
    if not pairs:
        return None
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


def gauc(scores, labels, groups, weight):
    """(weighted mean of AUC over groups with both classes, groups, share of groups left out)."""
    values, names = [], sorted(set(groups))
    for name in names:
        rows = [i for i, g in enumerate(groups) if g == name]
        value = auc([scores[i] for i in rows], [labels[i] for i in rows])
        if value is not None:
            values.append((value, len(rows) if weight == "candidates" else 1))
    if not values:
        return None, len(names), 1.0
    mean = sum(v * w for v, w in values) / sum(w for _, w in values)
    return mean, len(names), 1 - len(values) / len(names)


def log_loss(scores, labels):
    """Mean of -log of the probability given to what happened."""
    return sum(-math.log(p if y else 1 - p) for p, y in zip(scores, labels, strict=True)) / len(scores)
