"""The JSON Schema for editors, and the page written from it, say what rec/spec/spec.py checks."""

from __future__ import annotations

import pytest

from pipelines.cli import json_schema
from pipelines.cli.json_schema import _short
from tools import spec_reference

SECTIONS = ("[model] of any network", '[model] name = "mmoe"')


@pytest.fixture(scope="module")
def tree():
    """The whole schema."""
    return json_schema.schema()


def test_every_source_model_and_objective_is_in_it(tree):
    """One choice per file in features/sources, rec/models, rec/baselines and rec/objectives."""
    from features import sources
    from rec import baselines, models, objectives

    assert [o["title"] for o in tree["properties"]["source"]["oneOf"]] == sources.names()
    assert [o["title"] for o in tree["properties"]["model"]["oneOf"]] == [*models.names(), *baselines.names()]
    assert [o["title"] for o in tree["properties"]["objective"]["oneOf"]] == list(objectives.names())


def test_what_all_models_share_is_defined_once(tree):
    """[model.attention] means the same below every model."""
    shared = ("AttentionConfig", "CrossConfig", "FeatureGatingConfig")
    assert set(shared) <= set(tree["$defs"])
    assert [name for name in tree["$defs"] if name.endswith(tuple(f".{config}" for config in shared))] == []


def test_a_setting_of_all_models_is_described_once():
    """In a section of its own; a model's section has what is its own."""
    page = spec_reference.markdown()
    assert page.count("| `dropout` |") == 1
    shared, mmoe = (page.split(f"## `{title}`")[1].split("## ")[0] for title in SECTIONS)
    assert "| `tower_widths` |" in shared
    assert "| `tower_widths` |" not in mmoe
    assert "| `experts` |" in mmoe


def test_a_shared_setting_with_another_default_is_described_again():
    """What a model changes is in its own section."""
    own = dict(
        spec_reference._own({"a": {"default": 1}, "b": {"default": 2}}, {"a": {"default": 1}, "b": {"default": 1}})
    )
    assert own == {"b": {"default": 2}}


def test_a_table_inside_a_table_is_described():
    """[model.attention] has its keys, and the row above it says that it is a table."""
    page = spec_reference.markdown()
    assert "| `attention` | table |" in page
    assert "| `heads` |" in page.split("## `[model.attention]`")[1].split("## ")[0]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"additionalProperties": {"$ref": "#/$defs/X"}}, "tables by name"),
        ({"additionalProperties": {"type": "integer", "minimum": 0}}, "whole numbers >= 0 by name"),
        ({"additionalProperties": {"type": "array", "items": {"type": "string"}}}, "lists of text by name"),
        (
            {"anyOf": [{"type": "integer"}, {"additionalProperties": {"type": "string"}}]},
            "whole number or texts by name",
        ),
        ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, "list of lists of whole number"),
    ],
)
def test_values_are_described_in_words(part, expected):
    """What may stand there, as one would say it."""
    assert spec_reference._kind(part, {}) == expected


def test_a_bar_in_a_description_does_not_end_its_column():
    """A table of Markdown has as many columns as its head."""
    assert spec_reference._about({"description": "of |a|"}) == "of \\|a\\|"


def test_every_reference_has_its_definition(tree):
    """An editor finds everything in the one file."""

    def references(node):
        if isinstance(node, dict):
            yield from [node["$ref"]] if "$ref" in node else []
            node = list(node.values())
        for inner in node if isinstance(node, list) else ():
            yield from references(inner)

    assert {name.removeprefix("#/$defs/") for name in references(tree)} <= set(tree["$defs"])


@pytest.mark.parametrize(("iso", "short"), [("PT0S", "0s"), ("PT30M", "30m"), ("P2D", "2d"), ("PT90S", "90s")])
def test_durations_are_written_as_a_spec_says_them(iso, short):
    """30m, not PT30M."""
    assert _short(iso) == short
