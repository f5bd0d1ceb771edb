"""Losses over requests by their equations: one request and one pair at a time."""

from __future__ import annotations

import numpy as np

from tests.reference.models import sigmoid
from tests.reference.objectives import probability


def list_losses(logits, labels, parents, owner, *, parent_space, share):
    """{task: (listwise, pairwise)}, unweighted; `share` of the candidates without an event were seen."""
    out = {}
    for name, parent in parents.items():
        rows, p = [], []
        for i in range(len(owner)):
            inner = name in parent_space
            rows.append(labels[name][i] != -1 and (not inner or labels[parent][i] == 1))
            chance = sigmoid(logits[name][i]) if inner else probability(name, logits, parents, i)
            p.append(chance / (chance + share * (1 - chance)))
        lists, pairs = [], []
        for i, of in enumerate(owner):
            if not rows[i] or labels[name][i] != 1:
                continue
            mine = [j for j, other in enumerate(owner) if other == of and rows[j]]
            lists.append(-np.log(p[i] / sum(p[j] for j in mine)))
            worse = [j for j in mine if labels[name][j] == 0]
            z = [np.log(q / (1 - q)) for q in p]
            if worse:
                pairs.append(np.mean([np.log1p(np.exp(z[j] - z[i])) for j in worse]))
        out[name] = tuple(np.mean(values) if values else 0.0 for values in (lists, pairs))
    return out
