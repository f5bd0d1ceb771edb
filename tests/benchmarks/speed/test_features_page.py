"""The page of the feature pipeline's speed."""

from __future__ import annotations

from benchmarks import speed_page
from benchmarks.quality import page as pages
from benchmarks.speed import features
from tests import ROOT


def test_the_page_has_a_row_per_size_and_a_column_per_size():
    """What was not measured is n/a; a stage that a size lacks is empty."""
    row = features.BuildSpeed(
        events=1000, seconds=2.0, process_seconds=3.0, core_seconds=3.5, events_per_second=500.0, of_linear=1.0,
        floor_seconds=0.5, of_floor=4.0,
        peak_gib=0.25, peak_gib_shared_once=None, read_gib=0.1, written_gib=0.2,
    )  # fmt: skip
    stages = [features.Stage(1000, "reading", 1.0, 0.5), features.Stage(2000, "writing", 3.0, 0.75)]
    peers = [features.Peer(1000, "polars", 4.0, 4.5, 7.0, None, 0.5)]
    page = speed_page.page({"rows": [row], "peers": peers, "stages": stages})
    assert page.tables["speed"].splitlines()[2] == "| 1,000 | 2.0 | 500 | 1.00 | 4.0 | 0.25 |"
    assert page.tables["peers"].splitlines()[2] == "| 1,000 | polars | 4.0 | 4.5 | 7.0 | n/a | 0.50 |"
    assert page.tables["beside"].splitlines()[2] == "| 1,000 | 3.0 | 3.5 | 0.50 | 0.10 | 0.20 | n/a |"
    assert page.tables["stages"].splitlines() == [
        "| seconds (share) | 1,000 events | 2,000 events |",
        "|---|--:|--:|",
        "| reading | 1.0 (50%) |  |",
        "| writing |  | 3.0 (75%) |",
    ]
    pages.filled((ROOT / "docs/measured/features.md").read_text(), page.tables, "features.md")
