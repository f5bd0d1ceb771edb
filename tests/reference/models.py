"""Models by their equations: numpy, one candidate, one expert, one task at a time."""

from __future__ import annotations

import numpy as np


def relu(x):
    """Zero below zero."""
    return np.maximum(x, 0.0)


def softmax(x):
    """Exponentials that sum to one."""
    e = np.exp(x - x.max())
    return e / e.sum()


def sigmoid(z):
    """The logistic function."""
    return 1 / (1 + np.exp(-z))


def perceptron(x, first, stacked, index):
    """Rows `index` of a PairLinear on [context; candidate], then one slice of each Stacked layer; ReLU after each."""
    weight = np.concatenate([w for w in (first["context"], first["candidate"]) if w is not None], 1)
    x = relu(weight[index] @ x + first["bias"][index])
    for layer_weight, layer_bias in stacked:
        x = relu(x @ layer_weight + layer_bias[0])
    return x


def mmoe(context, candidate, owner, w, *, tasks, experts):
    """MMoE (KDD 2018): for every candidate, experts, gates over the raw input, one tower per task."""
    hidden = w["first"]["bias"].shape[0] // experts
    gate_weight = np.concatenate([g for g in (w["gate"]["context"], w["gate"]["candidate"]) if g is not None], 1)
    out = np.zeros((tasks, len(owner)))
    for n, request in enumerate(owner):
        x = np.concatenate([context[request], candidate[n]])
        outputs = [
            perceptron(x, w["first"], [(a[e], b[e]) for a, b in w["rest"]], slice(e * hidden, (e + 1) * hidden))
            for e in range(experts)
        ]
        logits = (gate_weight @ x + w["gate"]["bias"]).reshape(tasks, experts)
        for t in range(tasks):
            h = sum(g * o for g, o in zip(softmax(logits[t]), outputs, strict=True))
            for a, b in w["tower"][:-1]:
                h = relu(h @ a[t] + b[t][0])
            out[t, n] = (h @ w["tower"][-1][0][t] + w["tower"][-1][1][t][0])[0]
    return out


def shared_bottom(context, candidate, owner, w, *, tasks):
    """One perceptron, one tower per task."""
    whole = slice(None)
    out = np.zeros((tasks, len(owner)))
    for n, request in enumerate(owner):
        x = np.concatenate([context[request], candidate[n]])
        bottom = perceptron(x, w["first"], [(a[0], b[0]) for a, b in w["rest"]], whole)
        for t in range(tasks):
            h = bottom
            for a, b in w["tower"][:-1]:
                h = relu(h @ a[t] + b[t][0])
            out[t, n] = (h @ w["tower"][-1][0][t] + w["tower"][-1][1][t][0])[0]
    return out


def chain(logits, parents):
    """Unconditional probability of every task: the product of sigmoids up the tree."""
    out = {}
    for name in parents:
        p, node = 1.0, name
        while node is not None:
            p = p * sigmoid(logits[node])
            node = parents[node]
        out[name] = p
    return out
