"""Slow twins of rec/modules/feature_gating.py: a loop over rows and fields."""

from __future__ import annotations

import numpy as np


def senet(context, candidate, owner, fields, weights):
    """(context, candidate); `fields` are the widths of both sides, `weights` their layers."""
    means = [_means(rows, widths) for rows, widths in zip((context, candidate), fields, strict=True)]
    own = np.array([_weights(z, weights[0]) for z in means[0]]).reshape(means[0].shape)
    pair = [np.concatenate([means[0][b], z]) for b, z in zip(owner, means[1], strict=True)]
    other = np.array([_weights(z, weights[1]) for z in pair]).reshape(means[1].shape)
    return context * np.repeat(own, fields[0], axis=1), candidate * np.repeat(other, fields[1], axis=1)


def gate(context, candidate, owner, weights):
    """(context, candidate); `weights` are the layers of both sides."""
    own = np.array([x * _weights(x, weights[0]) for x in context]).reshape(context.shape)
    pair = [np.concatenate([context[b], x]) for b, x in zip(owner, candidate, strict=True)]
    other = [x * _weights(z, weights[1]) for x, z in zip(candidate, pair, strict=True)]
    return own, np.array(other).reshape(candidate.shape)


def _means(rows, widths):
    ends = np.cumsum(widths)
    cut = [[row[end - width : end].mean() for end, width in zip(ends, widths, strict=True)] for row in rows]
    return np.array(cut).reshape(len(rows), len(widths))


def _weights(x, layers):
    """A field or column without a side of its own has no layers."""
    if layers is None:
        return np.ones(0)
    (w_1, b_1), (w_2, b_2) = layers
    return 2 / (1 + np.exp(-(w_2 @ np.maximum(0, w_1 @ x + b_1) + b_2)))
