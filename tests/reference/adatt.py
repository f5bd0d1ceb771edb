"""AdaTT and STEM by their equations: numpy, one candidate, one group, one expert at a time.

A level of AdaTT is (experts, gates, native): experts are (group, layers) in order, gates {group: (weight [in, E],
bias [E])} for the groups that fuse, native {group: weight of each of its own experts}, or None where there is no such
term.
"""

from __future__ import annotations

import numpy as np

from tests.reference.models import perceptron, softmax


def native_weights(experts, group, native):
    """The weights of a group's own experts in the order of its experts; nothing for a group that has none."""
    own = [index for index, (owner, _) in enumerate(experts) if owner == group]
    return dict(zip(own, native[group], strict=True)) if native is not None else {}


def adatt(rows, tasks, levels):
    """The residual form: what the gate mixes, plus the native sum of the group's own experts: [T, N, H]."""
    scored = []
    for x in rows:
        stream = {group: x for experts, gates, _ in levels for group in (*gates, *(owner for owner, _ in experts))}
        for experts, gates, native in levels:
            outputs = [perceptron(stream[owner], layers) for owner, layers in experts]
            after = {}
            for group, (weight, bias) in gates.items():
                share = softmax(stream[group] @ weight + bias)
                after[group] = sum(g * e for g, e in zip(share, outputs, strict=True))
                for index, v in native_weights(experts, group, native).items():
                    after[group] = after[group] + v * outputs[index]
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
            outputs = np.array([perceptron(stream[names.index(owner)], layers) for owner, layers in experts])
            weights = np.zeros((len(gates), len(experts)))
            for row, (group, (weight, bias)) in enumerate(gates.items()):
                weights[row] = softmax(stream[names.index(group)] @ weight + bias)
                for index, v in native_weights(experts, group, native).items():
                    weights[row, index] += v
            stream, names = weights @ outputs, list(gates)
        scored.append([stream[names.index(task)] for task in tasks])
    return np.array(scored).transpose(1, 0, 2)


def stem(rows, experts, gates, *, shared):
    """STEM: rows {group: [N, D]}, experts (group, layers) in order, gates {task: (weight, bias)}: [T, N, H]."""
    out = []
    for task, (weight, bias) in gates.items():
        mixed = []
        for n in range(len(rows[task])):
            share = softmax((rows[task][n] + rows[shared][n]) @ weight + bias)
            outputs = [perceptron(rows[owner][n], layers) for owner, layers in experts]
            mixed.append(sum(g * e for g, e in zip(share, outputs, strict=True)))
        out.append(mixed)
    return np.array(out)
