"""Quantities by their definitions, one candidate and one bin at a time."""

from __future__ import annotations

import math
from itertools import pairwise


def sigmoid(x):
    """The logistic function, without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def bin_of(label, edges):
    """The first bin whose edge the label does not exceed."""
    for place, edge in enumerate(edges):
        if label <= edge:
            return place
    return len(edges)


def chances(z, cuts):
    """P(bin) of every bin: differences of P(at most the edge) = sigmoid(cut - z)."""
    at_most = [0.0, *(sigmoid(cut - z) for cut in cuts), 1.0]
    return [high - low for low, high in pairwise(at_most)]


def ordinal_loss(z, label, cuts, edges):
    """-log P(bin of the label)."""
    return -math.log(chances(z, cuts)[bin_of(label, edges)])


def ordinal_value(z, cuts, means):
    """The mean over bins."""
    return sum(chance * mean for chance, mean in zip(chances(z, cuts), means, strict=True))


def log_loss(z, label, mean, std):
    """Squared error on the standardised log(1 + y)."""
    return (z - (math.log(1 + label) - mean) / std) ** 2


def pinball(short, quantile):
    """Quantile times what is missing, or the rest times what is too much."""
    return quantile * short if short > 0 else (quantile - 1) * short


def concordance(scores, labels):
    """Share of pairs with different labels that scores put in the right order, ties half; None without a pair."""
    rows = list(zip(scores, labels, strict=True))
    pairs = [(a, b) if a[1] > b[1] else (b, a) for i, a in enumerate(rows) for b in rows[:i] if a[1] != b[1]]
    if not pairs:
        return None
    return sum(1.0 if more[0] > less[0] else 0.5 if more[0] == less[0] else 0.0 for more, less in pairs) / len(pairs)


def bins(labels, count):
    """Edges at every count-th part of the sorted labels, once each, none at the largest; the labels of every bin.

    Where that leaves no edge, the smallest label is one.
    """
    ordered = sorted(labels)
    edges = []
    for part in range(1, count):
        edge = ordered[math.ceil(part * len(ordered) / count) - 1]
        if edge < ordered[-1] and edge not in edges:
            edges.append(edge)
    edges = edges or ordered[:1]
    return edges, [[y for y in ordered if bin_of(y, edges) == place] for place in range(len(edges) + 1)]
