"""Cross-stitch networks, against their equations and the models they become."""

from __future__ import annotations

import pytest
import torch

from rec import models
from tests.rec.models import by_hand, family

LEVELS = [[5, 4], [3], [6]]


def stitched(values, *, levels, tasks=by_hand.TASKS):
    """A cross-stitch network with the given mixes, one per level."""
    model = by_hand.body("cross_stitch", tasks=tasks, levels=levels)
    with torch.no_grad():
        for mix, value in zip(model.stitch, values, strict=True):
            mix.copy_(value)
    return model


@pytest.mark.parametrize("levels", [[[5, 4]], LEVELS])
def test_cross_stitch_is_its_equations(levels):
    """Against a loop over candidates, levels and tasks."""
    family.agrees("cross_stitch", levels=levels)


def test_cross_stitch_gives_the_numbers_it_always_gave():
    """Golden values."""
    click = [[0.110649, 0.228104], [0.323319, 0.543936], [0.513971, 0.660155]]
    buy = [[-0.0046, -0.12272], [-0.173946, -0.292638], [-0.276517, -0.165028]]
    family.golden("cross_stitch", [click, buy], levels=[[4], [2]])


def test_with_identities_it_is_single_task():
    """Nothing crosses; the layers of all levels are one perceptron."""
    model = stitched([torch.eye(3)] * 2, levels=[[6], [5]])
    plain = by_hand.body("single_task", bottom_widths=[6, 5])
    with torch.no_grad():
        for mine, theirs in zip(plain.bottoms.parameters(), model.experts.parameters(), strict=True):
            mine.copy_(theirs)
    given = by_hand.inputs()
    torch.testing.assert_close(model(*given), plain(*given))


def test_the_last_mix_is_learned_too():
    """With the tasks turned round at the last level, they take each other's representation."""
    plain = stitched([torch.eye(3)] * 3, levels=LEVELS)
    turned = stitched([torch.eye(3), torch.eye(3), torch.eye(3)[[1, 2, 0]]], levels=LEVELS)
    given = by_hand.inputs()
    torch.testing.assert_close(turned(*given), plain(*given)[[1, 2, 0]])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_level_starts_near_the_identity(count):
    """Most of a task is its own, every other has a share, and a row sums to 1."""
    tasks = {f"t{i}": None for i in range(count)}
    model = models.create({"name": "cross_stitch", "levels": LEVELS}, context=1, candidate=1, tasks=tasks)
    assert len(model.stitch) == len(LEVELS)
    for mix in model.stitch:
        torch.testing.assert_close(mix.sum(1), torch.ones(count))
        assert (mix > 0).all()
        assert (mix.diag() >= 0.9).all()


def test_every_task_teaches_every_network_and_mix():
    """The gradient of one task's output reaches all tasks' layers on every level, and the mixes."""
    model = by_hand.body("cross_stitch", levels=[[15], [14]], activation="swish")
    for task in range(3):
        model.zero_grad()
        model(*by_hand.inputs())[task].square().sum().backward()
        for level in model.experts:
            weight = level.first.linear.context if level is model.experts[0] else level.first.weight
            assert (weight.grad.unflatten(0, (3, -1)).abs().flatten(1).sum(1) > 0).all()
        assert (model.stitch[0].grad != 0).all()
        assert (model.stitch[1].grad != 0).any(1).tolist() == [t == task for t in range(3)]
