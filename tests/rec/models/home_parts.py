"""The weights of a HoME by name, as its twin takes them."""

from __future__ import annotations

import numpy as np
import torch

from rec.modules.expert_groups import SHARED, group
from rec.modules.linear import SharedInputLayer
from tests.rec.models import by_hand, unpacked
from tests.rec.models.unpacked import array
from tests.reference import home as slow

TASKS = {"click": None, "like": None, "buy": "click", "share": None}
GROUPS = {"social": ["like", "share"], "shop": ["click", "buy"]}  # neither is a row of neighbours
SIZES = {"levels": [[5, 4], [3]], "groups": GROUPS, "rank": 2}


def body(*, tasks=TASKS, **settings):
    """A small HoME whose weights and running statistics are all drawn."""
    model = by_hand.body("home", tasks=tasks, **(SIZES | settings))
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("norm.mean"):
                buffer.normal_()
            if name.endswith("norm.variance"):
                buffer.uniform_(0.5, 2)
    return model


def expected(model, given, groups, *, tasks=TASKS, mask=True):
    """The twin's answer for the model's weights [T, N, H]."""
    context, candidate, owner = given
    captured = slow.home(
        array(context[owner]), array(candidate), meta(model, groups), ranking(model, groups, tasks), groups, mask=mask
    )
    return np.array([captured[task] for task in tasks])


def seen(level):
    """{row: groups whose experts its gate can see}."""
    gates = level.gates
    shown = zip(gates.rows, (~gates.hidden).tolist(), strict=True)
    return {row: {o for o, s in zip(gates.owners, sees, strict=True) if s} for row, sees in shown}


def _called(groups):
    """Units as the twin calls them."""
    return {group(name): name for name in groups} | {SHARED: slow.SHARED}


def _columns(weight, sizes, axis=-1):
    return np.split(weight, np.cumsum(sizes)[:-1], axis)


def _fea(low, gates, index):
    """Of set `index` of a FeatureGates: (mixing [in, L], [(B_i [in, r], A_i [r, W])]); low is [in, L * (1 + r)]."""
    factors, _, rank, _ = gates.up.shape
    mixing, *lows = _columns(low, [factors] + [rank] * factors)
    return mixing, list(zip(lows, array(gates.up)[:, index], strict=True))


def meta(model, groups):
    """Level 1 by name."""
    level, called = model.levels[0], _called(groups)
    owners = [called[owner] for owner in level.experts.owners]
    sets = list(dict.fromkeys(owners))
    first, fea = level.experts.first, None
    if not isinstance(first, SharedInputLayer):
        of_context = of_candidate = [None] * len(sets)  # for a side without columns
        if first.context is not None:
            lows = np.split(array(first.low_context.weight), len(sets))
            of_context = [_fea(low.T, first.context, i) for i, low in enumerate(lows)]
        if first.candidate is not None:
            sides = [array(p) for p in (first.low_candidate.context, first.low_candidate.candidate) if p is not None]
            lows = np.split(np.concatenate(sides, 1), len(sets))
            of_candidate = [_fea(low.T, first.candidate, i) for i, low in enumerate(lows)]
        fea, first = dict(zip(sets, zip(of_context, of_candidate, strict=True), strict=True)), first.first
    experts = unpacked.layers(level.experts, groups=len(sets), first=first)
    own = None
    if level.own is not None:
        weight, bias = by_hand.pair(level.own.linear)
        own = {s: (weight[[o == s for o in owners]].T, bias[[o == s for o in owners]]) for s in sets}
    rows = [called[row] for row in level.gates.rows]
    gates = dict(zip(rows, by_hand.gates(level.gates), strict=True))
    return {"experts": list(zip(owners, experts, strict=True)), "fea": fea, "gates": gates, "self": own}


def ranking(model, groups, tasks):
    """Level 2 by name."""
    level, called = model.levels[1], _called(groups)
    owners = [called.get(owner, owner) for owner in level.experts.owners]
    sets = list(dict.fromkeys(owners))
    first, fea = level.experts.first, None
    if first.gates is not None:
        fea = {name: _fea(array(first.low[i]), first.gates, i) for i, name in enumerate(sets)}
    experts = unpacked.layers(level.experts, groups=len(sets), first=first.first)
    own = None
    if level.own is not None:
        mine = [owner for owner in owners if owner in tasks]
        per_expert = _from_meta(level.own.linear, [_home(groups, owner) for owner in mine])
        own = {
            task: tuple(np.concatenate(x, -1) for x in zip(*_of(task, mine, per_expert), strict=True))
            for task in set(mine)
        }
    linear = _from_meta(level.gates.linear, [_home(groups, task) for task in tasks])
    gates = dict(zip(tasks, linear, strict=True))
    return {"experts": list(zip(owners, experts, strict=True)), "fea": fea, "gates": gates, "self": own}


def _of(task, owners, experts):
    return [expert for owner, expert in zip(owners, experts, strict=True) if owner == task]


def _home(groups, task):
    return next(index for index, members in enumerate(groups.values()) if task in members)


def _from_meta(linear, home):
    """Rows of a MetaLinear, so many of each group, as (weight [2 H, out] on [z_g; z_sh], bias [out])."""
    by_group = list(zip(sorted(home), *by_hand.stacked(linear.group), strict=True))
    shared = np.split(array(linear.shared.weight), len(home))
    taken = {g: iter([(w, b) for unit, w, b in by_group if unit == g]) for g in set(home)}
    captured = []
    for g, half in zip(home, shared, strict=True):
        weight, bias = next(taken[g])
        captured.append((np.concatenate([weight, half.T]), bias))
    return captured
