"""The suite that knows the truth: errors are those of their formulas, over the candidates they name; its page."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import quality
from benchmarks.quality import SuiteData, shop
from benchmarks.quality import page as pages
from features import sources
from features.pipeline import build
from rec import spec as specs
from rec.atomic import write_json
from rec.data import preprocessor, splits
from rec.progress import Silent
from rec.spec.registry import BASELINES
from rec.training import trainer
from tests import ROOT
from tests.conftest import SHOP

PAGE = ROOT / "docs" / "measured" / "shop.md"
KEPT = 'p_click = { kind = "kept", values = "float" }\np_buy = { kind = "kept", values = "float" }\n'


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny shop with its truth carried along, and its session tables."""
    spec = specs.parse(SHOP.replace("[tasks.click]", f"{KEPT}[tasks.click]"))
    data = tmp_path_factory.mktemp("truth") / "data"
    build.build(spec, sources.read(spec, Path()), data, progress=Silent())
    return spec, data


def shown(spec, data):
    """Every candidate of the test split as a Python row."""
    return [c for rows in splits.read(data, "test", spec) for row in rows.to_pylist() for c in row["candidates"]]


def test_errors_are_their_formulas():
    """One candidate at a time; nothing is wrong with the truth itself."""
    served, truth = [0.2, 0.5, 0.9], [0.1, 0.5, 1e-3]
    measured = shop.errors(np.array(served), np.array(truth))
    pairs = list(zip(served, truth, strict=True))
    assert measured["bias"] == pytest.approx(sum(p - t for p, t in pairs) / 3)
    assert measured["absolute"] == pytest.approx(sum(abs(p - t) for p, t in pairs) / 3)
    divergence = sum(t * math.log(t / p) + (1 - t) * math.log((1 - t) / (1 - p)) for p, t in pairs) / 3
    assert measured["divergence"] == pytest.approx(divergence)
    right = shop.errors(np.array(truth), np.array(truth))
    assert right["bias"] == right["absolute"] == right["divergence"] == 0
    assert math.isfinite(shop.errors(np.array([0.0, 1.0]), np.array([0.1, 0.1]))["divergence"])


def test_what_is_served_stands_beside_the_truth_of_the_same_candidate(tiny):
    """The true conditional rate is that of both over that of a click; requests of any size."""
    spec, data = tiny
    learnt = preprocessor.load(spec, data / "fitted")

    def score(batch):
        return {"buy|click": 1 / (1 + np.exp(-batch.candidates["price"]))}

    comparison = shop.compared(spec, splits.read(data, "test", spec), learnt.encoders, score)
    rows = shown(spec, data)
    price = np.array([row["price"] for row in rows])
    np.testing.assert_allclose(comparison.served, 1 / (1 + np.exp(-price)), rtol=1e-5)
    np.testing.assert_allclose(comparison.truth, [row["p_buy"] / row["p_click"] for row in rows])
    np.testing.assert_array_equal(comparison.clicked, [row["click"] == 1 for row in rows])
    np.testing.assert_allclose(comparison.likely, [row["p_click"] for row in rows])


def test_deciles_go_from_the_least_to_the_most_likely_click():
    """Ten groups of one size, and the error of each: a constant is too high where few click, too low where many do."""
    likely = np.random.default_rng(1).permutation(np.linspace(0.01, 0.6, 105))
    truth = likely / 2
    deciles = shop.by_decile(shop.Compared(np.full(105, truth.mean()), truth, likely, likely > 0.5))
    assert [decile["candidates"] for decile in deciles] == [11] * 5 + [10] * 5
    assert [decile["likely"] for decile in deciles] == sorted(decile["likely"] for decile in deciles)
    bias = [decile["bias"] for decile in deciles]
    assert bias == sorted(bias, reverse=True)
    assert bias[0] > 0.1 > -0.1 > bias[-1]


