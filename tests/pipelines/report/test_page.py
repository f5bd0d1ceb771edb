"""The page about a model: everything in it, nothing of it from outside, and nothing of it run."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET

import pytest

from pipelines.cli import commands
from pipelines.report import charts, tables
from pipelines.report import page as report
from rec.atomic import read_json, write_json
from rec.evaluation import remarks
from rec.progress import Silent


@pytest.fixture(scope="module")
def evaluated(run, data):
    """The report of the tiny run on its test split."""
    from rec.training import run as evaluate

    return evaluate.evaluate_run(run, data, split="test", progress=Silent())


@pytest.fixture(scope="module")
def page(evaluated, run, data, bundle):
    """report.html of the tiny run."""
    return report.render(evaluated, model=run, data=data, bundle=bundle)


def test_the_page_needs_nothing_from_elsewhere(page):
    """No script, and no address but the names of XML itself."""
    assert "<script" not in page
    assert {m for m in re.findall(r"https?://[^\"'\s>]+", page) if "www.w3.org" not in m} == set()


def test_every_output_has_its_line_and_its_diagram(page, evaluated):
    """Metrics and reliability, output by output."""
    for output, values in evaluated["outputs"].items():
        assert f"<td>{output}</td><td>{tables.figure(values['auc'], '.4f')}</td>" in page
        assert f'aria-label="Reliability of {output}"' in page


def test_the_page_shows_the_parity_error(page, bundle):
    """What export wrote into the manifest."""
    from rec.atomic import read_json

    assert f"<b>{read_json(bundle / 'manifest.json')['parity']['max_difference']:.1e}</b>" in page


def test_every_gate_has_its_line_and_its_level_a_heat_map(page, evaluated):
    """Mean weights as a chart, entropy as a figure, and a sentence about what is wrong."""
    (level,) = evaluated["health"]["levels"]
    for row, entropy in zip(level["gates"][0]["rows"], level["gates"][0]["entropy"], strict=True):
        assert f"<td>1</td><td>{row}</td><td>{entropy:.3f}</td>" in page
    assert page.count('aria-label="Mean gate weights, level 1"') == 1
    assert all(f"<td>1</td><td>{expert['expert']}</td>" in page for expert in level["experts"])


def test_an_anomaly_is_on_the_page(page, evaluated, run, data):
    """In words; what was looked at and not found is said by the names of the gates."""
    assert "<li>gates click, buy: no expert collapse, no degradation of a shared expert</li>" in page
    anomaly = {"anomaly": "collapse", "level": 1, "text": "level 1: all <zero>"}
    wrong = {**evaluated["health"], "findings": [anomaly], "passed": []}
    text = report.render({**evaluated, "health": wrong}, model=run, data=data, bundle=None)
    assert '<li class="remarks">level 1: all &lt;zero&gt;</li>' in text
    assert "no expert collapse" not in text


def test_remarks_are_below_the_metrics_and_the_curves(page, evaluated, run):
    """Ten purchases a split are too few: said of the test split, and of the validation split that chose the epoch."""
    buy = evaluated["outputs"]["buy"]
    assert buy["positives"] < remarks.FEWEST
    assert all(f"<li>{remark}</li>" in page for remark in buy["remarks"])
    assert re.search(r"<li>validation: buy: evaluated on \d+ positives, fewer than 30", page)


def test_a_page_without_health(evaluated, run, data):
    """A bundle, or a model without gates."""
    plain = {key: value for key, value in evaluated.items() if key != "health"}
    assert "Gates and experts" not in report.render(plain, model=run, data=data, bundle=None)


def test_a_heat_map_leaves_blank_what_a_gate_cannot_see():
    """As many numbers as there are weights, and the names on both sides."""
    part = {"rows": ["click", "buy"], "experts": ["click 1", "(shared) 1"], "weights": [[0.25, 0.75], [None, 1.0]]}
    drawn = ET.fromstring(charts.gates(part))
    texts = [node.text for node in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(texts) == sorted(["click", "buy", "click 1", "(shared) 1", "0.25", "0.75", "1.00"])
    assert charts.gates(part) == charts.gates(part)


def test_what_comes_from_a_file_is_escaped(evaluated, run, data, tmp_path):
    """A spec cannot put a script into the page."""
    for file in ("manifest.json", "history.json"):
        (tmp_path / file).write_bytes((run / file).read_bytes())
    (tmp_path / "spec.toml").write_text('name = "<script>alert(1)</script>"')
    text = report.render(evaluated, model=tmp_path, data=data, bundle=None)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_undefined_metrics_are_not_numbers(evaluated, run, data):
    """What cannot be computed is n/a, on the page and in the table."""
    blank = {**evaluated, "outputs": {"click": {**evaluated["outputs"]["click"], "auc": None}}}
    assert "<td>click</td><td>n/a</td>" in report.render(blank, model=run, data=data, bundle=None)


def test_charts_are_the_same_every_time():
    """The same figures give the same bytes, so that a page can be compared with another."""
    bins = [{"mean_p": 0.1, "mean_y": 0.2, "count": 10}, {"mean_p": 0.4, "mean_y": 0.3, "count": 5}]
    assert charts.reliability(bins) == charts.reliability(bins)
    ET.fromstring(charts.reliability(bins))


def test_a_quantity_has_charts_too():
    """Bins far from probabilities, and curves of events and quantities in one diagram whose title says so."""
    bins = [{"mean_p": 30.0, "mean_y": 41.0, "error_y": 2.0, "count": 10}]
    ET.fromstring(charts.reliability(bins))
    assert charts._around({"mean_y": 1.0, "error_y": 2.0}) == (0.0, pytest.approx(4.92))
    validation = {
        "click": {"auc": 0.6, "normalised_entropy": 0.9},
        "watch": {"concordance": 0.7, "normalised_error": 1},
    }
    drawn = charts.curves([{"epoch": 1, "train": {"loss": {"click": 0.5, "watch": 3.1}}, "validation": validation}])
    assert "validation AUC, concordance" in drawn
    assert "validation normalised entropy, normalised error" in drawn


def test_a_chart_of_one_epoch_without_validation():
    """A run that was stopped after an epoch, with nothing to validate on, still has a page."""
    assert charts.curves([{"epoch": 1, "train": {"loss": {"click": 0.5}}, "validation": {}}]).startswith("<svg")


@pytest.mark.parametrize(("rate", "count"), [(0.0, 1), (1.0, 1), (0.02, 10_000)])
def test_intervals_hold_their_rate(rate, count):
    """Wilson's interval stays inside [0, 1] and around the rate, even after one observation."""
    low, high = charts._interval(rate, count)
    assert 0 <= low <= rate <= high <= 1


