"""Refit: what validation chose, trained anew on train and validation; resumed to the bit, on one process or two."""

from __future__ import annotations

import json

import pytest
import torch

from pipelines.report import page
from rec import spec as specs
from rec.atomic import read_json
from rec.data import loader, preprocessor, splits
from rec.errors import DataError, SpecError
from rec.progress import Silent
from rec.spec.tasks import given
from rec.training import checkpoint, refit, tensor_folder, trainer
from rec.training.refit import Passes
from rec.training.run import evaluate_run, load_run
from rec.training.warm_start import opened
from serving import evaluate_bundle, export
from tests.rec.training.ranks import on_ranks

LONG = ("train.refit=true", "train.epochs=2", "train.patience=9")


def refitted(spec, *overrides):
    """The tiny shop, whose last weights learn from validation too."""
    return specs.parse(specs.dump(spec), overrides=[*LONG, *overrides])


def saved(folder):
    """Every tensor of a folder, as bytes."""
    return {name: value.numpy().tobytes() for name, value in tensor_folder.tensors(folder)}


class Interrupt(Silent):
    """A user who presses Ctrl-C in an epoch, after some requests."""

    def __init__(self, epoch, after):
        self.epoch, self.left, self.inside = epoch, after, False

    def start(self, what, total=None, unit=""):
        self.inside = what == self.epoch

    def advance(self, units, **figures):
        self.left -= self.inside
        if self.inside and not self.left:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(spec, data, tmp_path_factory):
    """A refit that nothing broke, and its summary."""
    folder = tmp_path_factory.mktemp("refit") / "run"
    return folder, trainer.train(refitted(spec), data, folder, progress=Silent())


def test_it_is_a_run_of_the_chosen_epochs_on_both_splits(spec, data, whole, tmp_path):
    """Equal, to the bit, to training on session tables whose training split has the validation split as well."""
    folder, summary = whole
    both = tmp_path / "data"
    for path in [p for p in data.rglob("*") if p.is_file()]:
        place = both / path.relative_to(data)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    (both / "validation" / "part-00000.arrow").rename(both / "train" / "part-09999.arrow")
    splits.write(both / "validation" / "part-00000.arrow", [], next(splits.read(data, "train", spec)).schema)
    preprocessor.fit(splits.read(both, "train", spec), spec).save(both / "fitted")
    (both / "manifest.json").write_text("{}")
    plain = refitted(spec, "train.refit=false", f"train.epochs={summary['epoch']}")
    trainer.train(plain, both, tmp_path / "run", progress=Silent())
    last = saved(checkpoint.steps(tmp_path / "run")[-1])
    assert saved(folder / "checkpoint" / "refit") == {name: last[name] for name in saved(checkpoint.kept(folder))}
    assert summary["refit"]["requests"] == {name: splits.count(data, name) for name in ("train", "validation")}


def test_the_run_before_it_is_that_of_a_spec_without_it(spec, data, whole, tmp_path):
    """Its history, its best weights, its held-out figures."""
    folder, summary = whole
    best = trainer.train(refitted(spec, "train.refit=false"), data, tmp_path / "run", progress=Silent())
    for name in ("validation", "epoch", "step"):
        assert best[name] == summary[name]
    best = [place / "checkpoint" / "best" for place in (folder, tmp_path / "run")]
    assert saved(best[0]) == saved(best[1]) != saved(checkpoint.kept(folder))


def test_its_weights_are_evaluated_exported_and_started_from_and_the_report_says_so(data, whole, tmp_path):
    """With the vocabularies and scales of both splits; the sentence is in report.html and in a bundle's report too."""
    folder, summary = whole
    described, learnt, model = load_run(folder)
    fitted = preprocessor.load(described, folder / "refit" / "fitted")
    assert fitted.scales == learnt.scales != preprocessor.load(described, folder / "fitted").scales
    dense = dict(tensor_folder.tensors(folder / "checkpoint" / "refit"))
    assert all(torch.equal(value, dense[f"dense.{name}"]) for name, value in model.dense_state().items())
    report = evaluate_run(folder, data, split="validation", progress=Silent())
    text = "the weights were trained anew on train and validation, for the "
    assert report["refit"]["text"].startswith(text)
    assert report["refit"]["text"].endswith("figures on these splits are not held out, test is")
    seen = report["outputs"]["click"]["normalised_entropy"]
    assert seen != pytest.approx(summary["validation"]["click"]["normalised_entropy"], abs=1e-6)
    assert text in page.render(report, model=folder, data=data, bundle=None)
    export.export(folder, tmp_path / "bundle", data=data, progress=Silent())
    of_bundle = evaluate_bundle.evaluate_bundle(tmp_path / "bundle", data, split="test", progress=Silent())
    assert of_bundle["refit"] == report["refit"] == summary["refit"]
    assert opened(folder).best.name == "refit"
    assert list(given(described.tasks)) == ["click", "buy"]


