"""HoME by its equations: numpy, one candidate, one expert, one gate at a time.

A level is a dict:
    experts  [(set, layers)] in order, a layer (weight [in, out], bias [out], norm or None),
             norm (mean, variance, scale, shift)
    fea      {set: what `feature_gate` takes}, or None
    gates    {row: (weight [in, E], bias [E])}
    self     {row: (weight [in, its own experts], bias)} for rows with experts of their own, or None
On level 1 the two sides are gated apart: fea is {set: (of the context, of the candidate)}.
"""

from __future__ import annotations

import numpy as np

from tests.reference.models import perceptron, sigmoid, softmax, swish

SHARED = "(all)"


def expert(x, layers, activation=swish):
    """Linear, normalisation by running statistics, activation; layer after layer."""
    for weight, bias, norm in layers:
        x = x @ weight + bias
        if norm is not None:
            mean, variance, scale, shift = norm
            x = (x - mean) / np.sqrt(variance + 1e-5) * scale + shift
        x = activation(x)
    return x


def feature_gate(v, mixing, factors):
    """sum_i softmax(v W)_i * 2 sigmoid(v B_i A_i) over the gated columns; factors are (B_i, A_i)."""
    share = softmax(v @ mixing)
    return sum(s * 2 * sigmoid(v @ low @ up) for s, (low, up) in zip(share, factors, strict=True))


def self_gate(v, weight, bias):
    """Sigmoid for a set of one expert, softmax for more."""
    logits = v @ weight + bias
    return sigmoid(logits) if len(logits) == 1 else softmax(logits)


def gated(v, row, outputs, level, sees):
    """gate_row(v) . [the experts it sees] + self_row(v) . [its own]."""
    weight, bias = level["gates"][row]
    logits = v @ weight + bias
    visible = [index for index, (owner, _) in enumerate(level["experts"]) if sees(row, owner)]
    share = softmax(np.array([logits[index] for index in visible]))
    out = sum(s * outputs[index] for s, index in zip(share, visible, strict=True))
    if level["self"] is not None and row in level["self"]:
        own = [index for index, (owner, _) in enumerate(level["experts"]) if owner == row]
        share = self_gate(v, *level["self"][row])
        out = out + sum(s * outputs[index] for s, index in zip(share, own, strict=True))
    return out


def home(contexts, candidates, meta, ranking, groups, *, mask=True):
    """Context and candidate rows [N, C], [N, D], two levels, groups {name: tasks}: {task: [N, H]}.

    Sets are named by group, by task, or SHARED.
    """
    scored = [_one(c, d, (meta, ranking), groups, mask=mask) for c, d in zip(contexts, candidates, strict=True)]
    return {task: np.array([scores[task] for scores in scored]) for tasks in groups.values() for task in tasks}


def _one(c, d, levels, groups, *, mask):
    meta, ranking = levels
    v = np.concatenate([c, d])
    outputs = []
    for owner, layers in meta["experts"]:
        x = v
        if meta["fea"] is not None:
            sides = zip((c, d), (c, v), meta["fea"][owner], strict=True)
            x = np.concatenate([x * feature_gate(read, *gate) for x, read, gate in sides if len(x)])
        outputs.append(expert(x, layers))

    def sees_meta(row, owner):
        return not mask or row == SHARED or owner in (SHARED, row)

    z = {row: gated(v, row, outputs, meta, sees_meta) for row in (*groups, SHARED)}
    home_of = {task: name for name, tasks in groups.items() for task in tasks}
    outputs = []
    for owner, layers in ranking["experts"]:
        x = z[home_of.get(owner, owner)]
        outputs.append(expert(x if ranking["fea"] is None else x * feature_gate(x, *ranking["fea"][owner]), layers))

    def sees(row, owner):
        return not mask or owner in (SHARED, home_of[row], row)

    return {
        task: gated(np.concatenate([z[home_of[task]], z[SHARED]]), task, outputs, ranking, sees) for task in home_of
    }


def progressive(rows, tasks, levels, *, shared):
    """PLE (RecSys 2020): levels of ([(group, layers)], {group: (weight [in, E], bias)}): [T, N, H].

    A task's gate sees the task's and the shared experts, the shared gate sees all; the last level has no shared gate.
    """
    out = []
    for x in rows:
        stream = dict.fromkeys([*tasks, shared], x)
        for experts, gates in levels:
            outputs = [perceptron(stream[owner], layers) for owner, layers in experts]
            after = {}
            for group, (weight, bias) in gates.items():
                logits = stream[group] @ weight + bias
                seen = [k for k, (owner, _) in enumerate(experts) if group == shared or owner in (group, shared)]
                share = softmax(np.array([logits[k] for k in seen]))
                after[group] = sum(s * outputs[k] for s, k in zip(share, seen, strict=True))
            stream = after
        out.append([stream[task] for task in tasks])
    return np.array(out).transpose(1, 0, 2)