@pytest.mark.slow
def test_a_training_is_measured_by_the_best_epoch_that_it_kept(tiny, tmp_path):
    """Clicked and unclicked candidates make up all of them; a trained rate is off by less than one half."""
    spec, data = tiny
    trainer.train(spec, data, tmp_path / "run", progress=Silent())
    measured = shop.measure(tmp_path / "run", data)
    every, clicked, unclicked = (measured["errors"][part] for part in shop.PARTS)
    rows = shown(spec, data)
    assert every["candidates"] == len(rows) == clicked["candidates"] + unclicked["candidates"]
    assert clicked["candidates"] == sum(row["click"] == 1 for row in rows)
    assert every["truth"] == pytest.approx(np.mean([row["p_buy"] / row["p_click"] for row in rows]))
    assert 0 < every["absolute"] < 0.5
    assert len(measured["deciles"]) == 10


def test_every_row_is_a_training_that_can_be_begun():
    """Of the two shops, which differ in what is hidden alone."""
    suite = quality.get("shop")
    results = {}
    for key, path in suite.specs.items():
        results[key] = SuiteData(specs.load(path, [*suite.overrides, *suite.changes.get(key, ())]), Path())
    assert results["hidden"].spec.source == {**results["shop"].spec.source, "hidden": 1.0}
    for row in suite.rows(results):
        spec = specs.parse(specs.dump(results[row.of].spec), overrides=row.overrides)
        assert (spec.tasks["buy"].space == "parent") == ("click space" in row.name)
        network = "single_task" if "alone" in row.name else "mmoe"
        assert spec.model["name"] == (row.name if row.name in BASELINES else network)


def invented(names, seeds):
    """Results as trainings leave them: every row a hundredth worse than the one before, every seed a thousandth."""

    def result(place, seed):
        off = place / 100 + seed / 1000
        figures = {"truth": 0.1, "served": 0.1 + off, "bias": off, "absolute": off, "divergence": off}
        return {
            "model": {"name": "mmoe"},
            "seed": seed,
            "best": 3,
            "epochs": [{"epoch": 1, "seconds": 1.5}],
            "weights": {"dense": 1000, "tables": 2000},
            "report": {"outputs": {name: {"auc": 0.6 + off} for name in shop.OUTPUTS}},
            "measured": {"errors": dict.fromkeys(shop.PARTS, figures), "deciles": [{"likely": 0.1, **figures}] * 10},
        }

    return {name: [result(place, seed) for seed in range(seeds)] for place, name in enumerate(names)}


def test_the_page_that_ships_has_a_place_for_every_table(tmp_path):
    """And no place for none; what is drawn is what the page shows; and a part of the rows makes a page, too."""
    counts = {"observed": dict.fromkeys(("click", "buy"), 1000), "positives": dict.fromkeys(("click", "buy"), 100)}
    write_json(tmp_path / "manifest.json", {"counts": dict.fromkeys(("train", "validation", "test"), counts)})
    shops = dict.fromkeys(("shop", "hidden"), SuiteData(specs.parse(SHOP), tmp_path))
    names = [row.name for row in quality.get("shop").rows(shops)]
    for seeds, some in ((3, names), (1, names[1:4]), (2, ["esmm"])):
        page = quality.get("shop").page(invented(some, seeds), shops)
        filled = pages.filled(PAGE.read_text(), page.tables, "shop.md")
        assert set(re.findall(r"\]\(([\w-]+\.svg)\)", filled)) == set(page.plots)
        assert filled.isascii()
        assert "nan" not in filled
        assert set(page.models) <= {"esmm", "escm2_ips", "escm2_dr", "aitm", "dcmt"}


def test_the_size_of_a_bias_is_compared_and_not_its_sign():
    """As far below the truth as another is above it is no better."""
    results = invented([shop.REFERENCE, "esmm"], 3)
    for seed, result in enumerate(results["esmm"]):
        result["measured"]["errors"]["all"]["bias"] = -seed / 1000
    rows = shop.against(results)
    assert "| esmm | +0.0000 [+0.0000, +0.0000] | **+0.0100** [+0.0100, +0.0100] |" in rows
