"""Tables that name a file: what is wrong below them is said with its whole path."""

from __future__ import annotations

import re

import pytest

from rec import models, objectives
from rec.errors import SpecError
from rec.modules.config import ModelConfig
from rec.modules.heads import Heads
from rec.spec.explain import fields_at

SHAPE = {"context": 1, "candidate": 1, "tasks": {"a": None}}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"attention": {"kind": "din", "hiden": [4]}}, "model.attention.hiden: unknown key; did you mean 'hidden'?"),
        ({"attention": {"kind": "dinn"}}, "model.attention.kind: expected 'din' or 'multihead', got 'dinn'"),
        ({"attention": {}}, "model.attention.kind: required, but not given"),
        ({"attention": "din"}, "model.attention: expected a table, got 'din'"),
        ({"cross": {"kind": "full", "layer": 2}}, "model.cross.layer: unknown key; did you mean 'layers'?"),
        ({"cross": {"kind": "low_rank", "rank": 0}}, "model.cross.rank: expected greater than or equal to 1, got 0"),
        (
            {"feature_gating": {"kind": "gate", "reduct": 2}},
            "model.feature_gating.reduct: unknown key; did you mean 'reduction'?",
        ),
        ({"atention": {}}, "model.atention: unknown key; did you mean 'attention'?"),
        ({"expert_widths": [8, 0]}, "model.expert_widths.1: expected greater than or equal to 1, got 0"),
    ],
)
def test_a_mistake_below_model_is_told_with_its_path(settings, text):
    """The table, the key in it, and the nearest key that is known there."""
    with pytest.raises(SpecError, match=f"^{re.escape(text)}"):
        models.create({"name": "mmoe", **settings}, **SHAPE)


def test_a_mistake_below_objective_is_told_with_its_path():
    """As below [model]."""
    heads = Heads({"a": 0.5}, width=2, tower_widths=[64])
    with pytest.raises(SpecError, match=r"^objective\.name: no objective 'esm': .*; did you mean 'esmm'\?"):
        objectives.create({"name": "esm"}, heads, {})
    with pytest.raises(SpecError, match=r"^objective\.weight: unknown key"):
        objectives.create({"name": "esmm", "weight": 1}, heads, {})


def test_every_mistake_is_told():
    """One line each."""
    with pytest.raises(SpecError) as error:
        models.create({"name": "mmoe", "experts": 0, "attention": {"kind": "din", "head": 1}}, **SHAPE)
    assert {line.split(":")[0] for line in str(error.value).splitlines()} == {"model.experts", "model.attention.head"}


def test_known_keys_of_a_table_that_may_be_absent():
    """`Attention | None` is a table; a number is none, and neither is a key nobody knows."""
    assert "hidden" in fields_at(ModelConfig, ["attention"])
    assert fields_at(ModelConfig, ["dropout"]) == []
    assert fields_at(ModelConfig, ["nothing", "here"]) == []
    assert "tower_widths" in fields_at(ModelConfig, [])


@pytest.mark.parametrize(("old", "new"), sorted(models.RENAMED.items()))
def test_a_renamed_key_is_refused_with_its_new_name(old, new):
    """Whoever wrote a spec for an earlier version is told what to write."""
    with pytest.raises(SpecError, match=rf"^model\.{old}: unknown key; it is called '{new}' now$"):
        models.configured({"name": "mmoe", old: [8]})
