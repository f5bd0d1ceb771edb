"""More epochs than before: a finished run goes on as if it had never ended."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pipelines.cli.main import cli
from rec import spec as specs
from rec.progress import Silent
from rec.training import checkpoint, tensor_folder, trainer


class Log(Silent):
    """What is said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def epochs(spec, count, *overrides):
    """The tiny shop for so many epochs."""
    return specs.parse(specs.dump(spec), overrides=[f"train.epochs={count}", "train.patience=9", *overrides])


def weights(folder):
    """Every tensor of the newest checkpoint."""
    return {k: v.numpy().tobytes() for k, v in tensor_folder.tensors(checkpoint.steps(folder)[-1])}


@pytest.mark.parametrize("override", ["train.warmup=4", "model.dropout=0.2"])
def test_going_on_equals_an_unbroken_run(spec, data, tmp_path, override):
    """Bit for bit where the schedule is constant, warm-up or not: weights, optimizers, order and dropout."""
    trainer.train(epochs(spec, 4, override), data, tmp_path / "whole", progress=Silent())
    trainer.train(epochs(spec, 2, override), data, tmp_path / "run", progress=Silent())
    log = Log()
    best = trainer.train(epochs(spec, 4, override), data, tmp_path / "run", progress=log)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert specs.load(tmp_path / "run" / "spec.toml").train.epochs == 4
    assert 1 <= best["epoch"] <= 4


def test_a_decay_over_the_epochs_cannot_be_lengthened(spec, data, tmp_path):
    """Every step of a longer run would have been another, from the first on."""
    trainer.train(epochs(spec, 1, "train.decay=linear"), data, tmp_path / "run", progress=Silent())
    with pytest.raises(
        FileExistsError, match=r"of another number of epochs, over which train\.decay runs: 1\); give another --out"
    ):
        trainer.train(epochs(spec, 2, "train.decay=linear"), data, tmp_path / "run", progress=Silent())


def test_patience_still_ends_it_and_says_so(spec, data, tmp_path):
    """An unbroken run would have stopped there too."""
    worse = epochs(spec, 3, "train.patience=1", "train.table_lr=2.0", "train.lr=0.1")
    trainer.train(worse, data, tmp_path / "run", progress=Silent())
    before, log = weights(tmp_path / "run"), Log()
    longer = worse.model_copy(update={"train": worse.train.model_copy(update={"epochs": 50})})
    trainer.train(longer, data, tmp_path / "run", progress=Silent())
    trainer.train(longer, data, tmp_path / "run", progress=log)
    assert log.lines[-1].startswith("train.patience = 1 ended training after epoch ")
    assert log.lines[-1].endswith(" of 50; a larger one goes on")
    assert before.keys() == weights(tmp_path / "run").keys()


def test_the_command_line_goes_on(spec, data, tmp_path):
    """`--until` is `train.epochs`, and `--from` is what a model starts from."""
    path = tmp_path / "shop.toml"
    path.write_text(specs.dump(epochs(spec, 1)))
    words = ["train", str(path), "--data", str(data), "--out"]
    for more in ([], ["--until", "2"]):
        assert CliRunner().invoke(cli, [*words, str(tmp_path / "a"), *more]).exit_code == 0
    state = tensor_folder.state(checkpoint.steps(tmp_path / "a")[-1])
    assert state["history"][-1]["epoch"] == 2
    done = CliRunner().invoke(cli, [*words, str(tmp_path / "b"), "--from", str(tmp_path / "a")])
    assert done.exit_code == 0
    assert (tmp_path / "b" / "warm_start.json").exists()
