"""Slow twins of rec/modules/cross_network.py: a loop over candidates, layers and experts."""

from __future__ import annotations

import numpy as np


def full(x, layers):
    """[N, M]; a layer is (W [M, M], b [M])."""
    return _each(x, layers, lambda x_l, layer: layer[0] @ x_l + layer[1])


def low_rank(x, layers):
    """[N, M]; a layer is (U [M, R], V [M, R], b [M])."""
    return _each(x, layers, lambda x_l, layer: layer[0] @ (layer[1].T @ x_l) + layer[2])


def mixture(x, layers):
    """[N, M]; a layer is ([(U_k, C_k, V_k)], gate's W [K, M], gate's b [K], b [M])."""

    def mixed(x_l, layer):
        experts, gate_w, gate_b, bias = layer
        share = np.exp(gate_w @ x_l + gate_b)
        share = share / share.sum()
        outputs = [u @ np.tanh(c @ np.tanh(v.T @ x_l)) + bias for u, c, v in experts]
        return sum(g * output for g, output in zip(share, outputs, strict=True))

    return _each(x, layers, mixed)


def _each(x, layers, factor):
    out = []
    for start in x:
        x_l = start
        for layer in layers:
            x_l = start * factor(x_l, layer) + x_l
        out.append(x_l)
    return np.array(out).reshape(x.shape)
