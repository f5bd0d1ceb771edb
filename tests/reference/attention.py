"""Slow twins of rec/modules/attention.py: a loop over candidates, heads and steps."""

from __future__ import annotations

import numpy as np


def din(steps, known, query, owner, layers, *, softmax):
    """[N, D]; `layers` are (weight [in, out], bias [out]), the first over [t; s; t - s; t * s]."""
    out = np.zeros_like(query)
    for n, t in enumerate(query):
        own = [s for s, there in zip(steps[owner[n]], known[owner[n]], strict=True) if there]
        scores = [_perceptron(np.concatenate([t, s, t - s, t * s]), layers) for s in own]
        out[n] = _sum(_softmax(scores) if softmax else scores, own, query.shape[1])
    return out


def multihead(steps, known, query, owner, weights, *, heads, relu):
    """[N, D]; `weights` are W_q, W_k, W_v [D, heads * A] and W_o [heads * A, D]."""
    w_q, w_k, w_v = (np.split(weights[name], heads, axis=1) for name in ("query", "key", "value"))
    out = np.zeros_like(query)
    for n, t in enumerate(query):
        own = [s for s, there in zip(steps[owner[n]], known[owner[n]], strict=True) if there]
        answers = []
        for h in range(heads):
            width = w_q[h].shape[1]
            scores = [(t @ w_q[h]) @ (s @ w_k[h]) / np.sqrt(width) for s in own]
            shares = [max(0.0, score) for score in scores] if relu else _softmax(scores)
            answers.append(_sum(shares, [s @ w_v[h] for s in own], width))
        out[n] = np.concatenate(answers) @ weights["out"]
    return out


def _perceptron(x, layers):
    for weight, bias in layers[:-1]:
        x = np.maximum(0, x @ weight + bias)
    weight, bias = layers[-1]
    return (x @ weight + bias)[0]


def _softmax(scores):
    total = sum(np.exp(score) for score in scores)
    return [np.exp(score) / total for score in scores]


def _sum(shares, rows, width):
    total = np.zeros(width)
    for share, row in zip(shares, rows, strict=True):
        total += share * row
    return total
