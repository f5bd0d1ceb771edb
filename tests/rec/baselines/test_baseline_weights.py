"""Sample weights and left-out negatives in baselines: what is fitted, and what stops it."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pytest

from features import sources
from features.pipeline import build
from rec import spec as specs
from rec.atomic import read_json
from rec.data import splits
from rec.data.session_table import to_batch
from rec.progress import Silent
from rec.spec import Spec
from rec.training import trainer
from rec.training.run import load_score
from tests.baselines import as_baseline, trained

WEIGHT = "CASE WHEN position = 1 THEN 3 ELSE 1 END"
SHARE = 0.3  # of negatives that are learnt from


class Lines(Silent):
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """One more."""
        self.lines.append(line)


def tables(spec: Spec, folder: Path, weight: str) -> tuple[Spec, Path]:
    """The tiny shop with sample weights, and fewer negatives of clicks, and its session tables."""
    overrides = [f"train.sample_weight={weight!r}", f"tasks.click.negatives={SHARE}"]
    described = specs.parse(specs.dump(spec), overrides=overrides)
    build.build(described, sources.read(described, Path()), folder, progress=Silent())
    return described, folder


@pytest.fixture(scope="module")
def scaled(spec, tmp_path_factory) -> dict[float, tuple[Spec, Path]]:
    """The same weights on three scales."""
    folder = tmp_path_factory.mktemp("weights")
    return {scale: tables(spec, folder / f"{scale:g}", f"({WEIGHT}) * {scale:g}") for scale in (1.0, 1e-6, 1e4)}


@pytest.mark.parametrize("name", ["gbdt", "popularity"])
def test_only_ratios_of_sample_weights_matter(name, scaled, tmp_path):
    """Not to a penalty, a least sum of a leaf or a prior, which are set against weights of 1."""
    scores = {}
    for scale, (described, data) in scaled.items():
        run = trained(name, described, data, tmp_path / f"{scale:g}")
        _, learnt, score = load_score(run)
        rows = next(splits.read(data, "test", described))
        scores[scale] = score(to_batch(rows, described, learnt.encoders))
    assert scores[1.0]["click"].std() > 0.005
    for scale in (1e-6, 1e4):
        for output, value in scores[1.0].items():
            np.testing.assert_allclose(scores[scale][output], value, rtol=1e-3, err_msg=f"{scale:g} {output}")


def test_trees_stop_by_the_loss_of_what_is_served(scaled, tmp_path, monkeypatch):
    """Validation has all negatives, of which training saw some: the loss that stops them is that of the history."""
    losses = []
    train = lightgbm.train

    def kept(*settings, **more):
        booster = train(*settings, **more)
        losses.append(booster.best_score["validation"]["binary_logloss"])
        return booster

    monkeypatch.setattr(lightgbm, "train", kept)
    described, data = scaled[1.0]
    run = trained("gbdt", described, data, tmp_path)
    (entry,) = read_json(run / "history.json")
    figures = [entry["validation"][output]["log_loss"] for output in ("click", "buy|click")]
    assert losses == pytest.approx(figures, rel=1e-4)


def test_trees_that_nothing_stops_are_said(spec, tmp_path):
    """Without a click in validation there is no loss to stop by: as many trees as the spec allows."""
    before = "CAST(time AS DATE) < CAST('2026-03-08' AS DATE)"
    labels = [f'tasks.{name}.label="{name} AND {before}"' for name in ("click", "buy")]
    described = specs.parse(specs.dump(spec), overrides=labels)
    build.build(described, sources.read(described, Path()), tmp_path / "data", progress=Silent())
    said = Lines()
    trainer.train(as_baseline(described, "gbdt"), tmp_path / "data", tmp_path / "run", progress=said)
    assert "click: labels of validation do not differ, so that nothing stops its 30 trees" in said.lines
