"""What is said beside figures that nobody should rely on: both sides of each threshold, and the words."""

from __future__ import annotations

import numpy as np
import pytest

from rec.data import splits
from rec.evaluation import classification, regression, remarks
from rec.progress import Silent
from rec.spec import Task
from rec.training import run as runs
from rec.training import trainer

CLICK = {"normalised_entropy": 0.9, "base_rate": 0.0125, "positives": 30}
WATCH = {"concordance": 0.6, "normalised_error": 0.9, "candidates": 30}


@pytest.mark.parametrize(
    ("figures", "changed"),
    [
        (CLICK, {"normalised_entropy": 0.9999}),
        (CLICK, {"positives": 30}),
        (CLICK, {"normalised_entropy": None}),
        (WATCH, {"normalised_error": 0.9999}),
        (WATCH, {"candidates": 30}),
        (WATCH, {"normalised_error": None, "concordance": None}),
    ],
)
def test_nothing_is_said_of_figures_on_the_right_side(figures, changed):
    """Better than the constant, and on 30 positives; an undefined figure is neither better nor worse."""
    assert remarks.of("click", {**figures, **changed}) == []


NO_BETTER = "do not rank by it yet: try more data or features, or a lower train.lr"
TOO_FEW = "fewer than 30, too few to rely on its figures; evaluate on a split that covers more time"


@pytest.mark.parametrize(
    ("figures", "changed", "text"),
    [
        (
            CLICK,
            {"normalised_entropy": 1.0},
            f"NE 1.0000, no better than always predicting the base rate 0.0125; {NO_BETTER}",
        ),
        (CLICK, {"positives": 29}, f"evaluated on 29 positives, {TOO_FEW}"),
        (CLICK, {"positives": 1}, f"evaluated on 1 positive, {TOO_FEW}"),
        (
            WATCH,
            {"normalised_error": 1.0},
            f"normalised error 1.0000, no better than always predicting the best constant; {NO_BETTER}",
        ),
        (WATCH, {"candidates": 29}, f"evaluated on 29 candidates, {TOO_FEW}"),
    ],
)
def test_the_other_side_is_said_in_words(figures, changed, text):
    """The output, the figure, and what to do about it."""
    assert [str(remark) for remark in remarks.of("click", {**figures, **changed})] == [f"click: {text}"]


def test_both_are_said():
    """A model can be worse than the base rate and evaluated on too little; outputs keep their order."""
    outputs = {"click": {**CLICK, "normalised_entropy": 1.2, "positives": 0}, "watch": {**WATCH, "candidates": 0}}
    assert [remark.brief.partition(",")[0] for remark in remarks.of_outputs(outputs)] == [
        "click: NE 1.2000",
        "click: evaluated on 0 positives",
        "watch: evaluated on 0 candidates",
    ]


@pytest.mark.parametrize("count", [29, 30])
def test_the_figures_of_the_metrics_are_understood(count):
    """Constant predictions of real arrays: as good as the best constant, which is no better."""
    label = np.array([1] * count + [0] * 40)
    same = np.full(count + 40, 0.5)
    texts = remarks.of("click", classification.summary(same, label, label, weight="equal"))
    assert [("no better than always" in remark.fact, "29 positives" in remark.fact) for remark in texts] == [
        (True, False),
        *([(False, True)] if count == 29 else []),
    ]
    task = Task(label="y", predict="ordinal")
    figures = regression.summary(
        same[:count], label[:count] * 0.5, same[:count], task=task, weight="equal", expected=False
    )
    assert [remark.fact for remark in remarks.of("watch", figures)] == (
        ["evaluated on 29 candidates, fewer than 30, too few to rely on its figures"] if count == 29 else []
    )


def test_a_report_has_the_remarks_of_every_output(run, data):
    """As text beside the figures, so that whoever reads report.json by machine has them too."""
    report = runs.evaluate_run(run, data, split="test", progress=Silent())
    for output, figures in report["outputs"].items():
        assert figures["remarks"] == [str(remark) for remark in remarks.of(output, figures)]
    assert any(figures["remarks"] for figures in report["outputs"].values())


def test_an_epoch_is_a_line_and_its_remarks_are_below_it(spec, data, tmp_path):
    """The validation split of the tiny shop has fewer than 30 purchases, which is said wherever their AUC is."""
    lines: list[str] = []

    class Kept(Silent):
        def say(self, line: str) -> None:
            lines.append(line)

    one_epoch = spec.model_copy(update={"train": spec.train.model_copy(update={"epochs": 1})})
    trainer.train(one_epoch, data, tmp_path / "run", progress=Kept())
    (epoch,) = [line for line in lines if line.startswith("epoch 1")]
    first, *others = epoch.splitlines()
    assert "validation AUC" in first
    assert splits.count(data, "validation") > 0
    assert any(line.startswith("  buy: evaluated on ") for line in others)
    assert all("train.lr" not in line for line in others)


def test_a_task_that_happens_always_is_remarked_on():
    """Its AUC is undefined, and nothing tells a model from chance."""
    label = np.ones(50)
    texts = remarks.of("click", classification.summary(label * 0.9, label, label, weight="equal"))
    assert [text.fact for text in texts] == [
        "evaluated on 0 negatives, fewer than 30, too few to rely on its figures",
    ]
