"""Progressive training: every day is evaluated before it is learnt, once, in order, and a killed run goes on."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from rec import spec as specs
from rec.data import days as calendar
from rec.data import loader, preprocessor, splits
from rec.data.loader import Share
from rec.errors import SpecError
from rec.progress import Silent
from rec.training import checkpoint, progressive, tensor_folder, trainer
from tests.rec.training.ranks import on_ranks


@pytest.fixture(scope="module")
def daily(spec):
    """The tiny shop, day by day."""
    return specs.parse(specs.dump(spec), overrides=["train.mode=progressive", "train.batch=64", "train.lr=0.01"])


@pytest.fixture(scope="module")
def trained(daily, data, tmp_path_factory):
    """It, trained in one process."""
    folder = tmp_path_factory.mktemp("progressive") / "run"
    trainer.train(daily, data, folder, progress=Silent())
    return folder


def weights(folder):
    """Every tensor of the newest checkpoint."""
    return {k: v.numpy().tobytes() for k, v in tensor_folder.tensors(checkpoint.steps(folder)[-1])}


def pages(folder):
    """progressive.json."""
    return json.loads((folder / "progressive.json").read_text())


def test_the_days_of_a_split_are_its_rows_by_date(spec, data):
    """Together they have every request once, whatever the order of the rows inside a record batch."""
    whole = pa.Table.from_batches(list(splits.read(data, "train", spec)))
    dates = np.array([time.date().isoformat() for time in whole["time"].to_pylist()])
    days = calendar.days(data, "train", spec)
    assert [day.date for day in days] == sorted(set(dates))
    for day in days:
        mine = pa.Table.from_batches(list(day.read()))
        expected = whole.filter(pa.array(dates == day.date))
        assert mine.equals(expected)
        assert (day.requests, day.candidates) == (len(expected), len(expected["candidates"].combine_chunks().flatten()))
        shuffled = whole.take(np.random.default_rng(0).permutation(len(whole))).combine_chunks().to_batches()[0]
        assert sorted(day.of(shuffled)["request_id"].to_pylist()) == sorted(expected["request_id"].to_pylist())


def test_a_loader_of_one_day_reads_that_day_alone(spec, data):
    """And ranks share it as they share an epoch."""
    encoders = preprocessor.load(spec, data / "fitted").encoders
    day = calendar.days(data, "train", spec)[1]
    small = specs.parse(specs.dump(spec), overrides=["train.batch=64"])
    batches = list(loader.shuffled(data, small, encoders, epoch=2, day=day))
    assert sum(batch.candidates for batch in batches) == day.candidates
    shares = [list(loader.shuffled(data, small, encoders, epoch=2, day=day, share=Share(rank, 2))) for rank in range(2)]
    for whole, *parts in zip(batches, *shares, strict=True):
        assert sum(len(part.mine) for part in parts) == len(whole.mine) == whole.candidates


def test_every_day_is_evaluated_before_it_is_learnt_and_once(trained, daily, data):
    """The first before any step; each at the step where the one before ended."""
    days = calendar.days(data, "train", daily)
    page = pages(trained)
    assert [entry["day"] for entry in page] == [day.date for day in days]
    assert page[0]["step"] == 0
    for before, day, after in zip(page, days, page[1:], strict=False):
        assert after["step"] - before["step"] == max(1, round(day.candidates / daily.train.batch))
    assert all(entry["evaluated"]["click"]["candidates"] == entry["candidates"] for entry in page)
    assert all(entry["train"]["loss"]["click"] > 0 for entry in page)
    (last,) = json.loads((trained / "history.json").read_text())
    assert last["step"] == tensor_folder.state(trained / "checkpoint" / "best")["step"] > page[-1]["step"]
    assert last["validation"]["click"]["candidates"] > 0


def test_a_finished_progressive_run_is_not_trained_again(trained, daily, data):
    """Nothing is written."""
    before = {file: file.stat().st_mtime_ns for file in trained.rglob("*")}
    trainer.train(daily, data, trained, progress=Silent())
    assert {file: file.stat().st_mtime_ns for file in trained.rglob("*")} == before


class Interrupt(Silent):
    """A user who presses Ctrl-C in a stage, after some requests of it."""

    def __init__(self, stage, after=0):
        self.stage, self.left, self.inside = stage, after, False

    def start(self, what, total=None, unit=""):
        self.inside = what == self.stage

    def advance(self, units, **figures):
        self.left -= self.inside
        if self.inside and self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stage", ["{}", "evaluating {}"])
def test_an_interrupted_run_goes_on_in_the_same_day(trained, daily, data, tmp_path, stage):
    """Weights and figures are those of an unbroken run, bit for bit."""
    day = pages(trained)[2]["day"]
    often = specs.parse(specs.dump(daily), overrides=["train.checkpoint.steps=1"])
    with pytest.raises(KeyboardInterrupt):
        trainer.train(often, data, tmp_path / "run", progress=Interrupt(stage.format(day), 2 if stage == "{}" else 0))
    trainer.train(often, data, tmp_path / "run", progress=Silent())
    assert pages(tmp_path / "run") == pages(trained)
    assert weights(tmp_path / "run") == weights(trained)


def train_on_ranks(text, data, folder):
    """On as many ranks as there are."""
    trainer.train(specs.parse(text), data, folder, progress=Silent())


def test_several_processes_have_the_same_figures(trained, daily, data, tmp_path):
    """Day by day."""
    on_ranks(2, train_on_ranks, specs.dump(daily), data, tmp_path / "run")
    for one, two in zip(pages(trained), pages(tmp_path / "run"), strict=True):
        assert two["evaluated"]["click"]["auc"] == pytest.approx(one["evaluated"]["click"]["auc"], abs=1e-3)
        assert two["train"]["loss"] == pytest.approx(one["train"]["loss"], rel=1e-4)


def test_schedules_run_over_all_days(daily, data):
    """One step more or less a day, as for an epoch."""
    days = calendar.days(data, "train", daily)
    assert progressive.steps(days, 64) == sum(max(1, round(day.candidates / 64)) for day in days)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.validate_every=5", r"train\.validate_every: a progressive run is evaluated before each day"),
        ("train.mode=daily", r"train\.mode: expected 'epochs' or 'progressive', got 'daily'"),
    ],
)
def test_what_does_not_go_with_it_is_refused(daily, override, message):
    """In the spec, before anything is read."""
    with pytest.raises(SpecError, match=message):
        specs.parse(specs.dump(daily), overrides=[override])


def test_it_needs_the_time_of_a_request():
    """Days of what?"""
    text = 'name = "x"\n[split]\ncolumn = "s"\n[candidates]\ni = { kind = "id" }\n[tasks.c]\nlabel = "c"\n[train]\n'
    with pytest.raises(SpecError, match=r"train\.mode: 'progressive' needs keys\.time"):
        specs.parse(text + 'mode = "progressive"')
