"""Suites at tiny size: rows by seeds in processes of their own, kept, gone on with, and written into pages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import quality
from benchmarks.quality import PageContent, Suite, Variant, runner, statistics, tables
from pipelines.cli.main import main
from rec import spec as specs
from rec.atomic import read_json
from rec.errors import SpecError
from rec.progress import Silent
from tests.conftest import SHOP

SMALL, LARGE = Variant("small", ("model.experts=1",)), Variant("large one", ("model.experts=3", "train.epochs=1"))
TEXT = "# Shop\n\n<!-- table: auc -->\n<!-- end -->\n\nProse stays.\n"


class Told(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def measured(run: Path, data: Path) -> dict[str, int]:
    """A measure: how many epochs a run went, and that the data is there."""
    return {"epochs": len(read_json(run / "history.json")), "data": int((data / "manifest.json").exists())}


def suite_of(folder: Path, *rows: Variant) -> Suite:
    """A suite of the tiny shop with these rows."""
    path = folder / "spec.toml"
    path.write_text(SHOP)
    return Suite(
        specs={"": path},
        seeds=2,
        rows=lambda _: rows,
        page=lambda results, _: PageContent({"auc": tables.quality(results, ["click"])}, {"auc.svg": "<svg/>"}),
        measure="tests.benchmarks.quality.test_suites:measured",
    )


def run(suite: Suite, folder: Path, *, rows=(), seeds=2, always=False) -> tuple[dict, list[str]]:
    """What `--suite` does, and what was said meanwhile."""
    progress, page = Told(), folder / "docs" / "measured" / "shop.md"
    options = {"rows": rows, "seeds": seeds, "jobs": 2, "page": page, "always": always}
    return runner.run("shop", suite, out=folder / "out", progress=progress, **options), progress.lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder where a suite of two rows and two seeds has run, and its answer."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "docs" / "measured").mkdir(parents=True)
    page = folder / "docs" / "measured" / "shop.md"
    page.write_text(TEXT)
    answer, lines = run(suite_of(folder, SMALL, LARGE), folder)
    return folder, answer, lines


@pytest.mark.slow
def test_every_row_is_trained_with_every_seed(finished):
    """A result per row and seed, and the table is the mean and deviation of what they hold."""
    folder, answer, _ = finished
    results = {path.stem: read_json(path) for path in (folder / "out" / "results").glob("*.json")}
    assert set(results) == {"small-1", "small-2", "large-one-1", "large-one-2"}
    assert [row["row"] for row in answer["auc"]] == ["small", "large one"]
    auc = [results[f"small-{seed}"]["report"]["outputs"]["click"]["auc"] for seed in (1, 2)]
    assert auc[0] != auc[1]
    assert answer["auc"][0]["click"] == statistics.spread(auc)
    assert answer["failed"] is None


@pytest.mark.slow
def test_a_result_says_what_was_trained_and_measured(finished):
    """Its settings, its size, its epochs, and what the suite's own measure returned."""
    folder, _, _ = finished
    result = read_json(folder / "out" / "results" / "large-one-2.json")
    assert (result["row"], result["seed"], result["model"]["experts"]) == ("large one", 2, 3)
    assert len(result["epochs"]) == 1
    assert result["measured"] == {"epochs": 1, "data": 1}
    smaller = read_json(folder / "out" / "results" / "small-2.json")["weights"]
    assert result["weights"]["dense"] > smaller["dense"]
    assert result["weights"]["tables"] == smaller["tables"] > 0


@pytest.mark.slow
def test_a_finished_suite_trains_nothing_again(finished):
    """The same command once more touches no result and changes no page."""
    folder, answer, _ = finished
    files = sorted([*(folder / "out" / "results").iterdir(), *(folder / "docs").rglob("*.*")])
    before = {path: (path.stat().st_mtime_ns if path.suffix == ".json" else path.read_bytes()) for path in files}
    again, _ = run(suite_of(folder, SMALL, LARGE), folder)
    assert again == answer
    assert before == {p: (p.stat().st_mtime_ns if p.suffix == ".json" else p.read_bytes()) for p in files}


