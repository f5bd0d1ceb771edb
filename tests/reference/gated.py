"""The family of gated experts by its equations: numpy, one candidate, one task, one expert at a time."""

from __future__ import annotations

import numpy as np

from tests.reference.models import perceptron, softmax

SHARED = "(shared)"


def single_task(rows_of, bottoms):
    """One perceptron per task, over the rows that task sees: [T, N, H]."""
    return np.array([[perceptron(x, b) for x in rows] for rows, b in zip(rows_of, bottoms, strict=True)])


def omoe(rows, experts, gate, *, tasks):
    """One gate: the same mix for every task [T, N, H]."""
    single = [weighed(softmax(x @ gate[0] + gate[1]), [perceptron(x, expert) for expert in experts]) for x in rows]
    return np.array([single for _ in range(tasks)])


def ml_mmoe(rows, levels):
    """`levels`: (experts, gates) per level; gate j feeds expert j of the next level, or at the last task j."""
    out = []
    for x in rows:
        read = [x for _ in levels[0][0]]
        for experts, gates in levels:
            outputs = [perceptron(read[k], expert) for k, expert in enumerate(experts)]
            read = [weighed(softmax(x @ weight + bias), outputs) for weight, bias in gates]
        out.append(read)
    return np.array(out).swapaxes(0, 1)


def ple(rows, tasks, levels):
    """`levels`: per level `experts` [(owner, perceptron)] and `gates` {task or SHARED: (weight [in, E], bias [E])}.

    A task's gate has weights for experts it does not see; they are not read.
    """
    out = []
    for x in rows:
        read = {group: x for level in levels for group, _ in level["experts"]} | dict.fromkeys(tasks, x)
        for level in levels:
            outputs = [(owner, perceptron(read[owner], expert)) for owner, expert in level["experts"]]
            read = {group: _fused(group, read[group], gate, outputs) for group, gate in level["gates"].items()}
        out.append([read[task] for task in tasks])
    return np.array(out).swapaxes(0, 1)


def _fused(group, x, gate, outputs):
    seen = [k for k, (owner, _) in enumerate(outputs) if group == SHARED or owner in (group, SHARED)]
    weight, bias = gate
    return weighed(softmax(x @ weight[:, seen] + bias[seen]), [outputs[k][1] for k in seen])


def cross_stitch(rows, levels):
    """`levels`: (a perceptron per task, the mix [T, T]) per level: [T, N, H]."""
    out = []
    for x in rows:
        read = [x for _ in levels[0][0]]
        for experts, stitch in levels:
            outputs = [perceptron(u, expert) for u, expert in zip(read, experts, strict=True)]
            read = [weighed(row, outputs) for row in stitch]
        out.append(read)
    return np.array(out).swapaxes(0, 1)


def weighed(weights, vectors):
    """A weighted sum of vectors."""
    return sum(w * v for w, v in zip(weights, vectors, strict=True))
