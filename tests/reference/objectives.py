"""Objectives by their equations: numpy, one candidate and one task at a time.

`logits` and `labels` are {task: one value per candidate}, `parents` is {task: its parent or None}, parents first.
"""

from __future__ import annotations

import numpy as np

from tests.reference.models import relu, sigmoid, softmax


def probability(name, logits, parents, i):
    """P(name) of candidate i: the product up the tree."""
    p = 1.0
    while name is not None:
        p *= sigmoid(logits[name][i])
        name = parents[name]
    return p


def log_loss(p, label):
    """Of one probability; a label of -1 counts as 0."""
    return -np.log(p) if label == 1 else -np.log(1 - p)


def mean(weighted):
    """Of (weight, value) pairs, by the sum of the weights; 0 of nothing."""
    total = sum(weight for weight, _ in weighted)
    return sum(weight * value for weight, value in weighted) / total if total else 0.0


def esmm(logits, labels, parents, parent_space=()):
    """{task: mean log loss of P(task) over observed candidates}, or of P(task | parent) where the parent happened."""
    out = {}
    for name, parent in parents.items():
        terms = []
        for i, label in enumerate(labels[name]):
            if label == -1:
                continue
            if name not in parent_space:
                terms.append((1.0, log_loss(probability(name, logits, parents, i), label)))
            elif labels[parent][i] == 1:
                terms.append((1.0, log_loss(sigmoid(logits[name][i]), label)))
        out[name] = mean(terms)
    return out


def weight(p, i, clip):
    """min(1 / p, clip mean weights) of candidate i, where a mean weight is 1 / mean p."""
    return min(1 / p[i], clip / np.mean(p))


def escm2_ips(logits, labels, parents, *, clip):
    """{child: log loss where the parent happened, each candidate weighted by `weight` of P(parent)}."""
    out = {}
    for name, parent in parents.items():
        terms = []
        for i, label in enumerate(labels[name]):
            if parent is not None and labels[parent][i] == 1 and label != -1:
                p = [probability(parent, logits, parents, k) for k in range(len(labels[name]))]
                terms.append((weight(p, i, clip), log_loss(sigmoid(logits[name][i]), label)))
        if parent is not None:
            out[name] = mean(terms)
    return out


def escm2_dr(logits, labels, parents, imputed, *, clip):
    """{child: mean(e_hat) + weighted mean(e - e_hat) + weighted mean((e - e_hat)^2)}."""
    out = {}
    for name, parent in parents.items():
        if parent is None:
            continue
        everywhere, missed = [], []
        for i, label in enumerate(labels[name]):
            if label == -1 or labels[parent][i] == -1:
                continue
            everywhere.append((1.0, imputed[name][i]))
            if labels[parent][i] == 1:
                p = [probability(parent, logits, parents, k) for k in range(len(labels[name]))]
                missed.append((weight(p, i, clip), log_loss(sigmoid(logits[name][i]), label) - imputed[name][i]))
        out[name] = mean(everywhere) + mean(missed) + mean([(w, m * m) for w, m in missed])
    return out


def dcmt(logits, labels, parents, counter, *, clip, constraint):
    """{child: factual loss + counterfactual loss + constraint * mean |1 - (r + rc)|}."""
    out = {}
    for name, parent in parents.items():
        if parent is None:
            continue
        factual, counterfactual, gap = [], [], []
        for i, label in enumerate(labels[name]):
            r, rc = sigmoid(logits[name][i]), sigmoid(counter[name][i])
            gap.append((1.0, abs(1 - (r + rc))))
            p = np.array([probability(parent, logits, parents, k) for k in range(len(labels[name]))])
            if label == -1:
                continue
            if labels[parent][i] == 1:
                factual.append((weight(p, i, clip), log_loss(r, label)))
            elif labels[parent][i] == 0:
                counterfactual.append((weight(1 - p, i, clip), log_loss(rc, 1 - label)))
        out[name] = mean(factual) + mean(counterfactual) + constraint * mean(gap)
    return out


def transfer(parent, own, info, project):
    """AITM's attention of one child over what its parent tells it and what it knows itself: [H].

    `info` is (weight [H, H], bias [H]); `project` holds W1, W2, W3 [H, H] side by side.
    """
    weight, bias = info
    both = [relu(parent @ weight + bias), own]
    w1, w2, w3 = np.split(project, 3, axis=1)
    share = softmax(np.array([(u @ w2) @ (u @ w3) / np.sqrt(len(own)) for u in both]))
    return sum(a * (u @ w1) for a, u in zip(share, both, strict=True))


def aitm(logits, labels, parents):
    """({task: log loss of its unconditional probability}, {child: mean of how much likelier than its parent it is})."""
    own, above = {}, {}
    for name, parent in parents.items():
        p = [sigmoid(z) for z in logits[name]]
        own[name] = mean([(1.0, log_loss(q, y)) for q, y in zip(p, labels[name], strict=True) if y != -1])
        if parent is not None:
            above[name] = mean([(1.0, max(0.0, q - sigmoid(z))) for q, z in zip(p, logits[parent], strict=True)])
    return own, above