@pytest.mark.parametrize("epoch", ["epoch 2", "refit, epoch 2"])
def test_an_interrupted_one_goes_on_to_the_same_bits(spec, data, whole, tmp_path, epoch):
    """In the run before it, and in its own last epoch; until it is done the model is that of the run before."""
    often = refitted(spec, "train.checkpoint.steps=2")
    with pytest.raises(KeyboardInterrupt):
        trainer.train(often, data, tmp_path / "run", progress=Interrupt(epoch, 3))
    assert checkpoint.kept(tmp_path / "run").name == "best"
    again = trainer.train(often, data, tmp_path / "run", progress=Silent())
    assert saved(checkpoint.kept(tmp_path / "run")) == saved(checkpoint.kept(whole[0]))
    assert {**again, "seconds": 0} == {**whole[1], "seconds": 0}


def test_more_epochs_choose_again_and_the_refit_goes_on(spec, data, whole, tmp_path):
    """With a larger train.epochs it ends as one that had them from the start; a third call does nothing."""
    for epochs in (1, 2):
        summary = trainer.train(refitted(spec, f"train.epochs={epochs}"), data, tmp_path / "run", progress=Silent())
    assert summary["refit"] == whole[1]["refit"]
    assert saved(checkpoint.kept(tmp_path / "run")) == saved(checkpoint.kept(whole[0]))
    before = (tmp_path / "run" / "checkpoint" / "refit" / "manifest.json").stat().st_mtime_ns
    trainer.train(refitted(spec), data, tmp_path / "run", progress=Silent())
    assert (tmp_path / "run" / "checkpoint" / "refit" / "manifest.json").stat().st_mtime_ns == before


def test_the_share_of_an_epoch_that_validation_chose_is_trained(spec, data, tmp_path):
    """A best validation inside an epoch: as many passes over both splits, to a batch."""
    history = [{"epoch": 1, "step": 10}, {"epoch": 2, "step": 14}, {"epoch": 2, "step": 20}]
    assert refit.passes(history, history[0]) == Passes(1)
    assert refit.passes(history, history[1]) == Passes(1, 0.4)
    assert refit.passes(history, history[2]) == Passes(2)
    often = refitted(
        spec, "train.batch=64", "train.validate_every=3", "train.epochs=1", "train.table_lr=0.5", "train.lr=0.05"
    )
    summary = trainer.train(often, data, tmp_path / "run", progress=Silent())
    end = json.loads((tmp_path / "run" / "history.json").read_text())[-1]["step"]
    assert summary["step"] < end, "the test wants a best validation inside the epoch"
    batches = loader.batches(data, often, refit.SPLITS)
    assert summary["refit"]["passes"] == [0, summary["step"] / end]
    assert summary["refit"]["steps"] == -(-batches * summary["step"] // end)
    assert "for the 0." in summary["refit"]["text"]


def train_on_ranks(text, data, folder):
    """On as many ranks as there are."""
    trainer.train(specs.parse(text), data, folder, progress=Silent())


def test_two_ranks_learn_what_one_process_learns(spec, data, tmp_path):
    """Tables divided by rows and copied; averages of ends, dropout of ids, a penalty on rows, tasks by their count."""
    divided = ['train.sharding.tables={ item_id = "row_wise", city = "data_parallel" }', "train.average=2"]
    divided += ["train.id_dropout=0.2", "train.table_l2=0.1", "train.task_weighting=count"]
    spec = refitted(spec, *divided, 'model={ name = "home", levels = [[8], [8]], rank = 4, tower_widths = [4] }')
    trainer.train(spec, data, tmp_path / "alone", progress=Silent())
    on_ranks(2, train_on_ranks, specs.dump(spec), data, tmp_path / "two")
    mine, other = (dict(tensor_folder.tensors(checkpoint.kept(tmp_path / name))) for name in ("alone", "two"))
    assert checkpoint.kept(tmp_path / "two").name == "refit"
    for name, value in mine.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_what_makes_no_sense_with_it_is_refused(spec, data, tmp_path):
    """One pass, labels that training has a share of, and no validation to choose anything."""
    with pytest.raises(SpecError, match=r"train\.refit: trains for the epochs that validation chose, and"):
        refitted(spec, "train.mode=progressive")
    with pytest.raises(SpecError, match=r"tasks\.buy\.negatives = 0\.5 leaves out those of train; leave out one"):
        refitted(spec, "tasks.buy.negatives=0.5")
    empty = tmp_path / "data"
    for split in splits.SPLITS:
        (empty / split).mkdir(parents=True)
        splits.write(empty / split / "part-00000.arrow", [], next(splits.read(data, "train", spec)).schema)
    (empty / "spec.toml").write_text(specs.dump(spec))
    with pytest.raises(DataError, match=r"validation: no request, so nothing chooses the epochs of train\.refit"):
        trainer.train(refitted(spec), empty, tmp_path / "run", progress=Silent())
    assert read_json(data / "manifest.json")
