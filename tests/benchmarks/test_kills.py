"""Killed anywhere, a training of several processes ends as one that nothing broke."""

from __future__ import annotations

import pytest

from benchmarks import kills
from rec import spec as specs
from rec.progress import Silent

SHORT = ("train.batch=64", "train.epochs=2", "train.checkpoint.steps=2", "train.patience=9")


@pytest.mark.slow
def test_five_kills_change_nothing(spec, data, tmp_path):
    """Weights, optimizers' states and history, bit for bit; every rank ends, and nothing is left behind."""
    path = tmp_path / "spec.toml"
    path.write_text(specs.dump(spec))
    training = kills.TrainCommand(path, data, 2, SHORT)
    result = kills.bench(training, tmp_path, kills=5, seed=4, progress=Silent())
    assert result["differences"] == [], result
    assert len(result["rows"]) == 5
    assert all(kill.seconds < kills.LIMIT for kill in result["rows"])


@pytest.mark.slow
def test_a_run_that_differs_is_told_apart(spec, data, run, tmp_path):
    """Planted: another seed."""
    from rec.training import trainer

    other = tmp_path / "other"
    trainer.train(spec.model_copy(update={"seed": 9}), data, other, progress=Silent())
    actual = kills.compared(run, other)
    assert "history.json" in actual
    assert any("tables.item_id" in what for what in actual)
    assert kills.compared(run, run) == []
