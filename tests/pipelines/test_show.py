"""Answers on stdout: aligned for people, JSON for machines."""

from __future__ import annotations

import json

from pipelines import show

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
        }
    },
}


def test_metrics_are_one_line_per_output(capsys):
    """Titles above, names to the left, n/a where there is nothing to say."""
    show.metrics(REPORT, as_json=False)
    said, titles, line = capsys.readouterr().out.splitlines()
    assert said == "test: 2 requests, 9 candidates"
    assert titles.split()[:3] == ["output", "AUC", "GAUC"]
    assert line.split()[:3] == ["click", "0.7500", "n/a"]


def test_json_is_the_report_itself(capsys):
    """What a machine reads is what is in report.json."""
    show.metrics(REPORT, as_json=True)
    assert json.loads(capsys.readouterr().out) == REPORT


def test_a_failed_check_shows_examples(capsys):
    """FAIL, the reason, and at most three rows to look at; nothing of the kind when it passed."""
    wrong = {"name": "labels", "passed": False, "text": "5 of 9 are wrong", "examples": ("a", "b", "c", "d")}
    show.findings([wrong, {**wrong, "passed": True}], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "FAIL  labels: 5 of 9 are wrong",
        "        e.g. a",
        "        e.g. b",
        "        e.g. c",
        "PASS  labels: 5 of 9 are wrong",
        "2 checks, 1 failed",
    ]


def test_an_answer_without_candidates(capsys):
    """An empty list is an answer too."""
    show.ranked({"request_id": "r", "candidates": [], "degraded": {"reasons": []}}, as_json=False)
    assert capsys.readouterr().out == "no candidates\n"


def test_measurements_are_tables(capsys):
    """Rows become a table, whose nested figures have dotted titles; the rest is names and values."""
    show.measured(
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
