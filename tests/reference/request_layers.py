"""Request layers by their equations: numpy, one request, one candidate and one head at a time."""

from __future__ import annotations

import numpy as np

from tests.reference.models import relu, softmax


def summaries(names, token, weight):
    """Summaries of one request's tokens [n, W], side by side; 0 of no candidate."""
    if not len(token):
        return np.zeros(len(names) * token.shape[1])
    shares = softmax(token @ weight) if weight is not None else None
    of = {"mean": token.mean(0), "max": token.max(0), "pooled": None if shares is None else shares @ token}
    return np.concatenate([of[name] for name in names])


def attended(query, key, value):
    """One request's attention [n, heads, A]: each candidate over all of them, head by head."""
    out = np.zeros_like(value)
    for n in range(len(query)):
        for head in range(query.shape[1]):
            score = [query[n, head] @ key[m, head] / np.sqrt(query.shape[2]) for m in range(len(query))]
            out[n, head] = softmax(np.array(score)) @ value[:, head]
    return out


def token(context, candidates, weights):
    """A request's candidates as the others see them [n, W]; `weights` are of context, candidate, and the bias."""
    of_context, of_candidate, bias = weights
    return relu(candidates @ of_candidate.T + of_context @ context + bias)
