"""A loss that is no number: the batch is saved, the cause named, and nothing that was kept before is replaced."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.kills import TrainCommand, started
from rec import spec as specs
from rec.atomic import read_json
from rec.errors import BundleError
from rec.progress import Silent
from rec.request import RequestBatch
from rec.training import checkpoint, failed_batch, tensor_folder, trainer

OWNER = torch.tensor([0, 0])


def far(spec, **settings):
    """The tiny shop with steps that lead nowhere, in batches of which an epoch has several."""
    train = spec.train.model_copy(update={"lr": 1e18, "batch": 32, "epochs": 3, **settings})
    return spec.model_copy(update={"train": train})


def test_the_batch_is_saved_and_the_cause_named(spec, data, tmp_path):
    """Before the step changes a weight; the best weights stay what a finite validation made them."""
    run = tmp_path / "run"
    with pytest.raises(BundleError) as caught:
        trainer.train(far(spec, validate_every=15), data, run, progress=Silent())
    assert "try a lower train.lr or table_lr, or train.clip; the batch is in" in str(caught.value)
    (folder,) = (run / "failed").iterdir()
    about = read_json(folder / "rank-00000.json")
    history = read_json(run / "history.json")
    assert f"epoch {about['epoch']}, step {about['step']}: the loss of " in str(caught.value)
    assert about["cause"] in str(caught.value)
    assert not all(math.isfinite(float(loss)) for loss in about["losses"].values())
    assert about["step"] > history[-1]["step"] == 15
    batch = load_file(folder / "rank-00000.safetensors")
    assert len(batch["owner"]) == len(batch["labels.click"]) > 0
    best = run / "checkpoint" / "best"
    assert all(tensor.isfinite().all() for _, tensor in tensor_folder.tensors(best))
    assert tensor_folder.state(best)["step"] < about["step"]


def test_scores_that_are_no_numbers_do_not_replace_the_best(spec, data, tmp_path):
    """A validation is looked at before anything of it is kept."""
    run = tmp_path / "run"
    with pytest.raises(BundleError, match=r"validation: \w+: \d+ of \d+ scores are NaN or infinite"):
        trainer.train(far(spec, validate_every=1), data, run, progress=Silent())
    best = run / "checkpoint" / "best"
    assert all(tensor.isfinite().all() for _, tensor in tensor_folder.tensors(best))
    assert tensor_folder.state(best)["step"] <= len(read_json(run / "history.json")) == 15


def test_of_several_ranks_one_says_why(spec, data, tmp_path):
    """The other ends with it; nobody calls it a mistake of ours."""
    path, run = tmp_path / "spec.toml", tmp_path / "run"
    path.write_text(specs.dump(far(spec)))
    with started(TrainCommand(path, data, 2, ()), run) as process:
        assert process.wait(120) == BundleError.exit_code
    words = run.with_suffix(".log").read_text()
    assert "the loss of " in words
    assert "the batch is in" in words
    assert "our mistake" not in words
    assert list((run / "failed").glob("step-*/rank-*.safetensors"))
    assert not checkpoint.steps(run)


def test_an_infinite_input_is_the_cause_before_a_weight_is():
    """The logs are where to look; a missing value, which is NaN, is none."""
    batch = RequestBatch(1, {"age": torch.tensor([math.nan])}, {"price": torch.tensor([1.0, math.inf])}, OWNER)
    reason = failed_batch.cause(batch, {"w": torch.tensor([math.nan])})
    assert reason == "in this batch candidates.price is infinite; look for the value in the logs"


def test_a_weight_that_is_not_finite_is_named():
    """With what may help."""
    batch = RequestBatch(1, {"age": torch.tensor([math.nan])}, {"price": torch.tensor([1.0, 2.0])}, OWNER)
    weights = {"a": torch.ones(2), **{f"w{i}": torch.tensor([1.0, math.inf]) for i in range(4)}}
    said = "w0, w1, w2 and 1 more are not finite; try a lower train.lr or table_lr, or train.clip"
    assert failed_batch.cause(batch, weights) == said


def test_where_all_is_finite_the_largest_is_named():
    """A square of a price may be the reason."""
    batch = RequestBatch(1, {}, {"price": torch.tensor([1.0, -3e38])}, OWNER, {"spent": torch.tensor([math.nan, 2])})
    reason = failed_batch.cause(batch, {"w": torch.tensor([7.0])})
    largest = "the largest input is 3e+38 in candidates.price, the largest weight is 7 in w"
    assert reason == f"all inputs and weights are finite, {largest}; try a lower train.lr or table_lr, or train.clip"
