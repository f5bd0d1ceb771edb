"""An L2 penalty on the rows of embedding tables that a batch looks up, as a term of the loss.

    sum over features of  l2 / 2 * mean over the ids that it looks up of |row|^2

A row's gradient gets l2 * (its share of the feature's lookups) * row: as often as labels pull at a row, so often is it
drawn to 0, and rows that nobody looks up stay. It goes through the backward pass, in which tables step, so it acts with
every optimizer of theirs; a weight decay given to a fused optimizer may be ignored without a word.
Rendle, Factorization Machines with libFM, TIST 2012, section 3.1: a penalty per case that a weight takes part in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from rec.losses.reduction import mean
from rec.spec import Spec, has_rows
from rec.spec.features import is_bias

NAME = "embedding tables (l2)"  # among the losses of a step; no task is called so
Penalties = Mapping[tuple[str, str], float]


def of(spec: Spec) -> Penalties:
    """The penalty of every (side, feature) that has one."""
    return {
        (side, name): penalty
        for side, features in spec.sides()
        for name, f in features.items()
        if has_rows(f) and not is_bias(f)
        if (penalty := spec.train.table_l2 if f.l2 is None else f.l2)
    }


def loss(lookups: Iterable[tuple[str, str, Tensor, Tensor]], penalties: Penalties) -> Tensor:
    """The penalty of (side, feature, ids [..], rows [.., dim]); all ranks call together. Padding counts not."""
    terms = []
    for side, name, ids, rows in lookups:
        if (side, name) not in penalties:
            continue
        square = rows.float().square().sum(-1).flatten()
        looked_up = (ids != 0).flatten() if ids.dim() > 1 else torch.ones_like(square, dtype=torch.bool)
        terms.append(penalties[side, name] / 2 * mean(looked_up, square))
    return torch.stack(terms).sum()
