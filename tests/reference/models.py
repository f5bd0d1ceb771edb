"""Models by their equations: numpy, one candidate, one expert, one task at a time."""

from __future__ import annotations

import numpy as np


def relu(x):
    """Zero below zero."""
    return np.maximum(x, 0.0)


def swish(x):
    """Its argument times its logistic."""
    return x * sigmoid(x)


def softmax(x):
    """Exponentials that sum to one."""
    e = np.exp(x - x.max())
    return e / e.sum()


def sigmoid(z):
    """The logistic function."""
    return 1 / (1 + np.exp(-z))


def perceptron(x, layers, activation=relu):
    """One row through layers of (weight [in, out], bias [out]), the activation after every one."""
    for weight, bias in layers:
        x = activation(x @ weight + bias)
    return x


def shared_bottom(rows, bottom, *, tasks):
    """One perceptron for every task: [T, N, H]."""
    return np.array([[perceptron(x, bottom) for x in rows] for _ in range(tasks)])


def mmoe(rows, experts, gates):
    """MMoE (KDD 2018): experts and one gate per task over the raw input: [T, N, H]."""
    out = []
    for weight, bias in gates:
        mixed = []
        for x in rows:
            share = softmax(x @ weight + bias)
            mixed.append(sum(g * perceptron(x, expert) for g, expert in zip(share, experts, strict=True)))
        out.append(mixed)
    return np.array(out)


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
