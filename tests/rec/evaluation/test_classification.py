"""Metrics against their definitions and a library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rec.evaluation import classification
from tests.reference import metrics as slow

scored = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.25, 0.7, 0.9]), st.integers(0, 1), st.integers(0, 3)), min_size=1
)


@given(scored, st.sampled_from(["candidates", "equal"]))
def test_auc_and_gauc_are_what_counting_pairs_gives(rows, weight):
    """Ties count half; groups with one class count nowhere but in the excluded share."""
    score, label, group = (np.array(x) for x in zip(*rows, strict=True))
    assert classification.auc(score, label) == pytest.approx(slow.auc(score, label))
    grouped = classification.gauc(score, label, group, weight=weight)
    assert (grouped.value, grouped.groups, grouped.excluded) == pytest.approx(slow.gauc(score, label, group, weight))


@given(scored)
def test_log_loss_is_the_mean_surprise(rows):
    """Against a loop."""
    score, label, _ = (np.array(x) for x in zip(*rows, strict=True))
    assert classification.log_loss(score, label) == pytest.approx(slow.log_loss(score, label))


def test_auc_agrees_with_a_library_on_many_tied_scores():
    """A library's exact AUC on 10,000 candidates."""
    random = np.random.default_rng(1)
    score, label = np.round(random.random(10_000), 2), random.integers(0, 2, 10_000)
    assert classification.auc(score, label) == pytest.approx(roc_auc_score(label, score))


def test_gauc_of_one_group_is_auc():
    """Whatever the weighting."""
    score, label = np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1])
    assert (
        classification.gauc(score, label, np.zeros(4), weight="equal").value
        == classification.auc(score, label)
        == 0.875
    )


def test_saying_the_base_rate_has_normalised_entropy_one():
    """The definition's fixed point."""
    label = np.array([0, 0, 0, 1])
    assert classification.normalised_entropy(np.full(4, 0.25), label) == pytest.approx(1.0)


def test_calibration_is_predicted_over_actual():
    """Twice too eager is 2."""
    assert classification.calibration(np.array([0.5, 0.5]), np.array([0, 1])) == 1.0
    assert classification.calibration(np.array([1.0, 1.0]), np.array([0, 1])) == 2.0


def test_a_figure_that_is_undefined_is_none_and_never_a_half():
    """One class only, or nothing at all."""
    ones = classification.summary(np.array([0.3, 0.4]), np.array([1, 1]), np.array([0, 0]), weight="equal")
    assert (ones["auc"], ones["gauc"], ones["normalised_entropy"]) == (None, None, None)
    none = classification.summary(np.zeros(0), np.zeros(0), np.zeros(0), weight="equal")
    assert (none["auc"], none["log_loss"], none["calibration"], none["candidates"]) == (None, None, None, 0)


@given(scored)
def test_reliability_bins_hold_every_candidate_once(rows):
    """And their weighted means are the overall ones."""
    score, label, _ = (np.array(x) for x in zip(*rows, strict=True))
    bins = classification.reliability(score, label, errors=False)
    assert sum(b["count"] for b in bins) == len(score)
    assert sum(b["mean_y"] * b["count"] for b in bins) == pytest.approx(label.sum())
    assert all(b["low"] <= b["mean_p"] + 1e-12 and b["mean_p"] <= b["high"] + 1e-12 for b in bins)
