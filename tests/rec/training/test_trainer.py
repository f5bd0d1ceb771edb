"""Training: it learns, repeats itself, resumes, and refuses what it cannot use."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from rec import spec as specs
from rec.data import loader, preprocessor, splits
from rec.errors import BundleError, DataError, SpecError
from rec.evaluation import evaluate as evaluation
from rec.modules.precision import quick
from rec.progress import Silent
from rec.spec import Event
from rec.training import checkpoint, tensor_folder, trainer
from rec.training import run as runs
from rec.training.step import device_of, new_fit, step
from tests.rec.training.watching import Said


def longer(spec, **settings):
    """The tiny shop with other training settings."""
    return spec.model_copy(update={"train": spec.train.model_copy(update={"epochs": 3, "patience": 9, **settings})})


def weights(run):
    """Every tensor of the newest checkpoint as bytes: weights, optimizers, sums."""
    return {k: v.numpy().tobytes() for k, v in tensor_folder.tensors(checkpoint.steps(run)[-1])}


class Interrupt(Silent):
    """A user who presses Ctrl-C in the second epoch."""

    def start(self, what, total=None, unit=""):
        if what == "epoch 2":
            raise KeyboardInterrupt


def test_the_loss_goes_down_and_the_history_says_so(spec, data, tmp_path):
    """Eight epochs on the tiny shop, at a pace that shows."""
    trainer.train(longer(spec, epochs=8, lr=0.01), data, tmp_path / "run", progress=Silent())
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    losses = [entry["train"]["loss"]["click"] for entry in history]
    assert [entry["epoch"] for entry in history] == list(range(1, 9))
    assert losses[0] > losses[4] > losses[7]


def test_the_same_spec_and_data_give_the_same_weights(spec, data, tmp_path):
    """Bit for bit, on one machine."""
    for name in ("a", "b"):
        trainer.train(spec, data, tmp_path / name, progress=Silent())
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_an_interrupted_run_resumes_to_the_numbers_of_an_unbroken_one(spec, data, tmp_path):
    """Weights, optimizer, order of batches and dropout are all restored."""
    settings = longer(spec).model_copy(update={"model": {**spec.model, "dropout": 0.2}})
    trainer.train(settings, data, tmp_path / "whole", progress=Silent())
    with pytest.raises(KeyboardInterrupt):
        trainer.train(settings, data, tmp_path / "broken", progress=Interrupt())
    trainer.train(settings, data, tmp_path / "broken", progress=Silent())
    assert weights(tmp_path / "whole") == weights(tmp_path / "broken")


def test_resuming_with_another_spec_or_other_data_is_refused(spec, data, run, tmp_path):
    """A trained model is one spec on one data set."""
    mine = shutil.copytree(run, tmp_path / "run")
    with pytest.raises(
        FileExistsError, match=r"wrote for spec 'tiny-shop' \(of another \[train\]\); give another --out, or --force"
    ):
        trainer.train(longer(spec, lr=0.5), data, mine, progress=Silent())
    other = shutil.copytree(data, tmp_path / "data")
    (other / "manifest.json").write_text((other / "manifest.json").read_text() + " ")
    with pytest.raises(FileExistsError, match=r"\(of another session tables\)"):
        trainer.train(spec, other, mine, progress=Silent())


def test_a_finished_training_is_not_done_again(spec, data, run, tmp_path):
    """The same call gives the same summary, and touches no file; another worth or limit of serving trains nothing."""
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    best = trainer.train(spec, data, run, progress=Silent())
    assert best == json.loads((run / "history.json").read_text())[best["epoch"] - 1]
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before
    mine = shutil.copytree(run, tmp_path / "run")
    served = spec.model_copy(update={"serve": spec.serve.model_copy(update={"max_candidates": 7})})
    buy = spec.tasks["buy"].model_copy(update={"value": 9.0})
    worth = served.model_copy(update={"tasks": {**spec.tasks, "buy": buy}})
    assert trainer.train(worth, data, mine, progress=Silent()) == best
    assert specs.load(mine / "spec.toml") == worth
    assert weights(mine) == weights(run)


def test_training_stops_when_validation_stops_improving(spec, data, tmp_path):
    """With a learning rate that only overfits, patience ends it and the best epoch is kept."""
    best = trainer.train(longer(spec, epochs=30, patience=1, table_lr=0.5), data, tmp_path / "run", progress=Silent())
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(history) == best["epoch"] + 1 < 30
    assert tensor_folder.state(tmp_path / "run" / "checkpoint" / "best")["epoch"] == best["epoch"]


def test_a_loss_that_is_not_a_number_stops_training_with_its_cause(spec, data, tmp_path):
    """No half a day of NaN."""
    with pytest.raises(BundleError, match=r"the loss of \w+ is (nan|inf): .*try a lower train\.lr"):
        trainer.train(longer(spec, lr=1e30), data, tmp_path / "run", progress=Silent())


def test_a_changed_checkpoint_is_refused(spec, data, run, tmp_path):
    """One byte is enough."""
    mine = shutil.copytree(run, tmp_path / "run")
    path = mine / "checkpoint" / "best" / "rank-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=r"rank-00000\.safetensors was changed"):
        runs.evaluate_run(mine, data, split="test", progress=Silent())


def test_a_folder_without_a_model_says_what_makes_one(data, tmp_path):
    """Not a traceback."""
    with pytest.raises(BundleError, match="no trained model here; `multigate train"):
        runs.evaluate_run(tmp_path, data, split="test", progress=Silent())


def test_asking_for_a_device_that_is_not_there_is_refused(spec):
    """Never a silent fall back from CUDA to the CPU."""
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(SpecError, match=r"train\.device: 'cuda' was asked for"):
        device_of(spec.train.model_copy(update={"device": "cuda"}))
    assert device_of(spec.train.model_copy(update={"device": "auto"})).type == "cpu"


def test_evaluation_repeats_what_training_saw_on_validation(spec, data, run):
    """The best epoch, read back over plain tables, evaluated on the same rows."""
    history = json.loads((run / "history.json").read_text())
    report = runs.evaluate_run(run, data, split="validation", progress=Silent())
    seen = max((e["validation"] for e in history), key=lambda v: -v["click"]["normalised_entropy"])
    assert report["outputs"]["click"]["auc"] == pytest.approx(seen["click"]["auc"], abs=1e-6)
    assert set(report["outputs"]) == {"click", "buy", "buy|click"}


def test_every_epoch_sees_every_request_once_in_another_order(spec, data):
    """Whatever the size of the shuffle buffer, and the same again for the same seed."""
    learnt = preprocessor.load(spec, data / "fitted")
    tight = longer(spec, shuffle=50, batch=64)

    def epoch(number):
        batches = [b.mine for b in loader.shuffled(data, tight, learnt.encoders, epoch=number)]
        assert max(len(b) for b in batches) < 64 + max(np.bincount(b.owner).max() for b in batches)
        return np.concatenate([b.candidates["price"] for b in batches])

    whole = np.concatenate(
        [b.candidates["price"] for b in [fit_batch(rows, spec, learnt) for rows in splits.read(data, "train", spec)]]
    )
    np.testing.assert_array_equal(np.sort(epoch(1)), np.sort(whole))
    np.testing.assert_array_equal(epoch(1), epoch(1))
    assert not np.array_equal(epoch(1), epoch(2))


def fit_batch(rows, spec, learnt):
    """A block of the table through the door."""
    from rec.data.session_table import to_batch

    return to_batch(rows, spec, learnt.encoders)


def test_a_training_split_without_a_candidate_is_refused(tmp_path):
    """It says which folder."""
    spec = specs.parse(
        'name = "x"\n[candidates]\ni = { kind = "id", encode = "hash", rows = 9 }\n[tasks.c]\nlabel = "c"'
    )
    from rec.atomic import write_json
    from rec.data.session_table import schema

    for split in splits.SPLITS:
        (tmp_path / "data" / split).mkdir(parents=True)
        splits.write(tmp_path / "data" / split / "part-0.arrow", [], schema(spec))
    (tmp_path / "data" / "fitted").mkdir()
    (tmp_path / "data" / "spec.toml").write_text(specs.dump(spec))
    write_json(tmp_path / "data" / "fitted" / "scales.json", {})
    write_json(tmp_path / "data" / "fitted" / "rates.json", {"c": 0.5})
    write_json(tmp_path / "data" / "fitted" / "targets.json", {})
    write_json(tmp_path / "data" / "manifest.json", {})
    with pytest.raises(DataError, match="not one candidate to learn from"):
        trainer.train(spec, tmp_path / "data", tmp_path / "run", progress=Silent())


def test_tables_made_with_another_feature_or_label_are_refused(spec, data, tmp_path):
    """A minimum count set after the vocabulary was fitted would have no effect; a width may change."""
    feature = spec.candidates["item_id"]

    def changed(**settings):
        features = {**spec.candidates, "item_id": feature.model_copy(update=settings)}
        return spec.model_copy(update={"candidates": features})

    with pytest.raises(DataError, match=r"was made with another candidates\.item_id; make it again"):
        trainer.train(changed(min_count=3), data, tmp_path / "run", progress=Silent())
    fewer = {**spec.tasks, "click": spec.tasks["click"].model_copy(update={"negatives": 0.5})}
    with pytest.raises(DataError, match=r"was made with another tasks\.click; make it again"):
        trainer.train(spec.model_copy(update={"tasks": fewer}), data, tmp_path / "run", progress=Silent())
    counted = spec.model_copy(update={"events": {"seen": Event(label="x")}})
    with pytest.raises(DataError, match=r"was made with another events\.seen; make it again"):
        trainer.train(counted, data, tmp_path / "run", progress=Silent())
    with pytest.raises(DataError, match="no session tables here"):
        trainer.train(spec, tmp_path, tmp_path / "run", progress=Silent())
    trainer.train(changed(dim=4), data, tmp_path / "run", progress=Silent())


def test_an_unknown_model_is_refused_before_anything_is_written(spec, data, tmp_path):
    """The folder of the run is not even made."""
    with pytest.raises(SpecError, match=r"model\.name: no model 'mmoo'"):
        trainer.train(spec.model_copy(update={"model": {"name": "mmoo"}}), data, tmp_path / "run", progress=Silent())
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_learns_what_a_cpu_learns(spec, data, tmp_path):
    """The same spec and command; losses within float32's reach of each other."""
    losses = {}
    for device in ("cpu", "cuda"):
        trainer.train(longer(spec, device=device), data, tmp_path / device, progress=Silent())
        losses[device] = json.loads((tmp_path / device / "history.json").read_text())[-1]["train"]["loss"]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.02)


