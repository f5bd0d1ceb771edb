"""What the twins of the gated family say about a model's own weights; and golden values, which hold both of them."""

from __future__ import annotations

import numpy as np
import torch

from rec.modules.linear import PairLinear
from tests.rec.models import by_hand, unpacked
from tests.reference import gated as slow
from tests.reference import models as plain


def experts(experts_module, groups=1):
    """An Experts as perceptrons, in its order."""
    return [unpacked.plain(expert) for expert in unpacked.layers(experts_module, groups=groups)]


def gates(gate):
    """Gates as (weight [in, E], bias [E]) per row, over the raw input or over groups."""
    if isinstance(gate.linear, PairLinear):
        return by_hand.gates(gate)
    return list(zip(*by_hand.stacked(gate.linear), strict=True))


def _single_task(model, given, tasks):
    context, candidate, owner = given
    own = context.dim() == 3
    rows = [by_hand.flat(context[t], candidate[t], owner) if own else by_hand.flat(*given) for t in range(len(tasks))]
    return slow.single_task(rows, experts(model.bottoms, len(tasks)))


def _omoe(model, given, tasks):
    return slow.omoe(by_hand.flat(*given), experts(model.experts), gates(model.gates)[0], tasks=len(tasks))


def _mmoe(model, given, _tasks):
    return plain.mmoe(by_hand.flat(*given), experts(model.experts), gates(model.gates))


def _shared_bottom(model, given, tasks):
    return plain.shared_bottom(by_hand.flat(*given), experts(model.bottom)[0], tasks=len(tasks))


def _ml_mmoe(model, given, _tasks):
    levels = [(experts(e), gates(g)) for e, g in zip(model.experts, model.gates, strict=True)]
    return slow.ml_mmoe(by_hand.flat(*given), levels)


def _cgc(model, given, tasks):
    return slow.ple(by_hand.flat(*given), list(tasks), [_level(model.experts, model.gates, tasks)])


def _ple(model, given, tasks):
    levels = [_level(e, g, tasks) for e, g in zip(model.experts, model.gates, strict=True)]
    return slow.ple(by_hand.flat(*given), list(tasks), levels)


def _level(experts_module, gate, tasks):
    named = zip(experts_module.owners, experts(experts_module, len(tasks) + 1), strict=True)
    return {"experts": list(named), "gates": dict(zip(gate.rows, gates(gate), strict=True))}


def _cross_stitch(model, given, _tasks):
    levels = [(experts(e), unpacked.array(a)) for e, a in zip(model.experts, model.stitch, strict=True)]
    return slow.cross_stitch(by_hand.flat(*given), levels)


TWINS = {
    "cgc": _cgc,
    "cross_stitch": _cross_stitch,
    "ml_mmoe": _ml_mmoe,
    "mmoe": _mmoe,
    "omoe": _omoe,
    "ple": _ple,
    "shared_bottom": _shared_bottom,
    "single_task": _single_task,
}


def twin(name, model, given, *, tasks=by_hand.TASKS):
    """The slow twin's representations [T, N, H] for a model's weights."""
    return TWINS[name](model, given, tasks)


def agrees(name, *, given=None, tasks=by_hand.TASKS, **settings):
    """A fresh model is its equations, on `given` inputs or others; gives the model back."""
    given = by_hand.inputs() if given is None else given
    widths = {"context": given[0].shape[-1], "candidate": given[1].shape[-1]}
    model = by_hand.body(name, tasks=tasks, **widths, **settings)
    by_hand.close(model, twin(name, model, given, tasks=tasks), *given)
    return model


def golden(name, expected, *, copies=None, **settings):
    """Weights and inputs by formula: the twin gives the numbers written in the test, and so does the model.

    The formula goes through the weights in their order, so this also holds the layout of stored weights still.
    """
    tasks = {"click": None, "buy": "click"}
    model = unpacked.by_formula(by_hand.body(name, tasks=tasks, **settings))
    given = unpacked.inputs_by_formula(copies=copies)
    np.testing.assert_allclose(twin(name, model, given, tasks=tasks), expected, atol=2e-6)
    with torch.no_grad():
        np.testing.assert_allclose(model(*given), expected, atol=2e-6)
