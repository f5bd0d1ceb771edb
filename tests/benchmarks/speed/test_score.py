from __future__ import annotations

import pytest

from benchmarks.quality import page as pages
from benchmarks.speed import score
from rec.progress import Silent
from tests import ROOT


@pytest.fixture(scope="module")
def result(bundle, data):
    """A short share of `multigate bench score`."""
    return score.compared(bundle, data, copies=2, repeats=1, progress=Silent())


def test_both_sides_are_timed_on_the_same_candidates(result):
    """Each kind of input has a row for every size of blocks, and a ratio by the clock and by core seconds."""
    kinds = [(row["input"], row["candidates at once"]) for row in result["rows"]]
    assert kinds == [*(("tables", str(most)) for most in score.BLOCKS), ("requests", "a request")]
    for row in result["rows"]:
        assert row["alone"] > 0
        assert row["ratio, core"] == pytest.approx(row["alone, core"] / row["whole, core"], abs=0.02)
    assert result["candidates"] > 1000


def test_every_stage_has_a_cost_and_a_place_on_the_page(result):
    """Shares sum to one; the page has a mark for every table and none besides."""
    shares = [float(row["share"].rstrip("%")) for row in result["stages"]]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert [row["stage"] for row in result["stages"]][-3:] == ["ranks and lines", "writing", "digests and flush"]
    filled = pages.filled((ROOT / "docs/measured/score.md").read_text(), score.page(result).tables, "score.md")
    assert "| the model |" in filled
