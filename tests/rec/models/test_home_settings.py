"""How a spec describes a HoME: its groups and sets, and what it can get wrong, in words."""

from __future__ import annotations

import pytest

from rec import models
from rec.errors import SpecError
from rec.modules.expert_groups import SHARED, group
from tests.rec.models import by_hand, home_parts
from tests.rec.models.home_parts import seen


def test_groups_are_the_trees_of_the_task_graph_unless_they_are_given():
    """A root and its descendants, named by the root."""
    tasks = {"click": None, "buy": "click", "like": None, "refund": "buy"}
    model = by_hand.body("home", tasks=tasks)
    assert model.levels[0].gates.rows == [group("click"), group("like"), SHARED]
    assert seen(model.levels[1])["refund"] == {"refund", group("click"), SHARED}
    assert seen(model.levels[1])["like"] == {"like", SHARED}


def test_a_group_may_be_called_shared():
    """Its group is not the one all tasks share."""
    model = home_parts.body(groups={"shared": ["click"], "rest": ["buy", "like", "share"]})
    assert model.levels[0].gates.rows == [group("shared"), group("rest"), SHARED]
    assert len(set(model.levels[0].gates.rows)) == 3


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"groups": {"a": ["clik"]}}, r"model\.groups\.a: no task 'clik'; did you mean 'click'"),
        (
            {"groups": {"a": ["click", "buy"], "b": ["like", "share", "buy"]}},
            r"model\.groups\.b: task 'buy' is in group 'a' already",
        ),
        ({"groups": {"a": ["click", "buy"], "b": ["like"]}}, r"model\.groups: task 'share' is in no group: a, b"),
        ({"groups": {"a": []}}, r"model\.groups\.a: expected at least 1 item, got \[\]"),
        ({"levels": [[5]]}, r"model\.levels: expected at least 2 items"),
        ({"levels": [[5], [4], [3]]}, r"model\.levels: expected at most 2 items"),
        ({"task_experts": {"buyy": 1}}, r"model\.task_experts\.buyy: no task 'buyy'; did you mean 'buy'"),
        (
            {"shared_experts": 0, "group_experts": 0, "task_experts": {"buy": 0}},
            r"model\.task_experts\.buy: expected at least one expert for task 'buy' to see, got 0",
        ),
    ],
)
def test_what_cannot_be_built_is_said(settings_, message):
    """Groups that are no partition of the tasks, other than two levels, a task without experts."""
    with pytest.raises(SpecError, match=message):
        home_parts.body(**settings_)


def test_the_experts_of_home_are_normalised_and_swish_unless_told_otherwise():
    """Part (a) is on by default, and stays one setting away from what the other models have."""
    config = models.configured({"name": "home"})
    assert (config.activation, config.normalise) == ("swish", True)
    config = models.configured({"name": "home", "activation": "relu", "normalise": False})
    assert (config.activation, config.normalise) == ("relu", False)
