"""The cost of self-attention: both graphs are run in turns, on one request of each size."""

from __future__ import annotations

import pytest

from benchmarks.speed import attention
from pipelines.cli.main import main
from rec.progress import Silent


@pytest.mark.slow
def test_both_graphs_are_timed_at_every_size():
    """The ratio is that of the medians beside it."""
    result = attention.bench(sizes=(3, 40), repeats=5, progress=Silent())
    assert [row["candidates"] for row in result["rows"]] == [3, 40]
    for row in result["rows"]:
        assert row["plain"] > 0
        assert row["ratio"] == pytest.approx(row["attention"] / row["plain"], rel=0.1)


def test_a_bundle_has_one_graph_and_not_two(capsys, tmp_path):
    """Exit code 2, and a sentence."""
    with pytest.raises(SystemExit) as left:
        main(["bench", "serve", "--self-attention", "--bundle", str(tmp_path)])
    assert left.value.code == 2
    assert "--self-attention makes its own graphs: it cannot be used with --bundle" in capsys.readouterr().err