@pytest.mark.slow
def test_an_interrupted_suite_goes_on(finished, tmp_path):
    """A result that is missing is made from the training that is there; a row that changed is trained again."""
    folder, answer, _ = finished
    results = shutil.copytree(folder, tmp_path / "copy") / "out" / "results"
    lost = results / "small-1.json"
    before = lost.read_text()
    lost.unlink()
    changed = Variant("large one", ("model.experts=2", "train.epochs=1"))
    again, lines = run(suite_of(tmp_path / "copy", SMALL, changed), tmp_path / "copy")
    # the seconds of its epochs are those of the first time: it was judged again, not trained again
    assert lost.read_text() == before
    assert read_json(results / "large-one-1.json")["model"]["experts"] == 2
    assert again["auc"][0] == answer["auc"][0]
    assert sorted(line.split(":")[0] for line in lines if ", seed " in line) == [
        "large one, seed 1",
        "large one, seed 2",
        "small, seed 1",
    ]


@pytest.mark.slow
def test_a_failing_training_stops_no_other(finished):
    """It is named with its row, its seed and its last words; the others are there, and no page is written."""
    folder, answer, _ = finished
    wrong = Variant("wrong", ("model.expertz=3",))
    page = folder / "docs" / "measured" / "shop.md"
    before = page.read_text()
    again, lines = run(suite_of(folder, wrong, SMALL, LARGE), folder)
    assert again["failed"].startswith("2 of 6 trainings failed")
    assert "wrong, seed 1 (" in again["failed"]
    assert "model.expertz: unknown" in again["failed"]
    assert "did you mean 'experts'?" in again["failed"]
    assert any(line.startswith("wrong, seed 2: failed: ") for line in lines)
    assert again["auc"] == answer["auc"]
    assert again["pages"] == []
    assert page.read_text() == before


@pytest.mark.slow
def test_some_rows_can_be_asked_for(finished):
    """Only these are shown; a name that is no row is an error with the nearest one."""
    folder, answer, _ = finished
    suite, page = suite_of(folder, SMALL, LARGE), folder / "docs" / "measured" / "shop.md"
    before = page.read_text()
    some, _ = run(suite, folder, rows=["large one"])
    assert some["auc"] == answer["auc"][1:]
    assert page.read_text() == before
    assert "small" in before
    run(suite, folder, rows=["large one"], always=True)
    assert "small" not in page.read_text()
    run(suite, folder)
    assert page.read_text() == before
    with pytest.raises(SpecError, match=r"--rows smal: no such row: small, large one; did you mean 'small'\?"):
        run(suite, folder, rows=["smal"])


def test_an_unknown_suite_is_an_error():
    """With the suites there are."""
    with pytest.raises(SpecError, match=r"--suite sensus: no such suite: ablation, census.*; did you mean 'census'\?"):
        quality.get("sensus")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a SPEC or --suite NAME"),
        (["x.toml", "--suite", "census"], "give either a SPEC or --suite NAME"),
        (["x.toml", "--rows", "mmoe"], "belong to a --suite"),
        (["--suite", "census", "--set", "train.lr=1"], "--set changes a SPEC"),
    ],
)
def test_a_spec_and_a_suite_exclude_each_other(arguments, message, capsys):
    """Exit code 2, and a sentence."""
    with pytest.raises(SystemExit) as left:
        main(["bench", "quality", *arguments])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_settings_become_one_override():
    """A whole [model] is replaced, nested tables and lists too."""
    settings = {"name": "home", "levels": [[8], [4]], "mask": False, "dropout": 0.5, "groups": {"a": ["click"]}}
    assert specs.parse(SHOP, overrides=[quality.model(settings)]).model == settings
