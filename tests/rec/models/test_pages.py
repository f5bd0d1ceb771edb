"""The pages of the models: what they show can be pasted into a spec, and no setting is left out."""

from __future__ import annotations

import re
import tomllib

import pytest

from rec import baselines, models, objectives
from rec.modules.config import ModelConfig
from tests import ROOT

PAGES = ROOT / "docs/models"
FENCE = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shown(page):
    """Every table of a page's TOML."""
    return [tomllib.loads(text) for text in FENCE.findall(page.read_text())]


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_what_a_page_shows_is_accepted(page):
    """As `[model]` and `[objective]` are checked when a spec is read."""
    for tree in shown(page):
        if "name" in tree.get("model", {}):
            registry = baselines if tree["model"]["name"] in baselines.names() else models
            registry.configured(tree["model"])
        if "name" in tree.get("objective", {}):
            objectives.configured(tree["objective"])


@pytest.mark.parametrize("name", models.names())
def test_a_models_page_shows_every_setting_of_its_own(name):
    """Besides those that all models share."""
    (tree,) = [tree for tree in shown(PAGES / f"{name}.md") if tree.get("model", {}).get("name") == name]
    assert set(tree["model"]) >= set(models.config_of(name).model_fields) - set(ModelConfig.model_fields)


@pytest.mark.parametrize("name", models.names())
def test_a_models_page_has_a_place_for_what_is_measured(name):
    """Filled by a command, between its drawing and its source."""
    page = (PAGES / f"{name}.md").read_text()
    assert page.index("## Settings") < page.index("## Measured") < page.index("## Source")
