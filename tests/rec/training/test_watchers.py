"""Who watches: TensorBoard, MLflow, classes of other packages, and what is refused."""

from __future__ import annotations

import re

import pytest

from rec.errors import SpecError
from rec.progress import Silent
from rec.spec import Watching
from rec.training import trainer, watch_lines, watchers
from rec.training.watch import WatchedSteps
from rec.training.watchers import Watchers
from tests.rec.training.watching import Said, watched


class Planted:
    """A watcher of another package, which remembers what it was told."""

    told: list[tuple] = []

    def __init__(self, folder, *, step):
        self.told.append(("made", folder.name, step))

    def step(self, step, figures):
        self.told.append(("step", step, dict(figures)))

    def validation(self, step, figures):
        self.told.append(("validation", step, dict(figures)))

    def close(self):
        self.told.append(("close",))


class Broken(Planted):
    """A watcher whose server is gone."""

    def step(self, step, figures):
        raise OSError("no route to host")


def test_a_watcher_of_another_package_is_told_everything(spec, data, tmp_path):
    """Looks, validations and the end, in order."""
    Planted.told.clear()
    shown = watched(spec, every=4, epochs=1, watchers=["tests.rec.training.test_watchers:Planted"])
    trainer.train(shown, data, tmp_path / "run", progress=Silent())
    kinds = [entry[0] for entry in Planted.told]
    assert kinds == ["made", *["step"] * (len(kinds) - 3), "validation", "close"]
    assert Planted.told[0] == ("made", "run", 0)
    assert {"auc/click", "train_loss/buy"} <= set(Planted.told[-2][2])


def test_a_watcher_that_raises_is_dropped_with_a_line(spec, data, tmp_path):
    """Training does not end because a server of figures is gone."""
    said = Said()
    shown = watched(spec, every=4, watchers=["tests.rec.training.test_watchers:Broken"])
    trainer.train(shown, data, tmp_path / "run", progress=said)
    expected = "Broken stopped watching: OSError: no route to host; training goes on without it"
    assert [line for line in said.lines if "watching" in line] == [expected]


def test_a_figure_that_is_no_number_is_left_out(spec, data, tmp_path):
    """A validation of a task with one class has no AUC."""
    Planted.told.clear()
    entry = {"step": 1, "train": {"loss": {"click": 0.5}}, "validation": {"click": {"auc": None, "log_loss": 0.25}}}
    watched_steps = WatchedSteps.__new__(WatchedSteps)
    watched_steps._watchers = Watchers([Planted(tmp_path, step=0)], print)
    watched_steps.validation(entry)
    assert Planted.told[-1] == ("validation", 1, {"log_loss/click": 0.25, "train_loss/click": 0.5})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("theirs", "train.watch.watchers: no watcher 'theirs'; none is installed"),
        ("tests.rec.training.test_watchers:Plantd", "no class 'Plantd'; did you mean 'Planted'?"),
        ("tests.rec.training.watching:Said", "expected a method 'step'"),
    ],
)
def test_a_watcher_that_is_none_is_refused(name, message):
    """Before anything is trained."""
    with pytest.raises(SpecError, match=re.escape(message)):
        watchers.check(Watching(watchers=[name]))


@pytest.mark.parametrize(("setting", "value", "extra"), [("tensorboard", True, "watch"), ("mlflow", "x", "mlflow")])
def test_a_missing_library_says_what_installs_it(setting, value, extra, monkeypatch):
    """Before anything is trained, with the extra that brings it."""
    monkeypatch.setattr(watchers, "find_spec", lambda _: None)
    message = f"train.watch.{setting}: {setting} is not installed; `pip install 'multigate[{extra}]'` installs it"
    with pytest.raises(SpecError, match=re.escape(message)):
        watchers.check(Watching(**{setting: value}))


def test_tensorboard_files_have_looks_and_validations(spec, data, tmp_path):
    """Read back by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer.train(watched(spec, every=2, tensorboard=True), data, tmp_path / "run", progress=Silent())
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    read.Reload()
    looks = watch_lines.read(tmp_path / "run" / "watch.jsonl")
    loss = [(event.step, event.value) for event in read.Scalars("loss/click")]
    assert loss == [(look["step"], pytest.approx(look["loss/click"])) for look in looks]
    assert len(read.Scalars("validation/auc/click")) == 2


def test_an_mlflow_run_has_looks_and_validations_and_goes_on(spec, data, tmp_path, monkeypatch):
    """A local file store; more epochs of a finished run are of the same MLflow run."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "mlruns").as_uri()
    for epochs in (1, 2):
        trainer.train(watched(spec, every=4, epochs=epochs, mlflow=uri), data, tmp_path / "run", progress=Silent())
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tiny-shop").experiment_id])
    looks = watch_lines.read(tmp_path / "run" / "watch.jsonl")
    loss = client.get_metric_history(run.info.run_id, "loss/click")
    assert [(m.step, m.value) for m in loss] == [(look["step"], look["loss/click"]) for look in looks]
    assert len(client.get_metric_history(run.info.run_id, "validation/auc/buy given click")) == 2
    assert run.info.status == "FINISHED"
    assert (run.data.params["batch"], run.data.params["model"]) == ("256", "mmoe")
