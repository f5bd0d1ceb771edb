"""The JSON Schema for editors, and the page written from it, say what rec/spec.py checks."""

from __future__ import annotations

import pytest

from pipelines import schema
from pipelines.schema import _short


@pytest.fixture(scope="module")
def tree():
    """The whole schema."""
    return schema.schema()


def test_every_source_and_model_is_in_it(tree):
    """One choice per file in features/sources and rec/models."""
    from features import sources
    from rec import models

    assert [o["title"] for o in tree["properties"]["source"]["oneOf"]] == sources.names()
    assert [o["title"] for o in tree["properties"]["model"]["oneOf"]] == list(models.names())


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
