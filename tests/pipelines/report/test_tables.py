"""Answers on stdout: aligned for people, JSON for machines."""

from __future__ import annotations

import json

from pipelines.cli import output
from pipelines.report import tables

REPORT = {
    "split": "test",
    "requests": 2,
    "candidates": 9,
    "outputs": {
        "click": {
            "auc": 0.75,
            "gauc": None,
            "gauc_excluded": 1.0,
            "log_loss": 0.5,
            "normalised_entropy": 0.9,
            "calibration": 1.0,
            "base_rate": 0.25,
            "candidates": 9,
            "positives": 2,
            "remarks": [],
        }
    },
}


def test_metrics_are_one_line_per_output(capsys):
    """Titles above, names to the left, n/a where there is nothing to say."""
    output.metrics(REPORT, as_json=False)
    heading, titles, line = capsys.readouterr().out.splitlines()
    assert heading == "test: 2 requests, 9 candidates"
    assert titles.split()[:3] == ["output", "AUC", "GAUC"]
    assert line.split()[:3] == ["click", "0.7500", "n/a"]


HEALTH = {
    "levels": [
        {
            "experts": [{"expert": "buy 1", "near_zero": 0.5}, {"expert": "(shared) 1", "near_zero": 0.25}],
            "gates": [
                {
                    "name": "gates",
                    "rows": ["click", "buy"],
                    "experts": ["buy 1", "(shared) 1"],
                    "weights": [[None, 1.0], [0.375, 0.625]],
                    "entropy": [None, 0.875],
                    "taken": [{"expert": "(shared) 1", "by": "click", "share": 0.615, "weight": 1.0, "gates": 2}],
                    "own": [{"task": "buy", "experts": 1, "share": 0.375, "even": 0.5}],
                }
            ],
        }
    ],
    "findings": [],
    "passed": ["gates click, buy: no expert collapse", "gate buy: no underfitting"],
}


def test_gates_are_one_line_each(capsys):
    """Entropy, the expert with the largest weight, the weight on own experts; n/a where a gate sees one expert."""
    output.metrics({**REPORT, "health": HEALTH}, as_json=False)
    assert capsys.readouterr().out.splitlines()[3:] == [
        "",
        "gates",
        "level   gate  entropy     most on  weight    own   even",
        "1      click      n/a  (shared) 1  100.0%    n/a    n/a",
        "1        buy    0.875  (shared) 1   62.5%  37.5%  50.0%",
        "",
        "gates click, buy: no expert collapse",
        "gate buy: no underfitting",
    ]


def test_several_gates_of_a_level_have_names():
    """Beside the number of their level."""
    (level,) = HEALTH["levels"]
    twice = {**level, "gates": [*level["gates"], {**level["gates"][0], "name": "others"}]}
    _, _, rows = tables.health_tables({"levels": [twice], "findings": []})[0]
    assert [row[0] for row in rows] == ["1 gates", "1 gates", "1 others", "1 others"]


def test_an_anomaly_is_a_warning(capsys):
    """One line each, as the report says it."""
    finding = {"anomaly": "collapse", "level": 1, "text": "level 1: expert 'buy 1' is dead"}
    output.metrics({**REPORT, "health": {**HEALTH, "findings": [finding], "passed": []}}, as_json=False)
    assert capsys.readouterr().out.splitlines()[-1] == "WARN  level 1: expert 'buy 1' is dead"


def test_a_remark_is_a_warning_below_the_table(capsys):
    """Whoever reads the figures reads the sentence."""
    remark = "click: evaluated on 2 positives"
    click = {**REPORT["outputs"]["click"], "remarks": [remark]}
    output.metrics({**REPORT, "outputs": {"click": click}}, as_json=False)
    assert capsys.readouterr().out.splitlines()[3:] == ["", f"WARN  {remark}"]


def test_training_ends_with_the_remarks_on_its_validation_figures(capsys):
    """Below the best epoch's figures, on the same stream; a machine gets the figures alone."""
    click = {key: value for key, value in REPORT["outputs"]["click"].items() if key != "remarks"}
    entry = {"epoch": 1, "step": 1200, "train": {"loss": {"click": 0.51234}}, "validation": {"click": click}}
    output.trained(entry, as_json=False)
    best, apart, caption, titles, figures, empty, *warnings = capsys.readouterr().out.splitlines()
    assert (best, apart, caption) == ("best epoch 1, step 1,200: loss click 0.5123", "", "validation")
    assert (titles.split()[:2], figures.split()[0]) == (["output", "AUC"], "click")
    assert empty == ""
    for warning, count in zip(warnings, ("2 positives", "7 negatives"), strict=True):
        assert warning.startswith(f"WARN  validation: click: evaluated on {count}, fewer than 30")
    output.trained(entry, as_json=True)
    assert json.loads(capsys.readouterr().out) == entry


def test_experts_are_in_the_tables_of_the_page():
    """How much of them is nearly zero, and who takes most of a shared one."""
    _, titles, rows = tables.health_tables(HEALTH)[1]
    assert titles == ["level", "expert", "near zero", "taken by", "share"]
    assert rows == [["1", "buy 1", "50.0%", "", ""], ["1", "(shared) 1", "25.0%", "click", "61.5%"]]


def test_json_is_the_report_itself(capsys):
    """What a machine reads is what is in report.json."""
    output.metrics(REPORT, as_json=True)
    assert json.loads(capsys.readouterr().out) == REPORT


FINDING = {
    "name": "labels", "passed": True, "count": 0, "total": 9876, "examples": (), "text": "features made of a label"
}  # fmt: skip


