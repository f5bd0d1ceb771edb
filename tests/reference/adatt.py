"""AdaTT and STEM by their equations: numpy, one candidate, one unit, one expert at a time.

A level of AdaTT is (experts, gates, native): experts are (unit, layers) in order, gates {unit: (weight [in, E],
bias [E])} for the units that fuse, native {unit: weight of each of its own experts}, or None where there is no such
term.
"""

from __future__ import annotations

import numpy as np

from tests.reference.models import perceptron, softmax


def native_weights(experts, unit, native):
    """The weights of a unit's own experts in the order of its experts; nothing for a unit that has none."""
    own = [index for index, (owner, _) in enumerate(experts) if owner == unit]
    return dict(zip(own, native[unit], strict=True)) if native is not None else {}


def adatt(rows, tasks, levels):
    """The residual form: what the gate mixes, plus the native sum of the unit's own experts: [T, N, H]."""
    scored = []
    for x in rows:
        stream = {unit: x for experts, gates, _ in levels for unit in (*gates, *(owner for owner, _ in experts))}
        for experts, gates, native in levels:
            found = [perceptron(stream[owner], layers) for owner, layers in experts]
            after = {}
            for unit, (weight, bias) in gates.items():
                share = softmax(stream[unit] @ weight + bias)
                after[unit] = sum(g * e for g, e in zip(share, found, strict=True))
                for index, v in native_weights(experts, unit, native).items():
                    after[unit] = after[unit] + v * found[index]
            stream = after
        scored.append([stream[task] for task in tasks])
    return np.array(scored).transpose(1, 0, 2)


def adatt_padded(rows, tasks, levels):
    """The second form: native weights padded to all experts and added into the gates, then one matrix product."""
    scored = []
    for x in rows:
        names = [*levels[0][1], *(owner for owner, _ in levels[0][0])]
        stream = np.array([x] * len(names))
        for experts, gates, native in levels:
            found = np.array([perceptron(stream[names.index(owner)], layers) for owner, layers in experts])
            weights = np.zeros((len(gates), len(experts)))
            for row, (unit, (weight, bias)) in enumerate(gates.items()):
                weights[row] = softmax(stream[names.index(unit)] @ weight + bias)
                for index, v in native_weights(experts, unit, native).items():
                    weights[row, index] += v
            stream, names = weights @ found, list(gates)
        scored.append([stream[names.index(task)] for task in tasks])
    return np.array(scored).transpose(1, 0, 2)


def stem(rows, experts, gates, *, shared):
    """STEM: rows {unit: [N, D]}, experts (unit, layers) in order, gates {task: (weight, bias)}: [T, N, H]."""
    out = []
    for task, (weight, bias) in gates.items():
        mixed = []
        for n in range(len(rows[task])):
            share = softmax((rows[task][n] + rows[shared][n]) @ weight + bias)
            found = [perceptron(rows[owner][n], layers) for owner, layers in experts]
            mixed.append(sum(g * e for g, e in zip(share, found, strict=True)))
        out.append(mixed)
    return np.array(out)