def test_bf16_learns_what_fp32_learns(spec, data, tmp_path):
    """Means of validation AUC differ by less than three seeds do. A CPU that is slow in bf16 says so."""
    auc, said = {}, Said()
    for precision in ("fp32", "bf16"):
        for seed in (1, 2, 3):
            settings = longer(spec, precision=precision, lr=0.01).model_copy(update={"seed": seed})
            best = trainer.train(settings, data, tmp_path / f"{precision}{seed}", progress=said)
            auc.setdefault(precision, []).append(best["validation"]["click"]["auc"])
    assert abs(np.mean(auc["fp32"]) - np.mean(auc["bf16"])) <= np.ptp(auc["fp32"])
    assert auc["fp32"] != auc["bf16"]
    slow = "train.precision = 'bf16' is many times slower than 'fp32' on this CPU, which has no instructions for it"
    assert said.lines.count(slow) == (0 if quick(torch.device("cpu")) else 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, as it compiles
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_model_learns_what_it_does_otherwise(precision, spec, data, batch):
    """Batches of several sizes, one compilation, the same weights and names of weights."""
    learnt, losses, names = preprocessor.load(spec, data / "fitted"), [], []
    for compiled in (False, True):
        settings = longer(spec, compile=compiled, precision=precision)
        fit = new_fit(settings, learnt)
        fit.ranker.train()
        parts = [batch.take(np.arange(count)) for count in (20, 17, 31)]
        steps = [step(fit, settings, loader.tensors(part, fit.device)) for part in parts]
        losses.append([loss.item() for each in steps for loss in each.values()])
        names.append(list(fit.ranker.dense_state()))
    assert names[0] == names[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5 if precision == "fp32" else 1e-2)


def test_weights_of_another_model_are_refused_by_name(spec, data, run):
    """Missing, extra, or of another shape: never loaded in part."""
    best = run / "checkpoint" / "best"
    live = checkpoint.weights(new_fit(spec, preprocessor.load(spec, data / "fitted")).ranker)
    checkpoint.read(best, live)
    with pytest.raises(BundleError, match=r"best: tables\.item_id: expected \[1, 4\], got \[\d+, \d+\]"):
        checkpoint.read(best, live | {"tables.item_id": torch.zeros(1, 4)})
    with pytest.raises(BundleError, match="best: more is missing"):
        checkpoint.read(best, live | {"more": torch.zeros(1)})
    with pytest.raises(BundleError, match=r"best: dense\.objective\.heads\.prior is not in this model"):
        checkpoint.read(best, {name: w for name, w in live.items() if name != "dense.objective.heads.prior"})


def test_a_checkpoint_that_is_not_safetensors_is_refused(tmp_path):
    """A pickle, for one, is never opened."""
    tensor_folder.write(tmp_path / "x", {"a": torch.zeros(2)}, {})
    (tmp_path / "x" / "rank-00000.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(BundleError, match=r"rank-00000\.safetensors: cannot be read"):
        dict(tensor_folder.tensors(tmp_path / "x"))


def test_judging_nothing_is_refused(spec):
    """A report on no candidate would be a row of n/a."""
    with pytest.raises(DataError, match="not one candidate to evaluate"):
        evaluation.evaluate(spec, [], {}, dict, progress=Silent())
