"""Quantities all the way: log -> session table -> trained model -> bundle -> report, batch scores, online answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipelines.cli import output, run
from pipelines.report import tables
from rec.atomic import read_json
from rec.data import splits
from rec.errors import DataError
from rec.progress import Silent
from rec.spec.tasks import outputs
from rec.training import trainer
from serving import bundle as bundles
from serving.online.rank import RankService
from serving.scorer import Scorer, check_golden
from tests.conftest import SHOP
from tests.test_journey import body_of

STAY = """
[tasks.stay]
label = "CASE WHEN click = 1 THEN 300 * p_buy_given_click END"
predict = "ordinal"
given = "click"
window = "10m"
value = 0.1
"""
PULL = """
[tasks.pull]
label = "1000 * p_click"
predict = "{kind}"
"""
EVENTS, MODEL = SHOP.index("[tasks.click]"), SHOP.index("[model]")
MIXED = SHOP.replace("[model]", STAY + PULL.format(kind="quantile") + "[model]")
ALONE = "\n".join(
    line for line in (SHOP[:EVENTS] + PULL.format(kind="log") + SHOP[MODEL:]).splitlines() if "task =" not in line
)


@pytest.fixture(scope="module", params=[MIXED, ALONE], ids=["beside events", "alone"])
def out(request, tmp_path_factory) -> Path:
    """A run of every step on a tiny shop with quantities beside its events, or with nothing but one."""
    folder = tmp_path_factory.mktemp("amounts")
    (folder / "spec.toml").write_text(request.param)
    run.run(folder / "spec.toml", ["train.epochs=8", "train.lr=0.01"], folder / "out", Silent())
    return folder / "out"


@pytest.fixture(scope="module")
def opened(out):
    """Its bundle."""
    return bundles.load(out / "bundle")


def test_every_output_is_judged_as_what_it_is(out, opened, capsys):
    """Events by AUC, quantities by concordance, in a table each, on the terminal and on the page."""
    report = read_json(out / "report.json")
    described = opened.spec
    assert set(report["outputs"]) == set(outputs(described.tasks))
    for name, figures in report["outputs"].items():
        quantity = described.tasks[name.partition("|")[0]].predict != "event"
        assert ("concordance" in figures, "auc" in figures) == (quantity, not quantity)
    output.metrics(report, as_json=False)
    printed, page = capsys.readouterr().out, (out / "report.html").read_text()
    pull = tables.figure(report["outputs"]["pull"]["concordance"], ".4f")
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("pull ")] == [pull]
    assert f"<td>pull</td><td>{pull}</td>" in page
    assert 'aria-label="Reliability of pull"' in page
    assert ("concordance" in printed) + ("AUC" in printed.replace("GAUC", "")) == len(
        {*described.tasks} & {"click", "pull"}
    )


def test_a_quantity_is_learnt(out):
    """It follows from the user and the item: a model knows more of it than the best constant."""
    metrics = read_json(out / "report.json")["outputs"]["pull"]
    assert metrics["concordance"] > 0.62
    assert metrics["normalised_error"] < 0.95


def test_the_bundle_gives_what_torch_gave(opened):
    """To 1e-5 of amounts in the hundreds, absolutely of probabilities."""
    assert check_golden(Scorer(opened, threads=1)) <= 1e-5
    spread = opened.manifest["parity"]["spread"]
    assert spread["pull"] > 1.0


def test_batch_and_online_give_the_same_amounts_and_order(out, opened):
    """The fused score is the worth of what happens and of how much there is of it."""
    described = opened.spec
    table = pl.read_parquet(out / "scores" / "part-*.parquet")
    service = RankService(opened, Scorer(opened, threads=1), new_id=lambda: "none")
    rows = [row for block in splits.read(out / "data", "test", described) for row in block.to_pylist()]
    for row in [row for row in rows if row["candidates"]][:10]:
        online = json.loads(service.rank(body_of(row, described), 0).body)["candidates"]
        batch = table.filter(request_id=row["request_id"]).sort("rank")
        assert [c["item_id"] for c in online] == batch["candidates.item_id"].to_list()
        for name in outputs(described.tasks):
            np.testing.assert_allclose([c["tasks"][name] for c in online], batch[f"tasks.{name}"], rtol=1e-5, atol=1e-6)
        worth = sum(task.value * batch[f"tasks.{name}"].cast(pl.Float64) for name, task in described.tasks.items())
        np.testing.assert_allclose(batch["score"], worth, rtol=1e-6)


def test_labels_of_quantities_are_numbers_in_the_table(out, opened):
    """As the label says, and 0 where the parent did not happen, though the label is null there."""
    split = splits.read(out / "data", "test", opened.spec)
    rows = [candidate for block in split for candidate in block["candidates"].values.to_pylist()]
    counts = read_json(out / "data" / "manifest.json")["counts"]["test"]
    assert all(row["pull"] > 0 for row in rows)
    if "stay" in opened.spec.tasks:
        assert all((row["stay"] > 0) if row["click"] == 1 else row["stay"] == 0 for row in rows)
        assert counts["positives"]["stay"] == counts["positives"]["click"] > 0


def test_tables_made_for_another_kind_are_refused(out, opened):
    """Bins and scales were fitted for the kind that the tables were made with."""
    tasks = {**opened.spec.tasks, "pull": opened.spec.tasks["pull"].model_copy(update={"predict": "ordinal"})}
    other = opened.spec.model_copy(update={"tasks": tasks})
    with pytest.raises(DataError, match=r"was made with another tasks\.pull; make it again"):
        trainer.train(other, out / "data", out / "other", progress=Silent())
