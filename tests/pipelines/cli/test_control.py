from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from pipelines.cli.control import Percent
from pipelines.cli.main import cli


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("100 %", 1.0), ("0", 0.0)])
def test_a_share_is_a_percentage_or_a_number(text, share):
    """Both are the same share."""
    assert Percent().convert(text, None, None) == share


@pytest.mark.parametrize("text", ["5", "101%", "-1%", "half", "nan%", ""])
def test_what_is_no_share_is_refused(text):
    """5 might be 5% or 500%."""
    with pytest.raises(click.BadParameter, match="is no share: expected 0% to 100%, or 0 to 1"):
        Percent().convert(text, None, None)


@pytest.mark.parametrize("words", [["serve"], ["serve", "bundle", "--models", "models"]])
def test_one_of_a_bundle_and_a_folder_of_models_is_served(words):
    """Neither and both are refused."""
    answer = CliRunner().invoke(cli, words)
    assert answer.exit_code == 2
    assert "Expected either BUNDLE or '--models'." in answer.output
