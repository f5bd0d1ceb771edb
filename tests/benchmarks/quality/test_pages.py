"""The pages suites fill: marks, tables, what is said about differences; and those that ship."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import quality
from benchmarks.quality import PageContent, ablation, census, home, kuairand
from benchmarks.quality import page as pages
from benchmarks.quality import statistics as figures
from features.checks import sample as sampled
from rec import spec as specs
from rec.atomic import write_json
from rec.errors import SpecError
from rec.evaluation.classification import auc
from rec.progress import Silent
from tests import ROOT
from tests.benchmarks.quality.test_suites import TEXT, Told
from tests.conftest import SHOP

GATES = {"weights": [[0.6, 0.4], [0.1, 0.9]], "entropy": [0.9, 0.5], "rows": ["click", "like"], "experts": ["a", "b"]}
HEALTH = {
    "levels": [
        {
            "experts": [{"expert": "a", "near_zero": 0.2}, {"expert": "b", "near_zero": 0.4}],
            "gates": [
                {
                    "name": "gates",
                    **GATES,
                    "taken": [{"expert": "b", "by": "like", "share": 0.7, "weight": 0.9, "gates": 2}],
                    "own": [{"task": "like", "experts": 1, "share": 0.1, "even": 0.5}],
                }
            ],
        }
    ],
    "findings": [{"anomaly": "underfitting", "level": 1, "text": ""}],
}


def test_a_page_is_filled_between_its_marks_and_again():
    """Prose stays, and the second time changes nothing."""
    once = pages.filled(TEXT, {"auc": "| a |"}, "shop.md")
    assert once == "# Shop\n\n<!-- table: auc -->\n\n| a |\n\n<!-- end -->\n\nProse stays.\n"
    assert pages.filled(once, {"auc": "| a |"}, "shop.md") == once
    assert "| b |" in pages.filled(once, {"auc": "| b |"}, "shop.md")


def test_a_page_without_a_mark_is_an_error(tmp_path):
    """A table without a place, a place without a table, and no page at all; nothing is written."""
    with pytest.raises(SpecError, match=r"shop.md: no line '<!-- table: rates -->' with '<!-- end -->' below it"):
        pages.filled(TEXT, {"auc": "", "rates": ""}, "shop.md")
    with pytest.raises(SpecError, match=r"shop.md: nothing measures the table 'auc'; did you mean 'aucs'\?"):
        pages.filled(TEXT + TEXT.replace("auc", "aucs"), {"aucs": ""}, "shop.md")
    with pytest.raises(SpecError, match="no such page"):
        pages.write(tmp_path / "x.md", "shop", PageContent({}, {"x.svg": "<svg/>"}), Silent())
    assert list(tmp_path.iterdir()) == []


def test_a_models_page_keeps_a_table_of_every_suite(tmp_path):
    """Below its mark, one after the other; a suite replaces its own, and a page that is missing is named."""
    (tmp_path / "measured").mkdir()
    (tmp_path / "models").mkdir()
    page, model = tmp_path / "measured" / "shop.md", tmp_path / "models" / "mmoe.md"
    page.write_text(TEXT)
    model.write_text("# MMoE\n\n## Measured\n\n<!-- measured -->\n\n## Source\n")
    progress = Told()
    for suite, table in (("census", "| 1 |"), ("shop", "| 2 |"), ("census", "| 3 |")):
        pages.write(page, suite, PageContent({"auc": ""}, {}, {"mmoe": table, "ple": table}), progress)
    assert re.findall(r"table: (\w+) -->\n\n\| (\d)", model.read_text()) == [("census", "3"), ("shop", "2")]
    assert model.read_text().endswith("<!-- end -->\n\n## Source\n")
    assert progress.lines[0].endswith("ple.md: not there, left out")
    model.write_text("# MMoE\n")
    with pytest.raises(SpecError, match=r"mmoe.md: no line '<!-- measured -->'"):
        pages.write(page, "census", PageContent({"auc": ""}, {}, {"mmoe": ""}), progress)


def test_a_difference_is_taken_seed_by_seed():
    """What moves both rows alike is no spread of their difference; an interval without 0 is bold."""
    ours, other = [0.71, 0.81, 0.91], [0.70, 0.80, 0.90]
    change = figures.difference(ours, other)
    assert (change.mean, change.high - change.low, change.clear) == (pytest.approx(0.01), pytest.approx(0), True)
    assert str(change) == "**+0.0100** [+0.0100, +0.0100]"
    noisy = figures.difference([0.72, 0.80, 0.90], other)
    half = 4.303 * math.sqrt(((0.02 - 0.02 / 3) ** 2 + 2 * (0.02 / 3) ** 2) / 2) / math.sqrt(3)
    assert (noisy.mean, noisy.high - noisy.mean) == (pytest.approx(0.02 / 3), pytest.approx(half))
    assert not noisy.clear
    assert figures.difference([0.5], [0.4]) is None
    assert figures.difference([0.5, None], [0.4, 0.4]) is None


def test_the_error_of_an_auc_is_what_chance_does_to_it():
    """Against the deviation over drawn test sets, with exponential scores, for which the formula is exact."""
    random = np.random.default_rng(1)
    label = np.r_[np.ones(40), np.zeros(200)]
    marks = []
    for _ in range(2000):
        # P(positive above negative) = 0.75
        score = np.r_[random.exponential(3.0, 40), random.exponential(1.0, 200)]
        marks.append(auc(score, label))
    assert np.mean(marks) == pytest.approx(0.75, abs=0.005)
    assert np.std(marks) == pytest.approx(figures.standard_error(0.75, 40, 200), rel=0.05)


def invented(rows: dict[str, str], outputs: list[str], seeds: int) -> dict[str, list[dict]]:
    """Results as trainings leave them: every row a hundredth better than the one before, every seed a thousandth."""

    def result(place: int, seed: int) -> dict:
        figures = {"gauc": None, "positives": 100, "candidates": 1000}
        auc = {name: {**figures, "auc": 0.5 + place / 100 + seed / 1000} for name in outputs}
        return {
            "model": {"name": list(rows.values())[place]},
            "seed": seed,
            "best": 3,
            "validation": dict.fromkeys(outputs, 0.5),
            "epochs": [{"epoch": 1, "seconds": 1.5}],
            "weights": {"dense": 1000, "tables": 2000},
            "report": {"outputs": auc, "health": HEALTH},
        }

    return {row: [result(place, seed) for seed in range(seeds)] for place, row in enumerate(rows)}


def made_of(folder: Path, tasks: list[str]) -> dict[str, quality.SuiteData]:
    """Tables of which there is only the card."""
    counts = {"observed": dict.fromkeys(tasks, 1000), "positives": dict.fromkeys(tasks, 100)}
    write_json(folder / "manifest.json", {"counts": dict.fromkeys(("train", "validation", "test"), counts)})
    return dict.fromkeys(("", "two", "three", "plain"), quality.SuiteData(specs.parse(SHOP), folder))


MODELS = {
    name: name
    for name in ("single_task", "shared_bottom", "mmoe", "ml_mmoe", "ple", "adatt_sp", "adatt", "home", "gbdt")
}
PAGES = {
    "census": ({**MODELS, "2 tasks: mmoe": "mmoe"}, list(census.TASKS)),
    "kuairand": (MODELS, [*kuairand.TASKS, *kuairand.GIVEN]),
    "home": ({row: name for row, (name, _) in home.FORMS.items()}, list(kuairand.TASKS)),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_ships_has_a_place_for_every_table(name, tmp_path):
    """And no place for none; what is drawn is what the page shows; and a part of the rows makes a page, too."""
    rows, outputs = PAGES[name]
    for seeds, shown in ((3, rows), (1, dict(list(rows.items())[1:3]))):
        page = quality.get(name).page(invented(shown, outputs, seeds), made_of(tmp_path, outputs))
        text = (ROOT / "docs" / "measured" / f"{name}.md").read_text()
        filled = pages.filled(text, page.tables, f"{name}.md")
        assert set(re.findall(r"\]\(([\w-]+\.svg)\)", filled)) == set(page.plots)
        assert filled.isascii()
        assert "nan" not in filled
        assert set(page.models) <= set(rows.values())


def test_a_sparse_task_is_judged_by_its_differences():
    """Every invented row is a hundredth above the one before, with every seed: all are clearly better."""
    rows, outputs = PAGES["kuairand"]
    lines = kuairand.sparse(invented(rows, outputs, 3))
    assert (
        "| `like` | home **+0.0600** [+0.0600, +0.0600] | 6 of 6: mmoe; ml_mmoe; ple; adatt_sp; adatt; home |" in lines
    )


def test_a_users_own_rate_ranks_his_past_the_wrong_way_round():
    """Over all candidates a click has a higher rate than two of three others, inside its user than one of two."""
    rate, user = pa.array([0.2, 0.9, 0.5, 0.1]), pa.array([7, 7, 7, 8])
    context = {"user_id": user, "user_click_ever": rate, "user_like": rate}
    label, none = pa.array([0, 0, 1, 0], pa.int8()), pa.array([None] * 4, pa.float32())
    candidates = {"click": label, "like": label, "video_click_ever": none, "video_like": rate}
    sample = sampled.Sample(context, candidates, np.zeros(4, np.int64), np.arange(4))
    aucs = ablation.alone(specs.load(ablation.SPEC), sample)
    assert "| `user_click_ever`, for `click` | 0.6667 | 0.5000 |" in aucs
    assert "| `video_click_ever`, for `click` | n/a | n/a |" in aucs


def test_what_adatt_was_expected_to_do_is_said_either_way():
    """Better, worse, or within the spread."""
    results = invented(MODELS, list(census.TASKS), 3)
    assert "| adatt - ple | **+0.0200** [+0.0200, +0.0200] | better |" in census.expected(results)
    results["ple"], results["adatt"] = results["adatt"], results["ple"]
    assert "| adatt - ple | **-0.0200** [-0.0200, -0.0200] | worse |" in census.expected(results)
    results["adatt"] = results["ple"][::-1]
    assert "| adatt - ple | +0.0000 [-0.0050, +0.0050] | within the spread of seeds |" in census.expected(results)


def test_health_is_counted_over_gates_and_experts():
    """Of the invented training: near-zero 0.2 and 0.4, entropies 0.9 and 0.5, weights up to 0.9, and so on."""
    text = home.health(invented({"home": "home"}, ["click"], 2))
    figures = ["0.30", "0.40", "0.70", "0.90", "0.20", "0.70"]
    assert text.splitlines()[-1] == "| home | " + " | ".join(f"{figure} +- 0.00" for figure in figures) + " |"
    assert home.findings(invented({"home": "home"}, ["click"], 2)).endswith("| home | 0.0 | 0.0 | 1.0 |")


def test_a_bar_in_a_name_does_not_end_its_cell():
    """A conditional output is called `buy|click`, and Markdown would see two columns in it."""
    assert pages.table(["", "`buy|click`"], [["mmoe", "0.5"]]).splitlines()[0] == r"|  | `buy\|click` |"
