"""Models of one size: what is counted is what is there, and widths are found that hold a given number of weights."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed import equal_size, synthetic
from rec import models, ranker
from rec.errors import SpecError

TASKS = {"click": None, "like": None, "buy": "click"}
WORLD = {"context": 192, "candidate": 128, "tasks": TASKS}
SMALL = {"context": 5, "candidate": 3, "tasks": TASKS}
MMOE = {"name": "mmoe", "experts": 8, "expert_widths": [256, 128], "tower_widths": [64]}


def test_what_is_counted_is_what_is_trained():
    """All dense weights of a whole ranker whose features are ids, and nothing of its tables."""
    spec = synthetic.spec(10)
    network = ranker.create(spec, synthetic.preprocessor(spec), seed=1, device=torch.device("cpu"))
    assert equal_size.parameters(MMOE, **WORLD) == sum(p.numel() for p in network.dense().values())


@pytest.mark.parametrize("per_request", [1, 20])
def test_products_of_mmoe_are_counted_as_one_would_by_hand(per_request):
    """First layer, second layer, gates, mixing, towers; the context's share is divided among its candidates."""
    first = 8 * 6 * (5 / per_request + 3)
    gates = 3 * 8 * (5 / per_request + 3)
    by_hand = first + 8 * 6 * 4 + gates + 3 * 8 * 4 + 3 * (4 * 7 + 7)
    settings = {"name": "mmoe", "experts": 8, "expert_widths": [6, 4], "tower_widths": [7]}
    assert equal_size.multiply_adds(settings, **SMALL, per_request=per_request) == pytest.approx(by_hand)


def test_products_of_shared_bottom_are_counted_as_one_would_by_hand():
    """A first layer of one expert is added in place, and is seen all the same."""
    settings = {"name": "shared_bottom", "bottom_widths": [6], "tower_widths": [7]}
    by_hand = 6 * (5 / 2 + 3) + 3 * (6 * 7 + 7)
    assert equal_size.multiply_adds(settings, **SMALL, per_request=2) == pytest.approx(by_hand)


@pytest.mark.parametrize("name", list(models.names()))
@pytest.mark.parametrize("size", [950_000, 2_000_000])
def test_every_model_can_be_made_to_a_size(name, size):
    """Within two in a hundred of what was asked for, in multiples of 8, everything else as it was."""
    settings = {"name": name, "tower_widths": [24]}
    settings_of_size = equal_size.fitted_to(settings, **WORLD, parameters=size)
    assert equal_size.parameters(settings_of_size, **WORLD) == pytest.approx(size, rel=0.02)
    scaled = {key: value for key, value in settings_of_size.items() if key in equal_size.WIDTHS}
    assert scaled
    assert all(width % 8 == 0 for width in equal_size._flat(list(scaled.values())))
    assert {key: value for key, value in settings_of_size.items() if key not in scaled} == settings


@pytest.mark.parametrize("name", list(models.names()))
def test_context_work_is_shared_by_every_model(name):
    """With twenty candidates per request a candidate costs less than alone: the context half runs once."""
    many, single = (equal_size.multiply_adds({"name": name}, **WORLD, per_request=count) for count in (20, 1))
    assert many < 0.95 * single


def test_layers_keep_their_proportions():
    """One factor for all widths."""
    scaled = equal_size.fitted_to({"name": "shared_bottom", "bottom_widths": [400, 200]}, **WORLD, parameters=950_000)
    assert scaled["bottom_widths"][0] == pytest.approx(2 * scaled["bottom_widths"][1], abs=8)


@pytest.mark.parametrize(("size", "widths"), [(1, [8, 8]), (10**15, [65_536, 32_768])])
def test_a_size_out_of_reach_gets_the_nearest(size, widths):
    """The smallest widths there are, and the largest."""
    scaled = equal_size.fitted_to({"name": "shared_bottom", "bottom_widths": [64, 32]}, **SMALL, parameters=size)
    assert scaled["bottom_widths"] == widths


def test_a_model_without_widths_is_refused(monkeypatch):
    """There is nothing to scale."""
    monkeypatch.setattr(equal_size, "WIDTHS", ("no_such_widths",))
    with pytest.raises(SpecError, match=r"model\.name: 'mmoe' has no widths to scale: no_such_widths"):
        equal_size.fitted_to(MMOE, **SMALL, parameters=100)
