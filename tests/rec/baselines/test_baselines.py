from __future__ import annotations

import importlib.util
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rec import baselines, models
from rec.atomic import read_json, write_bytes
from rec.baselines import popularity
from rec.data import preprocessor, splits
from rec.errors import BundleError, InstallationError, SpecError
from rec.progress import Silent
from rec.spec import Spec
from rec.spec.registry import BASELINES
from rec.training import baseline_run, trainer
from rec.training.beginning import Beginning
from rec.training.run import evaluate_run, load_run, sizes
from rec.trees.matrix import SessionTables
from tests.baselines import as_baseline


def test_the_names_are_the_files():
    """What rec/models knows to be no network of its own; a slip of the pen is led to it."""
    assert tuple(baselines.names()) == BASELINES
    with pytest.raises(SpecError, match=r"no model 'gbtd': .*did you mean 'gbdt'\?"):
        models.configured({"name": "gbtd"})
    with pytest.raises(SpecError, match=r"model\.name: 'gbdt' is a baseline .*, and what is asked for is a network"):
        models.configured({"name": "gbdt"})


def test_a_run_is_read_like_that_of_a_network(baseline, data):
    """A report of every output, better than chance, the same twice; P(buy) is P(click) P(buy | click)."""
    report = evaluate_run(baseline, data, split="test", progress=Silent())
    assert list(report["outputs"]) == ["click", "buy", "buy|click"]
    assert report["outputs"]["click"]["auc"] > 0.55
    assert report == evaluate_run(baseline, data, split="test", progress=Silent())
    (entry,) = read_json(baseline / "history.json")
    assert entry["validation"]["click"]["normalised_entropy"] < 1
    assert sizes(baseline)["dense"] > 0
    with pytest.raises(BundleError, match=f"expected a network, got a '{baseline.name}'"):
        load_run(baseline)


def test_no_network_starts_from_a_baseline(spec, data, baseline, tmp_path):
    """It is said what the run is, not that its files are broken."""
    with pytest.raises(BundleError, match=f"expected a network to start from, got a '{baseline.name}', which has no"):
        trainer.train(spec, data, tmp_path / "new", progress=Silent(), start=Beginning(baseline))
    assert not (tmp_path / "new").exists()


def test_a_changed_file_of_a_run_is_refused(baseline, tmp_path):
    """The manifest has the digest of every file; one that vouches for nonsense is told too."""
    copy = Path(shutil.copytree(baseline, tmp_path / "run"))
    write_bytes(copy / "checkpoint/best/model.json", b"{}")
    with pytest.raises(BundleError, match=r"model\.json has 2 bytes, the manifest says"):
        baseline_run.load(copy)


def test_training_again_gives_the_same_and_a_finished_run_stays(spec, data, baseline, tmp_path):
    """Bit by bit, with any number of threads."""
    again = as_baseline(spec, baseline.name, threads=2)
    trainer.train(again, data, tmp_path / "again", progress=Silent())
    names = sorted(file.name for file in (baseline / "checkpoint/best").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "again/checkpoint/best").iterdir())
    for name in set(names) - {"manifest.json"}:
        mine, theirs = (
            (folder / "checkpoint/best" / name).read_text("latin1") for folder in (baseline, tmp_path / "again")
        )
        assert _learnt(mine) == _learnt(theirs), name
    before = (tmp_path / "again/history.json").read_bytes()
    trainer.train(again, data, tmp_path / "again", progress=Silent())
    assert (tmp_path / "again/history.json").read_bytes() == before


def _learnt(text: str) -> str:
    """A text model without the list of parameters, in which the number of threads stands."""
    return text.partition("\nparameters:")[0]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"processes": 2}, "--procs: 'gbdt' is trained by one process"),
        ({"start": True}, "--from: 'gbdt' starts from nothing"),
        ({"profiled": True}, "--profile: 'gbdt' has no steps"),
        ({"until": True}, "--until: 'gbdt' has no epochs"),
        ({"plan": True}, "--plan: 'gbdt' has no embedding tables"),
    ],
)
def test_what_only_networks_do_is_refused_in_a_sentence(spec, option, words):
    """Not done in another way, and not passed over."""
    with pytest.raises(SpecError, match=words):
        baseline_run.refuse(as_baseline(spec, "gbdt"), **option)


def test_days_one_by_one_and_unknown_settings_are_refused(spec):
    """As for networks, the nearest key is named."""
    daily = as_baseline(spec, "gbdt").model_copy(
        update={"train": spec.train.model_copy(update={"mode": "progressive"})}
    )
    with pytest.raises(SpecError, match=r"train\.mode: 'progressive' is for networks"):
        baselines.validate(daily)
    with pytest.raises(SpecError, match=r"model\.leafs: .*leaves"):
        baselines.validate(spec.model_copy(update={"model": {"name": "gbdt", "leafs": 3}}))


def test_a_missing_library_is_named_with_what_installs_it(spec, monkeypatch):
    """Before anything is read, and for training alone."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("rec.baselines.gbdt.find_spec", lambda name: None)
    wanted = as_baseline(spec, "gbdt")
    baselines.validate(wanted)
    with pytest.raises(InstallationError, match=r"needs lightgbm .*`pip install 'multigate\[gbdt\]'` installs it"):
        baselines.validate(wanted, trained_here=True)


def test_popularity_is_the_rate_counted_by_hand(spec: Spec, data, popular):
    """(clicks + 20 base) / (shown + 20) of every item, the best of its task on validation; children where clicked."""
    fitted = baseline_run.load(popular)
    about = read_json(popular / "checkpoint/best/model.json")["tasks"]
    assert {(of["feature"], of["make"]) for of in about["click"]["others"]} >= {
        ("item_id", "rows"),
        ("item_shown", "powers"),
        ("item_click", "declared"),
    }
    figures = [of["normalised_entropy"] for of in about["click"]["others"]]
    best = about["click"]["others"][int(np.argmin(figures))]
    assert (about["click"]["feature"], about["click"]["make"]) == (best["feature"], best["make"])
    own = as_baseline(spec, "popularity")
    learnt = preprocessor.load(own, data / "fitted")
    shown: Counter[int] = Counter()
    clicked: Counter[int] = Counter()
    for rows in splits.read(data, "train", own):
        for candidates in rows["candidates"].to_pylist():
            for candidate in candidates:
                shown[candidate["item_id"]] += candidate["click"] >= 0
                clicked[candidate["item_id"]] += candidate["click"] == 1
    rate = popularity.SingleRate("candidates", "item_id", "rows")
    assert rate in popularity.rates(own, own.tasks["click"])
    tables = SessionTables(data, own, learnt, Silent())
    (chosen,) = popularity._counted(tables, {"click": [rate]}, prior=20.0)["click"]
    base = (sum(clicked.values()) + 1) / (sum(shown.values()) + 2)
    vocabulary = learnt.encoders["item_id"].values.to_pylist()
    by_hand = [(clicked[item] + 20 * base) / (shown[item] + 20) for item in vocabulary]
    np.testing.assert_allclose(chosen.values[1:], by_hand, rtol=1e-6)
    assert fitted.model.numbers() > 0