def test_a_failed_check_shows_examples(capsys):
    """How many of how many, what is wrong, and at most three rows to look at."""
    wrong = {**FINDING, "passed": False, "count": 1234, "examples": ("a", "b", "c", "d")}
    output.findings([wrong, {**FINDING, "name": "users"}], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "FAIL  labels  1,234 / 9,876  features made of a label",
        "        e.g. a",
        "        e.g. b",
        "        e.g. c",
        "1 failed, 0 warned, 1 checks passed; --all shows them",
    ]


def test_a_warning_passes_and_is_seen_and_a_fact_only_passes(capsys):
    """What was dealt with is told with its count and an example."""
    odd = {**FINDING, "count": 2, "examples": ("a",)}
    findings = [{**odd, "level": "note"}, {**FINDING, "level": "warn"}, {**odd, "level": "warn"}]
    output.findings(findings, as_json=False, everything=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines] == ["WARN", "    ", "NOTE", "    ", "PASS", "0 fa"]
    assert lines[-1] == "0 failed, 1 warned, 2 checks passed"


def test_findings_for_a_machine_say_what_they_come_to(capsys):
    """The verdict, beside all that was found."""
    output.findings([{**FINDING, "passed": False}, {**FINDING, "level": "warn", "count": 1}], as_json=True)
    findings = json.loads(capsys.readouterr().out)
    assert [finding["verdict"] for finding in findings] == ["FAIL", "WARN"]
    assert findings[0]["text"] == "features made of a label"


def test_findings_about_one_thing_have_no_count(capsys):
    """A version is as pinned, or it is not."""
    output.findings([{**FINDING, "total": 1}], as_json=False, everything=True)
    assert capsys.readouterr().out.splitlines()[0] == "PASS  labels  features made of a label"


CARD = {
    "name": "shop",
    "counts": {
        split: {
            "requests": 2,
            "candidates": 1234,
            "users": 2,
            "observed": {"click": known, "buy": 0},
            "positives": {"click": 1, "buy": 0},
        }
        for split, known in (("train", 4), ("test", 8))
    },
    "unseen": {"test": {"user_id": 0.125}},
    "missing": {"train": {"price": 0.5}, "test": {"price": 0.0}},
    "drift": {"context.age": 0.3, "context.city": 0.01},
    "looked_at": {"train": 1234, "test": 1234},
}


def test_a_data_card_is_a_column_per_split(capsys):
    """Counts, the share of events, unseen ids, missing values, and what has moved."""
    output.card(CARD, as_json=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines[:2] == ["session tables", "                 train    test"]
    assert "click share     25.00%  12.50%" in lines
    assert "buy share          n/a     n/a" in lines
    assert lines[lines.index("ids not in train") + 2] == "user_id  12.50%"
    assert lines[lines.index("rows without a value") + 2] == "price  50.00%  0.00%"
    assert lines[-1] == "context.age  0.30"


def test_a_data_card_for_a_machine_is_the_card(capsys):
    """All of it."""
    output.card(CARD, as_json=True)
    assert json.loads(capsys.readouterr().out) == CARD


def test_an_answer_without_candidates(capsys):
    """An empty list is an answer too."""
    output.ranked({"request_id": "r", "candidates": [], "degraded": {"reasons": []}}, as_json=False)
    assert capsys.readouterr().out == "no candidates\n"


def test_an_answer_says_how_old_stored_features_are(capsys):
    """In the largest unit of which there are two, and of how many candidates they are too old."""
    line = {"item_id": 3, "rank": 1, "score": 0.2, "tasks": {"click": 0.1}, "status": "ok"}
    answer = {
        "request_id": "r",
        "candidates": [line],
        "degraded": {"reasons": ["stale_features"], "items_stale": 1},
        "features_age_s": {"user": None, "candidates_median": 100.0, "candidates_oldest": 7300.0},
    }
    output.ranked(answer, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "request r (degraded: stale_features)"
    ages = "candidates median 100.0 s, candidates oldest 2.0 h"
    assert lines[-1] == f"age of stored features: {ages}; too old: those of 1 candidates"
    output.ranked(answer | {"features_age_s": dict.fromkeys(answer["features_age_s"])}, as_json=False)
    assert "age of" not in capsys.readouterr().out


def test_an_age_below_zero_is_explained(capsys):
    """The store knows what happened after the request, as in the demo."""
    line = {"item_id": 3, "rank": 1, "score": 0.2, "tasks": {"click": 0.1}, "status": "ok"}
    degraded = {"reasons": [], "items_stale": 0}
    answer = {"request_id": "r", "candidates": [line], "degraded": degraded, "features_age_s": {"user": -7300.0}}
    output.ranked(answer, as_json=False)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "age of stored features: user -2.0 h (below 0: newer than the request)"


def test_groups_have_headings(capsys):
    """Aligned over all groups, with a blank line between them."""
    output.groups({"models": {"mmoe": "One."}, "objectives": {"aitm_long": "Two."}}, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "models",
        "  mmoe       One.",
        "",
        "objectives",
        "  aitm_long  Two.",
    ]


def test_measurements_are_tables(capsys):
    """Rows become a table, whose nested figures have dotted titles; the rest is names and values."""
    output.measured(
        {"unit": "ms", "rows": [{"size": 50, "run": {"p50": 1.5}}, {"size": 1000, "run": {"p50": 12.0}}]}, as_json=False
    )
    assert capsys.readouterr().out.splitlines() == [
        "unit  ms",
        "",
        "rows",
        "size   run.p50",
        "50         1.5",
        "1,000       12",
    ]
