"""Metrics of quantities against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.evaluation import classification, regression
from rec.spec import Task
from tests.reference import metrics as slow_metrics
from tests.reference import regression as slow

scored = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 1.5, 2.0, 9.0, 40.0]), st.sampled_from([0.0, 1.0, 2.5, 7.0]), st.integers(0, 3)
    ),
    min_size=1,
    max_size=25,
)


def columns(rows):
    """Scores, labels, groups."""
    return (np.array(x) for x in zip(*rows, strict=True))


@given(scored)
def test_concordance_is_what_counting_pairs_gives(rows):
    """Ties count half, pairs of equal labels nowhere."""
    score, label, _ = columns(rows)
    assert regression.concordance(score, label) == pytest.approx(slow.concordance(score, label))


@given(scored, st.sampled_from(["candidates", "equal"]))
def test_grouped_concordance_is_the_mean_over_groups_that_have_one(rows, weight):
    """And the rest is the excluded share."""
    score, label, group = columns(rows)
    inside = {name: slow.concordance(score[group == name], label[group == name]) for name in set(group)}
    known = {name: value for name, value in inside.items() if value is not None}
    grouped = regression.grouped_concordance(score, label, group, weight=weight)
    assert grouped.groups == len(inside)
    assert grouped.excluded == pytest.approx(1 - len(known) / len(inside))
    if not known:
        assert grouped.value is None
        return
    weights = [(group == name).sum() if weight == "candidates" else 1 for name in known]
    assert grouped.value == pytest.approx(np.average(list(known.values()), weights=weights))


@given(st.lists(st.tuples(st.integers(0, 70), st.integers(0, 1)), min_size=1))
def test_concordance_of_events_is_auc(rows):
    """The same question, asked of 0 and 1."""
    score, label = (np.array(x) for x in zip(*rows, strict=True))
    assert regression.concordance(score, label) == pytest.approx(classification.auc(score, label))


def test_concordance_of_many_is_that_of_their_ranks():
    """Labels against themselves, against their opposite, and as many right as wrong of a shuffle."""
    label = np.random.default_rng(1).lognormal(size=50_000)
    assert regression.concordance(np.log1p(label), label) == 1.0
    assert regression.concordance(-label, label) == 0.0
    shuffled = np.random.default_rng(2).permutation(label)
    assert regression.concordance(shuffled, label) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("predict", ["log", "ordinal", "quantile"])
def test_the_best_constant_has_normalised_error_one(predict):
    """The mean of what is squared, or the quantile; worse constants are above, and being right is 0."""
    label = np.array([0.0, 1.0, 1.0, 5.0, 80.0])

    def error(score):
        return regression.normalised_error(score, label, predict=predict, quantile=0.75)

    best = {"log": np.expm1(np.log1p(label).mean()), "ordinal": label.mean(), "quantile": 5.0}[predict]
    assert error(np.full(5, best)) == pytest.approx(1.0)
    assert error(np.full(5, best * 2)) > 1.0
    assert error(label) == 0.0


def test_figures_are_what_they_are_called():
    """Off by 1 and 3, six of eight predicted."""
    task = Task(label="y", predict="log")
    metrics = regression.summary(
        np.array([1.0, 5.0]), np.array([2.0, 6.0]), np.zeros(2), task=task, weight="equal", expected=False
    )
    assert (metrics["mae"], metrics["rmse"], metrics["calibration"], metrics["mean_label"]) == (1.0, 1.0, 0.75, 4.0)
    assert (metrics["concordance"], metrics["grouped_concordance"], metrics["candidates"]) == (1.0, 1.0, 2)


def test_the_error_of_the_whole_is_the_squared_one():
    """A chance times a value is an expectation, whatever the value is."""
    score, label = np.array([1.0, 2.0, 9.0]), np.array([0.0, 4.0, 8.0])
    task = Task(label="y", predict="quantile", quantile=0.9)
    whole = regression.summary(score, label, np.zeros(3), task=task, weight="equal", expected=True)
    assert whole["normalised_error"] == pytest.approx(((score - label) ** 2).mean() / label.var())


@pytest.mark.parametrize("label", [[], [3.0, 3.0]])
def test_what_is_undefined_is_none(label):
    """Nothing at all, or labels that are all alike."""
    score, zeros = np.full(len(label), 1.0), np.zeros(len(label))
    metrics = regression.summary(
        score, np.array(label), zeros, task=Task(label="y", predict="log"), weight="equal", expected=False
    )
    assert (metrics["concordance"], metrics["grouped_concordance"], metrics["normalised_error"]) == (None, None, None)
    assert (metrics["mae"] is None) == (not label)


@given(scored)
def test_reliability_says_how_sure_each_mean_is(rows):
    """The standard error of every bin's mean label, against a loop; tied scores are shared out."""
    score, label, _ = columns(rows)
    parts = slow_metrics.reliability(score, label)
    actual = regression.reliability(score, label, errors=True)
    assert [b["mean_p"] for b in actual] == pytest.approx([p for p, _, _, _ in parts])
    assert [b["mean_y"] for b in actual] == pytest.approx([y for _, y, _, _ in parts])
    assert [b["error_y"] for b in actual] == pytest.approx([(s / n) ** 0.5 / n**0.5 for _, _, s, n in parts])


def test_reliability_does_not_depend_on_the_order_of_tied_candidates():
    """One score for all: every bin has the mean label of all."""
    label = np.arange(30) % 2
    for order in (np.arange(30), np.argsort(label)):
        actual = regression.reliability(np.full(30, 0.5), label[order], errors=True)
        assert [b["mean_y"] for b in actual] == [0.5] * 15
