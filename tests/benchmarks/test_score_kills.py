"""Killed anywhere, a command that scores ends as one that nothing broke."""

from __future__ import annotations

import pytest

from benchmarks import score_kills
from rec.progress import Silent


@pytest.mark.slow
def test_a_kill_changes_no_byte(bundle, data, tmp_path):
    """Scores, manifest and _SUCCESS; no process is left, and no unfinished file."""
    inputs = {"rows": score_kills.write_inputs(bundle, data, tmp_path)["rows"]}
    result = score_kills.killed(bundle, inputs, tmp_path, kills=1, procs=2, seed=2, progress=Silent())
    assert result["differences"] == [], result
    assert len(result["rows"]) == 1
