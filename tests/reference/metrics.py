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


def reliability(scores, labels, bins=15):
    """(mean score, mean label, squared deviations of labels, candidates) of each bin of equally many, by score.

    Of tied scores each bin has its share: every candidate is in every place that the tied ones fill, in equal parts.
    """
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    actual, place = [], 0
    for b in range(bins):
        size = len(scores) // bins + (b < len(scores) % bins)
        shares = []
        for i in order[place : place + size]:
            tied = [j for j in order if scores[j] == scores[i]]
            shares += [(scores[j], labels[j], 1 / len(tied)) for j in tied]
        place += size
        if size:
            mean_y = sum(y * share for _, y, share in shares) / size
            squares = sum(share * (y - mean_y) ** 2 for _, y, share in shares)
            actual.append((sum(p * share for p, _, share in shares) / size, mean_y, squares, size))
    return actual
