"""Id dropout: which ids become unknown depends on seed, epoch and request alone; and unknown rows learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rec import spec as specs
from rec.data import id_dropout, loader, preprocessor
from rec.data.loader import Share, tensors
from rec.errors import SpecError
from rec.training.step import new_fit, step
from tests.reference.id_dropout import dropped as slow


def dropping(spec, *overrides):
    """The tiny shop with a dropout of ids."""
    return specs.parse(specs.dump(spec), overrides=["train.id_dropout=0.3", "train.batch=64", *overrides])


def batches(spec, data, *, epoch=1, share=None, **how):
    """The batches of an epoch."""
    learnt = preprocessor.load(spec, data / "fitted")
    return [part.mine for part in loader.shuffled(data, spec, learnt.encoders, epoch=epoch, share=share, **how)]


def test_every_id_is_dropped_as_the_slow_twin_says(spec, batch):
    """Single ids of both sides, and every place of a list; the hour, numbers and labels stay."""
    described = dropping(spec, "candidates.item_id.id_dropout=0.6", "context.city.id_dropout=0")
    dropout = id_dropout.create(described, epoch=3)
    assert dropout is not None
    assert dropout.shares == {
        ("context", "user_id"): 0.3,
        ("context", "clicked"): 0.3,
        ("candidates", "item_id"): 0.6,
    }
    request_B = np.arange(batch.size) + 1000
    fewer, first = dropout.of(batch, request_B), batch.offsets()
    how = {"seed": described.seed, "epoch": 3}
    for b, request in enumerate(request_B.tolist()):
        user = slow(0.3, **how, side="context", feature="user_id", request=request, candidate=0)
        assert fewer.context["user_id"][b] == (0 if user else batch.context["user_id"][b])
        for place, item in enumerate(batch.context["clicked"][b]):
            gone = slow(0.3, **how, side="context", feature="clicked", request=request, candidate=0, position=place)
            assert fewer.context["clicked"][b, place] == (0 if gone else item)
        for n in range(first[b], first[b + 1]):
            where = {"side": "candidates", "feature": "item_id", "request": request, "candidate": int(n - first[b])}
            gone = slow(0.6, **how, **where)
            assert fewer.candidates["item_id"][n] == (0 if gone else batch.candidates["item_id"][n])
    for name in ("city", "hour", "age"):
        np.testing.assert_array_equal(fewer.context[name], batch.context[name])
    assert id_dropout.create(spec, epoch=3) is None


def test_two_processes_and_other_batches_drop_the_same_ids(spec, data):
    """And a second epoch others; the share is the one that was asked for."""
    described = dropping(spec, "train.shuffle=50")
    whole = np.concatenate([b.candidates["item_id"] for b in batches(described, data)])
    halves = zip(*(batches(described, data, share=Share(rank, 2)) for rank in (0, 1)), strict=True)
    together = np.concatenate([half.candidates["item_id"] for pair in halves for half in pair])
    np.testing.assert_array_equal(np.sort(whole), np.sort(together))
    other = np.concatenate(
        [b.candidates["item_id"] for b in batches(dropping(spec, "train.shuffle=50", "train.batch=99"), data)]
    )
    np.testing.assert_array_equal(whole, other)
    undropped = np.concatenate([b.candidates["item_id"] for b in batches(described, data, whole=True)])
    gone = (whole == 0) & (undropped != 0)
    assert gone.sum() / (undropped != 0).sum() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(whole[~gone], undropped[~gone])
    first, second = (batches(described, data, epoch=epoch)[0].candidates["item_id"] == 0 for epoch in (1, 2))
    assert not np.array_equal(first[:50], second[:50])


def test_the_row_of_unknown_ids_learns(spec, data):
    """Without dropout no training row is unknown, and row 0 of the users' table stays 0."""
    moved = {}
    for described in (spec, dropping(spec)):
        fit = new_fit(described, preprocessor.load(described, data / "fitted"))
        fit.ranker.train()
        for part in batches(described, data)[:5]:
            step(fit, described, tensors(part, fit.device))
        moved[described.train.id_dropout] = fit.ranker.tables()["user_id"][0].clone()
    assert torch.equal(moved[0.0], torch.zeros(4))
    assert moved[0.3].abs().min() > 0


def test_what_makes_no_sense_is_refused(spec):
    """An hour is always known, and a bias has its own weights."""
    with pytest.raises(SpecError, match=r"context\.hour\.id_dropout: an hour is never unknown; leave it out"):
        dropping(spec, "context.hour.id_dropout=0.1")
    with pytest.raises(SpecError, match=r"context\.city\.id_dropout: a bias has a weight per value, and no embedding"):
        dropping(spec, "context.city.bias=true", "context.city.id_dropout=0.1")
