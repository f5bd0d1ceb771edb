"""The mean of the last epochs' ends: of every weight, evaluated and kept, while training goes on from the last end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rec import spec as specs
from rec.data import loader, preprocessor
from rec.data.loader import tensors
from rec.errors import SpecError
from rec.modules.experts import ExpertNorm
from rec.progress import Silent
from rec.training import checkpoint, tensor_folder, trainer, weight_average
from rec.training.checkpoint import Saver
from rec.training.state import Run
from rec.training.step import new_fit, step
from tests.rec.training.test_refit import Interrupt, saved

HOME = 'model={ name = "home", levels = [[8], [8]], rank = 4, tower_widths = [4] }'


def averaging(spec, *overrides):
    """The tiny shop, whose last epochs' ends are averaged."""
    return specs.parse(
        specs.dump(spec), overrides=["train.average=2", "train.epochs=3", "train.patience=9", *overrides]
    )


def numbers(folder):
    """Every tensor of a folder as a numpy array."""
    return {name: value.numpy() for name, value in tensor_folder.tensors(folder)}


@pytest.fixture(scope="module")
def whole(spec, data, tmp_path_factory):
    """Three epochs, with an average of the last two ends after each, and batch normalisation in the model."""
    folder = tmp_path_factory.mktemp("average") / "run"
    trainer.train(averaging(spec, HOME), data, folder, progress=Silent())
    return folder


def test_what_is_kept_is_the_mean_of_the_last_ends(whole):
    """By numpy, over every weight and every row of the tables; ends that no checkpoint needs any more are gone."""
    about = tensor_folder.state(checkpoint.kept(whole))
    ends = sorted((whole / "checkpoint").glob("epoch-*"))
    assert [end.name for end in ends] == [f"epoch-{epoch:010d}" for epoch in (1, 2, 3)]
    assert about["epoch"] == 3, "the test wants the last epoch to be the best"
    last = [numbers(end) for end in ends[1:]]
    for name, value in numbers(checkpoint.kept(whole)).items():
        if name.endswith((".mean", ".variance")):  # of batch normalisation, and constant scales
            continue
        np.testing.assert_array_equal(value, np.mean([end[name] for end in last], 0, dtype=np.float64).astype("f4"))
        assert (
            name.startswith("dense.embedding.numbers")
            or not np.array_equal(last[0][name], last[1][name])
            or (name.endswith(("bias", "prior")))
        )


def test_training_goes_on_from_the_last_end_and_not_from_the_mean(spec, data, whole, tmp_path):
    """The last checkpoint, optimizer states included, is that of a run that averages nothing."""
    trainer.train(averaging(spec, HOME, "train.average=1"), data, tmp_path / "run", progress=Silent())
    assert saved(checkpoint.steps(tmp_path / "run")[-1]) == saved(checkpoint.steps(whole)[-1])


def test_statistics_of_batch_normalisation_are_those_of_the_mean(spec, data, whole):
    """The mean over batches of what the averaged weights see: a slow twin of one expert's first layer."""
    described = averaging(spec, HOME)
    learnt = preprocessor.load(described, data / "fitted")
    run = Run(described, learnt, data, whole, new_fit(described, learnt), Silent(), epoch=3)
    with weight_average.mean(run, upto=3):
        norm = next(module for module in run.fit.ranker.modules() if isinstance(module, ExpertNorm))
        assert not norm.training
        assert norm.momentum == ExpertNorm(1, 1).momentum
        mine, seen = (norm.mean.clone(), norm.variance.clone()), []
        handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numpy()))
        with torch.no_grad():
            for part in loader.shuffled(data, described, learnt.encoders, epoch=4):
                run.fit.ranker.hidden(tensors(part.mine, run.fit.device))
        handle.remove()
    means = np.mean([x_ENH.mean(1, keepdims=True) for x_ENH in seen], 0)
    variances = np.mean([x_ENH.var(1, ddof=1, keepdims=True) for x_ENH in seen], 0)
    np.testing.assert_allclose(mine[0].numpy(), means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mine[1].numpy(), variances, rtol=1e-4, atol=1e-5)
    last = numbers(max((whole / "checkpoint").glob("epoch-*")))
    for name, value in run.fit.ranker.dense_state().items():  # outside the block the last end is back
        np.testing.assert_array_equal(value.detach().numpy(), last[f"dense.{name}"])


def test_an_interrupted_run_goes_on_to_the_same_bits(spec, data, whole, tmp_path):
    """Ends are on the disk; what was averaged before the interruption is averaged after it."""
    with pytest.raises(KeyboardInterrupt):
        trainer.train(averaging(spec, HOME), data, tmp_path / "run", progress=Interrupt("epoch 3", 3))
    trainer.train(averaging(spec, HOME), data, tmp_path / "run", progress=Silent())
    for of in (checkpoint.kept, lambda run: checkpoint.steps(run)[-1]):
        assert saved(of(tmp_path / "run")) == saved(of(whole))


def test_only_the_ends_that_are_needed_stay(spec, data, tmp_path):
    """The last two, and one more for the checkpoint before: of five epochs three."""
    described = averaging(spec, "train.ema=0.9")
    learnt = preprocessor.load(described, data / "fitted")
    run = Run(described, learnt, data, tmp_path, new_fit(described, learnt), Silent())
    saver = Saver(tmp_path, keep=1)
    batch = next(loader.shuffled(data, described, learnt.encoders, epoch=1)).mine
    for epoch in range(1, 6):
        run.epoch = epoch
        step(run.fit, described, tensors(batch, run.fit.device))
        weight_average.save(run, saver)
    assert [int(end.name[6:]) for end in sorted((tmp_path / "checkpoint").glob("epoch-*"))] == [3, 4, 5]


def test_what_makes_no_sense_with_it_is_refused(spec):
    """One pass over the days, and validations inside epochs."""
    with pytest.raises(SpecError, match=r"train\.average: is of the ends of several epochs, and a progressive run"):
        averaging(spec, "train.mode=progressive")
    with pytest.raises(SpecError, match=r"train\.average: is of the ends of epochs, and train\.validate_every looks"):
        averaging(spec, "train.validate_every=5")
