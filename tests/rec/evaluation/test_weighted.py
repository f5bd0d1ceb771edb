"""Weighted metrics: a candidate of weight 2 is two candidates, and the figures are those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.errors import DataError
from rec.evaluation import classification
from rec.evaluation.accumulator import ROW
from rec.evaluation.weighted import WeightedAccumulator
from tests.rec.evaluation.test_accumulator import SCORES, alike, chunk, weights

rows = st.lists(
    st.tuples(st.sampled_from(SCORES), st.integers(0, 1), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40
)


def columns(drawn):
    """Scores float32, labels, groups, weights."""
    score, label, group, weight = zip(*drawn, strict=True)
    return np.array(score, np.float32), np.array(label), np.array(group), np.array(weight, np.float32)


def filled(drawn, *, weight="candidates", whole, held=1000, parts=3, scale=1.0):
    """An accumulator of rows that come in some parts, which holds so many of them at once."""
    out = WeightedAccumulator(weight=weight, whole_groups=whole, memory=8 * held, sort_memory=held * ROW)
    score, label, group, of_row = columns(drawn)
    for part in range(parts):
        chosen = (group % parts == part) if whole else (np.arange(len(score)) % parts == part)
        out.add(score[chosen], label[chosen], group[chosen], of_row[chosen] * np.float32(scale))
    return out


def repeated(drawn):
    """Scores, labels and groups of every row as many times as it weighs."""
    score, label, group, weight = columns(drawn)
    return tuple(np.repeat(values, weight.astype(int)) for values in (score, label, group))


@given(rows, weights, st.booleans(), chunk, st.sampled_from([1.0, 0.25, 2.0**20]))
def test_a_weight_of_two_is_the_row_twice(drawn, weight, whole, held, scale):
    """AUC, GAUC, log loss, NE, calibration and base rate, whatever share of the rows is in memory."""
    figures = filled(drawn, weight=weight, whole=whole, held=held, scale=scale).summary()
    score, label, group = repeated(drawn)
    expected = classification.summary(score, label, group, weight=weight)
    names = ["auc", "gauc", "log_loss", "normalised_entropy", "calibration", "base_rate", "gauc_excluded"]
    for name in names:
        mine, theirs = figures[name], expected[name]
        assert (mine is None) == (theirs is None), name
        assert theirs is None or mine == pytest.approx(theirs, rel=1e-6 if name == "calibration" else 1e-12, abs=1e-12)
    assert figures["gauc_groups"] == expected["gauc_groups"]
    assert figures["sample_weight"] == pytest.approx(scale * len(score))
    _, drawn_label, _, of_row = columns(drawn)
    assert figures["candidates"] == (of_row > 0).sum()
    assert figures["positives"] == ((of_row > 0) & (drawn_label == 1)).sum()


@given(rows, weights, st.booleans())
def test_equal_weights_are_none(drawn, weight, whole):
    """All of 1, or all of another number; but for the edges of reliability's bins, which may cut a candidate."""
    ones = [(score, label, group, 3) for score, label, group, _ in drawn]
    score, label, group, _ = columns(ones)
    figures, expected = (
        filled(ones, weight=weight, whole=whole).summary(),
        classification.summary(score, label, group, weight=weight),
    )
    assert list(figures) == [*expected, "sample_weight"]
    for name in set(expected) - {"reliability", "calibration"}:
        alike([figures[name]], [expected[name]])


@given(st.integers(1, 500), st.integers(0, 2**32 - 1))
def test_they_are_those_of_scikit_learn(count, seed):
    """roc_auc_score and log_loss with sample_weight, of weights of any size."""
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(seed)
    score = draw.choice(np.linspace(0.05, 0.95, 12), count).astype(np.float32)
    label = (draw.random(count) < score).astype(int)
    weight = np.exp(3 * draw.standard_normal(count)).astype(np.float32)
    out = WeightedAccumulator(weight="equal", whole_groups=True)
    out.add(score, label, np.zeros(count, np.int64), weight)
    figures = out.summary()
    expected = metrics.log_loss(label, score.astype(np.float64), sample_weight=weight.astype(np.float64), labels=[0, 1])
    assert figures["log_loss"] == pytest.approx(expected, rel=1e-9)
    if len(set(label.tolist())) == 2:
        area = metrics.roc_auc_score(label, score, sample_weight=weight.astype(np.float64))
        assert figures["auc"] == pytest.approx(area, rel=1e-9)
        assert figures["gauc"] == pytest.approx(area, rel=1e-9)


@given(rows, rows)
def test_accumulators_add_up(first, second):
    """Merging two accumulators is adding the rows of both."""
    both = filled(first, whole=False)
    both.merge(filled(second, whole=False))
    figures, expected = both.summary(), filled([*first, *second], whole=False).summary()
    for name in ("auc", "gauc", "log_loss", "sample_weight", "candidates"):
        alike([figures[name]], [expected[name]])


def test_bins_of_reliability_have_equal_weight():
    """Thirty candidates of which half weigh nothing; one of weight 15 fills a bin of its own."""
    score = np.arange(30, dtype=np.float32) / 30
    weight = np.where(np.arange(30) % 2, 1.0, 0.0).astype(np.float32)
    weight[29] = 14 + 14  # as much as all others twice: it fills two thirds of the bins
    out = WeightedAccumulator(weight="equal", whole_groups=True)
    out.add(score, (score > 0.5).astype(int), np.zeros(30, np.int64), weight)
    bins = out.summary()["reliability"]
    assert len(bins) == 15
    assert sum(b["mean_p"] == pytest.approx(29 / 30) for b in bins) == 10
    assert all(b["count"] == 1 for b in bins)
    assert [b["low"] for b in bins] == sorted(b["low"] for b in bins)


def test_a_score_that_is_no_number_is_refused_whatever_it_weighs():
    """As without weights."""
    out = WeightedAccumulator(weight="equal", whole_groups=True)
    with pytest.raises(DataError, match="1 of 2 scores are NaN or infinite"):
        out.add(np.array([np.nan, 0.5]), np.array([1, 0]), np.zeros(2, np.int64), np.array([0.0, 1.0]))


def test_without_a_weight_there_is_no_metric():
    """All weights are 0: no metric is defined, nothing is divided by 0."""
    out = WeightedAccumulator(weight="candidates", whole_groups=False)
    out.add(np.array([0.2, 0.5], np.float32), np.array([1, 0]), np.zeros(2, np.int64), np.zeros(2))
    figures = out.summary()
    assert [figures[name] for name in ("auc", "gauc", "log_loss", "calibration", "base_rate")] == [None] * 5
    assert figures["candidates"] == 0