def test_a_run_and_its_bundle_are_evaluated_alike(run, bundle, data):
    """The metrics of the ONNX graph are those of the model it was made from."""
    by_run = commands.evaluate(run, data, "test", None, Silent())["outputs"]
    by_bundle = commands.evaluate(bundle, data, "test", None, Silent())["outputs"]
    for output, values in by_run.items():
        assert values["log_loss"] == pytest.approx(by_bundle[output]["log_loss"], abs=1e-6)


def test_a_watched_training_has_its_curves(evaluated, run, data, bundle, tmp_path):
    """Loss and time of a step, where there are looks at several steps."""
    looks = [
        f'{{"step": {step}, "loss/click": 0.5, "seconds/step": 2.0, "seconds/forward": 0.5, "seconds/backward": 1.5}}'
        for step in (100, 200)
    ]
    mine = shutil.copytree(run, tmp_path / "run")
    caption = 'aria-label="Loss and time of a step over steps"'
    for count, shown in ((0, False), (1, False), (2, True)):
        (mine / "watch.jsonl").write_text("\n".join(looks[:count]))
        page = report.render(evaluated, model=mine, data=data, bundle=bundle)
        assert (caption in page) == shown
    assert "backward" in charts.watched([json.loads(look) for look in looks])


def test_a_progressive_run_shows_its_days(evaluated, run, data, tmp_path):
    """A chart and a line per day, in the place of the curves over epochs; a day that is not learnt yet is no point."""
    model = shutil.copytree(run, tmp_path / "run")
    (validation,) = [entry["validation"] for entry in read_json(run / "history.json")][:1]
    days = [
        {"day": f"2026-03-0{n}", "step": n, "requests": 9, "candidates": 40 * n, "evaluated": validation, "train": loss}
        for n, loss in ((2, {"loss": {"click": 0.5, "buy": 0.1}}), (3, None))
    ]
    write_json(model / "progressive.json", days)
    page = report.render(evaluated, model=model, data=data, bundle=None)
    auc, entropy = (tables.figure(validation["click"][key], ".4f") for key in ("auc", "normalised_entropy"))
    assert f"<td>2026-03-03</td><td>120</td><td>{auc}</td><td>{entropy}</td>" in page
    assert "<th>day</th><th>candidates</th><th>click AUC</th><th>click NE</th>" in page
    assert page.count('aria-label="Loss and metrics over days"') == 1
    assert "over epochs" not in page
