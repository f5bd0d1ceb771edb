"""The benches print what they measured: small sizes here, the same functions."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.quality import seeds
from benchmarks.speed import synthetic, train
from pipelines.cli.main import main
from rec.errors import SpecError
from rec.losses import task_losses
from rec.progress import Silent
from rec.ranker import create
from tests.conftest import SHOP


def test_both_steps_of_the_training_bench_learn_the_same_task():
    """Ours and the plain one take the same batch and give every task's loss."""
    described = synthetic.spec(50)
    batch = synthetic.batch(described, rows=50, candidates=40, per_request=4, seed=1)
    plain = train.PlainMMoE(described, 50)
    ours = create(described, synthetic.preprocessor(described), seed=1, device=torch.device("cpu"))
    for model in (ours, plain):
        losses = task_losses.task_losses(model(batch), batch.labels, described.tasks)
        assert set(losses) == {"click", "like", "buy"}
        assert torch.isfinite(task_losses.total(losses, described.tasks))


def test_the_plain_model_has_the_dense_weights_of_ours():
    """The comparison is between equals: experts, gates and towers of the same sizes."""
    described = synthetic.spec(50)
    ours = create(described, synthetic.preprocessor(described), seed=1, device=torch.device("cpu"))
    plain = train.PlainMMoE(described, 50)
    dense = sum(p.numel() for name, p in plain.named_parameters() if not name.startswith("tables."))
    assert dense == sum(p.numel() for p in ours.dense().values())


def test_the_training_bench_says_where_the_time_goes():
    """A row per size, and shares that sum to one."""
    result = train.bench(sizes=[(50, 4)], repeats=2, progress=Silent())
    row = result["rows"][0]
    assert (row.rows_per_table, row.candidates_per_request) == (50, 4)
    assert row.ratio_low <= row.ratio <= row.ratio_high
    shares = {k: v for k, v in result["shares"][0].items() if k not in ("rows_per_table", "candidates_per_request")}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["matrix products"] > 0.2


def test_quality_is_a_mean_and_a_spread_over_seeds(tmp_path, capsys):
    """Per output and figure; one candidate in a group of its own has no grouped AUC."""
    path = tmp_path / "spec.toml"
    path.write_text(SHOP)
    with pytest.raises(SystemExit) as left:
        main(["bench", "quality", str(path), "--seeds", "2", "--json", "--set", "train.epochs=1"])
    assert left.value.code == 0
    rows = {row["output"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert set(rows) == {"click", "buy", "buy|click"}
    mean, spread = (float(part) for part in rows["click"]["auc"].split(" +- "))
    assert 0 < mean < 1
    assert 0 <= spread < 0.2


def test_regressions_have_a_table_of_their_own():
    """Their figures are others, and what a spec has none of has no table."""
    click = dict.fromkeys(seeds.CLASSIFICATION, 0.5)
    watch = dict.fromkeys(seeds.REGRESSION, 0.25)
    reports = [{"click": click, "watch": watch}] * 2
    assert [row["output"] for row in seeds._rows(reports, seeds.CLASSIFICATION)] == ["click"]
    (row,) = seeds._rows(reports, seeds.REGRESSION)
    assert (row["output"], row["mae"]) == ("watch", "0.2500 +- 0.0000")
    assert seeds._rows([{"click": click}] * 2, seeds.REGRESSION) == []


def test_an_undefined_figure_stays_undefined_over_seeds():
    """A mean of what is left would be another figure."""
    assert seeds._mean([0.5, None]) is None
    assert seeds._mean([0.5, 0.7]) == "0.6000 +- 0.1414"


def test_a_wrong_spec_is_refused_before_anything_is_made(tmp_path):
    """As in every verb."""
    with pytest.raises(SpecError, match="no such spec"):
        seeds.bench(tmp_path / "x.toml", [], seeds=[1, 2], progress=Silent())
