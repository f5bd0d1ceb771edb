"""Watching: what a look says, that nothing is learnt otherwise, and who is told."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from rec import spec as specs
from rec.data import loader, preprocessor
from rec.evaluation import classification
from rec.progress import Silent
from rec.ranker import create
from rec.spec import Task
from rec.spec.tasks import happened, loss_rows
from rec.training import checkpoint, tensor_folder, trainer, watch_lines
from rec.training import step as steps
from rec.training.step_clock import PHASES, StepClock
from rec.training.window import Window
from tests.rec.training.ranks import on_ranks
from tests.rec.training.watching import watched, weights


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("objective", ["esmm", "aitm", "dcmt"])
def test_looking_changes_nothing_that_is_learnt(spec, data, tmp_path, objective, accumulate):
    """Bit for bit the same weights, with dropout in experts and towers, clipping and every step looked at."""
    train = spec.train.model_copy(update={"clip": 0.1, "accumulate": accumulate})
    dropped = {"model": {**spec.model, "dropout": 0.3}, "objective": {"name": objective}, "train": train}
    for name, every in (("without", 0), ("with", 1)):
        shown = watched(spec.model_copy(update=dropped), every=every, window=700)
        trainer.train(shown, data, tmp_path / name, progress=Silent())
    assert weights(tmp_path / "with") == weights(tmp_path / "without")
    assert not (tmp_path / "without" / "watch.jsonl").exists()


def test_a_look_has_losses_metrics_times_and_memory(spec, data, tmp_path):
    """Seconds of the parts of a step are those of the step."""
    trainer.train(watched(spec, every=3), data, tmp_path / "run", progress=Silent())
    looks = watch_lines.read(tmp_path / "run" / "watch.jsonl")
    assert [look["step"] for look in looks[:3]] == [3, 6, 9]
    parts = [phase for phase in PHASES if phase != "communication"]  # nothing is sent in one process
    for look in looks:
        assert set(look) >= {f"{kind}/{task}" for kind in ("loss", "auc", "normalised_entropy") for task in spec.tasks}
        assert look["seconds/step"] == pytest.approx(sum(look[f"seconds/{part}"] for part in parts))
        assert min(look[f"seconds/{part}"] for part in parts) >= 0
        assert look["gradient_norm"] > 0
        assert look["candidates/s"] > 0
        assert 1e7 < look["memory/rss"] < 1e11


def test_a_look_says_what_weighted_candidates_are_worth(spec, data, tmp_path):
    """Of an objective that weighs candidates: no more than there are, and more than none."""
    weighing = watched(spec, every=3).model_copy(update={"objective": {"name": "escm2_ips"}})
    trainer.train(weighing, data, tmp_path / "run", progress=Silent())
    sizes = [look["effective_sample/buy"] for look in watch_lines.read(tmp_path / "run" / "watch.jsonl")]
    assert all(1 <= size < spec.train.batch for size in sizes)


def test_a_look_is_told_of_the_loss_that_was_trained_on(spec, data, tmp_path):
    """The losses of looks at every step have the mean of history.json, weighted by candidates."""
    trainer.train(watched(spec, every=1, epochs=1), data, tmp_path / "run", progress=Silent())
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    looks = watch_lines.read(tmp_path / "run" / "watch.jsonl")
    learnt = preprocessor.load(spec, data / "fitted")
    sizes = [part.candidates for part in loader.shuffled(data, spec, learnt.encoders, epoch=1)]
    mean = np.average([look["loss/click"] for look in looks], weights=sizes)
    assert mean == pytest.approx(history[0]["train"]["loss"]["click"], rel=1e-5)


@pytest.mark.parametrize("space", ["entire", "parent"])
def test_metrics_of_a_window_are_those_of_predictions_before_the_update(spec, data, space):
    """Compared with a second forward pass of the same batch by the same weights."""
    buy = spec.tasks["buy"].model_copy(update={"space": space, "negatives": 0.5})
    spec = spec.model_copy(update={"tasks": {**spec.tasks, "buy": buy}})
    learnt = preprocessor.load(spec, data / "fitted")
    fit = steps.new_fit(spec, learnt)
    window, batches = Window(spec.tasks), []
    for part, _ in zip(loader.shuffled(data, spec, learnt.encoders, epoch=1), range(3), strict=False):
        batch = loader.tensors(part.mine, fit.device)
        with torch.no_grad():
            served = fit.ranker.eval().served(batch, {"click": None, "buy": "click"})
        batches.append((served, batch.labels))
        fit.ranker.train()
        with window.seen(fit.ranker.objective, lambda: None, lambda _: None):
            steps.step(fit, spec, batch)
    actual = window.figures()
    for name, output in (("click", "click"), ("buy", "buy" if space == "entire" else "buy|click")):
        rows = [loss_rows(name, spec.tasks[name], labels) for _, labels in batches]
        p = torch.cat([served[output][mine] for (served, _), mine in zip(batches, rows, strict=True)]).numpy()
        label = torch.cat([happened(x[name])[mine] for (_, x), mine in zip(batches, rows, strict=True)]).numpy()
        share = spec.tasks[name].negatives
        p = p / (p + share * (1 - p))
        assert actual["auc"][name] == pytest.approx(classification.auc(p, label), abs=1e-6)
        assert actual["normalised_entropy"][name] == pytest.approx(
            classification.normalised_entropy(p, label), rel=1e-4
        )
    assert window._parts == []


def test_metrics_of_a_window_are_weighted_where_a_task_is():
    """A candidate of weight 2 is two, one of weight 0 none; by hand: AUC 1/3 instead of 1/2."""
    tasks = {"click": Task(label="c", sample_weight="w")}
    window = Window(tasks)
    score_N, label_N = torch.tensor([1.0, 2.0, 3.0, 9.0]), torch.tensor([0, 1, 0, 1], dtype=torch.int8)
    weight_N = torch.tensor([1.0, 1.0, 2.0, 0.0])
    window._parts.append(({"click": score_N}, {"click": label_N, "@weight.click": weight_N}))
    p = torch.sigmoid(score_N).double().numpy()[[0, 1, 2, 2]]
    twice = np.array([0.0, 1.0, 0.0, 0.0])
    figures = window.figures()
    assert figures["auc"]["click"] == pytest.approx(1 / 3)
    expected = classification.normalised_entropy(p, twice)
    assert figures["normalised_entropy"]["click"] == pytest.approx(expected, rel=1e-5)


def test_a_step_between_windows_is_not_touched(spec, data):
    """The objective has its own losses, and no module a hook, before and after a look."""
    model = create(spec, preprocessor.load(spec, data / "fitted"), seed=1, device=torch.device("cpu"))
    own = model.objective.losses
    with Window(spec.tasks).seen(model.objective, lambda: None, lambda _: None):
        assert model.objective.losses != own
    assert model.objective.losses == own
    assert "losses" not in vars(model.objective)


def test_a_run_that_goes_on_repeats_no_look(spec, data, tmp_path):
    """Looks after the checkpoint are forgotten, and made again."""

    class Interrupt(Silent):
        def advance(self, units, **figures):
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 9:
                raise KeyboardInterrupt

    shown = watched(spec, every=1)
    shown = shown.model_copy(
        update={"train": shown.train.model_copy(update={"checkpoint": specs.Checkpoints(steps=4)})}
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.train(shown, data, tmp_path / "run", progress=Interrupt())
    assert [look["step"] for look in watch_lines.read(tmp_path / "run" / "watch.jsonl")] == list(range(1, 10))
    trainer.train(shown, data, tmp_path / "run", progress=Silent())
    seen = [look["step"] for look in watch_lines.read(tmp_path / "run" / "watch.jsonl")]
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == tensor_folder.state(checkpoint.steps(tmp_path / "run")[-1])["step"]


def test_the_file_of_looks_stays_small(tmp_path, monkeypatch):
    """At its limit every second line is dropped; the newest stays."""
    monkeypatch.setattr(watch_lines, "LINES", 8)
    watcher = watch_lines.LineWatcher(tmp_path, step=0)
    for step in range(1, 101):
        watcher.step(step, {"loss/click": 1.0})
        assert len(watch_lines.read(tmp_path / "watch.jsonl")) < 8
    assert watch_lines.read(tmp_path / "watch.jsonl")[-1]["step"] == 100


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    """A run that is killed in the middle of a line goes on."""
    (tmp_path / "watch.jsonl").write_text('{"step": 1, "loss/click": 1.0}\n{"step": 2, "lo')
    watch_lines.LineWatcher(tmp_path, step=5).step(3, {})
    assert [look["step"] for look in watch_lines.read(tmp_path / "watch.jsonl")] == [1, 3]


def test_a_clock_adds_up_what_it_is_told(monkeypatch):
    """Parts may come in any order and several times; what is skipped counts nowhere."""
    ticks = iter([0.0, 1.0, 3.0, 6.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    clock = StepClock(torch.device("cpu"))
    clock.mark("forward")
    clock.mark("tables")
    clock.skip()
    clock.mark("forward")
    assert clock.seconds() == {"forward": 5.0, "tables": 2.0}


def _look_of_ranks(spec, data, folder):
    trainer.train(watched(spec, every=2, epochs=1), data, folder, progress=Silent())


@pytest.mark.slow
def test_a_look_at_two_processes_is_one_of_the_whole_batch(spec, data, tmp_path):
    """The same steps, losses and windows of candidates as in one process; what is sent has a time of its own."""
    _look_of_ranks(spec, data, tmp_path / "one")
    on_ranks(2, _look_of_ranks, spec, data, tmp_path / "two")
    one, two = (watch_lines.read(tmp_path / name / "watch.jsonl") for name in ("one", "two"))
    assert [look["step"] for look in one] == [look["step"] for look in two]
    for key in ("loss/click", "loss/buy", "auc/click", "normalised_entropy/click"):
        assert [look[key] for look in two] == pytest.approx([look[key] for look in one], rel=1e-3), key
    assert all(look["seconds/communication"] > 0 for look in two)


def test_a_trained_model_is_taken_up_by_other_looks(spec, data, run, tmp_path):
    """[train.watch] is no part of what a model is made of."""
    mine = shutil.copytree(run, tmp_path / "run")
    best = trainer.train(watched(spec, every=1, epochs=spec.train.epochs), data, mine, progress=Silent())
    assert best in json.loads((run / "history.json").read_text())
