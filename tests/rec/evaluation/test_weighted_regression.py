"""Weighted metrics of regressions: a candidate of weight 2 is two, whatever share of the rows is in memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.errors import DataError
from rec.evaluation import regression
from rec.evaluation.accumulator import ROW
from rec.evaluation.weighted_regression import WeightedRegressionAccumulator
from rec.spec import Task
from tests.rec.evaluation.test_accumulator import chunk, weights
from tests.rec.evaluation.test_ranks import over

rows = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 1.5, 9.0, 40.0]),
        st.sampled_from([0.0, 1.0, 2.5, 7.0, 7.5]),
        st.integers(0, 2),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=40,
)
tasks = st.sampled_from(
    [
        Task(label="y", predict="log"),
        Task(label="y", predict="ordinal"),
        Task(label="y", predict="quantile", quantile=0.7),
    ]
)
scales = st.sampled_from([1.0, 0.25, 2.0**20])
MEANS = ["concordance", "grouped_concordance", "mae", "rmse", "calibration", "mean_label"]


def columns(drawn):
    """Scores float32, labels, groups, weights."""
    score, label, group, weight = zip(*drawn, strict=True)
    return np.array(score, np.float32), np.array(label), np.array(group), np.array(weight, np.float32)


def filled(task, drawn, *, weight="candidates", whole=False, held=1000, parts=3, scale=1.0):
    """An accumulator of rows that come in some parts, which holds so many of them at once."""
    out = WeightedRegressionAccumulator(
        task, weight=weight, whole_groups=whole, memory=8 * held, sort_memory=held * ROW
    )
    score, label, group, of_row = columns(drawn)
    for part in range(parts):
        chosen = (group % parts == part) if whole else (np.arange(len(score)) % parts == part)
        out.add(score[chosen], label[chosen], group[chosen], of_row[chosen] * np.float32(scale))
    return out


def expected(task, drawn, weight):
    """The figures of every row as many times as it weighs, and the error of the best of all labels as a constant."""
    score, label, group, of_row = columns(drawn)
    many = tuple(np.repeat(values, of_row.astype(int)) for values in (score, label, group))
    figures = regression.summary(*many, task=task, weight=weight, expected=False)
    if task.predict == "quantile" and len(many[1]):
        y, p = (np.log1p(values.astype(np.float64)) for values in (many[1], many[0]))
        least = min(regression.pinball(y - constant, task.quantile) for constant in y)
        own = regression.pinball(y - p, task.quantile)
        figures["normalised_error"] = own / least if least > 0 and figures["concordance"] is not None else None
    return figures


@settings(max_examples=50)
@given(rows, tasks, weights, st.tuples(st.booleans(), chunk, scales))
def test_a_weight_of_two_is_the_row_twice(drawn, task, weight, how):
    """Concordance, also of groups, errors, the normalised error and calibration."""
    whole, held, scale = how
    figures = filled(task, drawn, weight=weight, whole=whole, held=held, scale=scale).summary()
    right = expected(task, drawn, weight)
    for name in (*MEANS, "normalised_error"):
        mine, theirs = figures[name], right[name]
        assert (mine is None) == (theirs is None), name
        assert theirs is None or mine == pytest.approx(theirs, rel=1e-6, abs=1e-9), name
    *_, of_row = columns(drawn)
    assert figures["candidates"] == (of_row > 0).sum()
    assert figures["sample_weight"] == pytest.approx(scale * of_row.sum())
    assert (figures["groups"], figures["groups_excluded"]) == (right["groups"], pytest.approx(right["groups_excluded"]))


@settings(max_examples=25)
@given(rows, tasks, st.integers(2, 4), st.sampled_from([1, 3, 1000]), st.booleans())
def test_figures_do_not_depend_on_ranks(drawn, task, size, held, whole):
    """Rows on any ranks, some of which may have none; and accumulators that are merged are one."""
    expected = filled(task, drawn, whole=whole).summary()

    def mine(ranks):
        rows_of = [row for row in drawn if row[2] % size == ranks.rank] if whole else drawn[ranks.rank :: size]
        empty = WeightedRegressionAccumulator(
            task, weight="candidates", whole_groups=whole, memory=8 * held, sort_memory=held * ROW
        )
        if rows_of:
            empty.merge(filled(task, rows_of, whole=whole, held=held))
        return empty.summary(ranks)

    for figures in over(size, mine):
        for name in (*MEANS, "normalised_error", "candidates", "groups", "sample_weight"):
            wanted = expected[name]
            assert figures[name] == (None if wanted is None else pytest.approx(wanted, rel=1e-9, abs=1e-12)), name


def test_bins_of_reliability_have_equal_weight():
    """Of 30 candidates the first half weighs twice as much: 15 bins of weight 3, and counts of mean weight."""
    drawn = [(float(place), float(place), place, 2 if place < 15 else 1) for place in range(30)]
    bins = filled(Task(label="y", predict="ordinal"), drawn).summary()["reliability"]
    assert [row["count"] for row in bins] == [2] * 15
    assert bins[0]["mean_y"] == pytest.approx((2 * 0 + 1 * 1) / 3)
    assert bins[-1]["mean_y"] == pytest.approx((27 + 28 + 29) / 3)


def test_a_score_that_is_no_number_is_refused_whatever_it_weighs():
    """As without weights."""
    with pytest.raises(DataError, match="1 of 2 scores are NaN or infinite"):
        filled(Task(label="y", predict="log"), [(float("nan"), 1.0, 0, 0), (0.5, 1.0, 0, 1)], parts=1)
