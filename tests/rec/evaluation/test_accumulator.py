"""Metrics in bounded memory are those of slow counts, and those of all rows in memory, however the rows come."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.errors import DataError
from rec.evaluation import classification, regression
from rec.evaluation.accumulator import ROW, Accumulator
from rec.spec import Task
from tests import ROOT
from tests.reference import metrics as slow
from tests.reference import regression as slow_regression

EVENT = Task(label="y")
SCORES = [0.0, 1e-6, 0.1, 0.2, 0.25, 0.7, 0.9, 1.0]
events = st.lists(st.tuples(st.sampled_from(SCORES), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=40)
amounts = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 1.5, 9.0, 40.0]), st.sampled_from([0.0, 1.0, 2.5, 7.0, 7.5]), st.integers(0, 2)
    ),
    min_size=1,
    max_size=40,
)
chunk = st.sampled_from([1, 2, 3, 7, 1000])  # rows that are held at once
weights = st.sampled_from(["candidates", "equal"])


def columns(rows):
    """Scores float32, labels, groups."""
    score, label, group = zip(*rows, strict=True)
    return np.array(score, np.float32), np.array(label), np.array(group)


def filled(task, rows, *, weight="candidates", held=1000, expected=False, whole=False, parts=3):
    """An accumulator of rows that come in some parts, which holds so many of them at once."""
    actual = Accumulator(
        task, weight=weight, whole_groups=whole, expected=expected, memory=8 * held, sort_memory=held * ROW
    )
    score, label, group = columns(rows)
    for part in range(parts):
        chosen = (group % parts == part) if whole else (np.arange(len(score)) % parts == part)
        actual.add(score[chosen], label[chosen], group[chosen])
    return actual


def alike(actual, expected):
    """Equal to 1e-12, or None both."""
    for mine, theirs in zip(actual, expected, strict=True):
        assert (mine is None) == (theirs is None)
        assert theirs is None or mine == pytest.approx(theirs, rel=1e-12, abs=1e-12)


def same(actual, expected):
    """Equal to 1e-12, but for counts, which are equal."""
    assert list(actual) == list(expected)
    for name, value in expected.items():
        if name == "reliability":
            assert [list(b) for b in actual[name]] == [list(b) for b in value]
            for mine, theirs in zip(actual[name], value, strict=True):
                alike(mine.values(), theirs.values())
        elif isinstance(value, float):
            alike([actual[name]], [value])
        else:
            assert actual[name] == value, name


@given(events, weights, chunk)
def test_metrics_of_events_are_those_of_slow_counts(rows, weight, held):
    """AUC and GAUC by counting pairs, log loss one by one, whatever share of the rows is in memory."""
    score, label, group = columns(rows)
    actual = filled(EVENT, rows, weight=weight, held=held).summary()
    alike([actual["auc"]], [slow.auc(score.tolist(), label)])
    inside = actual["gauc"], actual["gauc_groups"], actual["gauc_excluded"]
    alike(inside, slow.gauc(score.tolist(), label, group, weight))
    clipped = [min(max(p, 1e-7), 1 - 1e-7) for p in score.tolist()]
    assert actual["log_loss"] == pytest.approx(slow.log_loss(clipped, label), rel=1e-12)
    bins = [(b["mean_p"], b["mean_y"], b["count"]) for b in actual["reliability"]]
    assert np.array(bins) == pytest.approx(np.array(slow.reliability(score.tolist(), label))[:, [0, 1, 3]], abs=1e-12)


@given(events, weights, chunk, st.booleans())
def test_metrics_of_events_are_those_of_rows_in_memory(rows, weight, held, whole):
    """Every figure, for groups that come whole and for groups that are spread."""
    actual = filled(EVENT, rows, weight=weight, held=held, whole=whole).summary()
    same(actual, classification.summary(*columns(rows), weight=weight))


@given(amounts, weights, chunk, st.sampled_from(["log", "ordinal", "quantile"]), st.booleans())
def test_metrics_of_regressions_are_those_of_rows_in_memory(rows, weight, held, predict, expected):
    """Every figure of every kind, and concordance by counting pairs."""
    task = Task(label="y", predict=predict, quantile=0.3)
    score, label, group = columns(rows)
    actual = filled(task, rows, weight=weight, held=held, expected=expected).summary()
    same(actual, regression.summary(score, label, group, task=task, weight=weight, expected=expected))
    alike([actual["concordance"]], [slow_regression.concordance(score, label)])


@given(st.one_of(events, amounts), chunk)
def test_merged_accumulators_are_one(rows, held):
    """Of two halves, in either order."""
    task = Task(label="y", predict="log")
    half = len(rows) // 2
    parts = [filled(task, part, held=held) if part else None for part in (rows[:half], rows[half:])]
    known = [part for part in parts if part is not None]
    for other in known[1:]:
        known[0].merge(other)
    same(known[0].summary(), regression.summary(*columns(rows), task=task, weight="candidates", expected=False))


@pytest.mark.parametrize("predict", ["event", "log", "quantile"])
def test_figures_of_nothing_are_none(predict):
    """As they are of arrays without rows."""
    task, none = Task(label="y", predict=predict), np.zeros(0, np.float32)
    actual = Accumulator(task, weight="equal", whole_groups=False).summary()
    if predict == "event":
        same(actual, classification.summary(none, none, none, weight="equal"))
    else:
        same(actual, regression.summary(none, none, none, task=task, weight="equal", expected=False))


def test_a_summary_can_be_asked_for_twice():
    """And goes on with more rows."""
    rows = [(0.1 * (n % 7), n % 2, n % 5) for n in range(50)]
    actual = filled(EVENT, rows, held=4)
    assert actual.summary() == actual.summary()
    score, label, group = columns(rows)
    actual.add(score, label, group)
    assert actual.summary()["candidates"] == 100


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(wrong):
    """They have no place in an order."""
    actual = Accumulator(EVENT, weight="equal", whole_groups=True)
    with pytest.raises(DataError, match="1 of 2 scores are NaN or infinite; there are no metrics of them"):
        actual.add(np.array([0.5, wrong], np.float32), np.array([0, 1]), np.array([0, 0]))


@pytest.mark.parametrize("predict", ["event", "log"])
def test_one_group_that_is_larger_than_memory_is_counted_all_the_same(predict):
    """Half of all rows in one group, beside many small ones; against rows in memory."""
    random = np.random.default_rng(3)
    label = random.integers(0, 2, 4000) if predict == "event" else random.integers(0, 500, 4000) / 4
    score = (random.random(4000) + 0.1 * label).astype(np.float32)
    group = np.where(random.random(4000) < 0.5, 7, random.integers(-900, 900, 4000))
    task = Task(label="y", predict=predict)
    actual = Accumulator(task, weight="candidates", whole_groups=False, memory=4000, sort_memory=500 * ROW)
    actual.add(score, label.astype(np.float32), group)
    if predict == "event":
        same(actual.summary(), classification.summary(score, label, group, weight="candidates"))
    else:
        expected = regression.summary(score, label, group, task=task, weight="candidates", expected=False)
        same(actual.summary(), expected)


MEASURED = """
import resource, sys
import numpy as np
from rec.evaluation.accumulator import Accumulator
from rec.spec import Task
predict, spread, rows, memory = sys.argv[1], sys.argv[2] == "spread", int(sys.argv[3]), int(sys.argv[4])
def fill(count, memory):
    task = Task(label="y", predict=predict)
    found = Accumulator(task, weight="equal", whole_groups=not spread, memory=memory, sort_memory=memory)
    random = np.random.default_rng(1)
    for start in range(0, count, 100_000):
        score = random.random(100_000, np.float32)
        label = random.random(100_000, np.float32) < score if predict == "event" else random.random(100_000, np.float32)
        group = random.integers(0, count // 5, 100_000) if spread else np.repeat(np.arange(10_000), 10)
        found.add(score, label.astype(np.float32), group)
    return found.summary()
fill(100_000, 1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = fill(rows, memory)
print(found["candidates"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def peak(predict, groups, *, rows, memory):
    """KiB that a process of its own took on top of what it took for a few rows."""
    arguments = [predict, groups, str(rows), str(memory)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    candidates, grown = map(int, done.stdout.split())
    assert candidates == rows
    return grown


@pytest.mark.parametrize("predict", ["event", "quantile"])
@pytest.mark.parametrize("groups", ["whole", "spread"])
def test_memory_is_bounded(predict, groups):
    """Two million rows, 16 or 32 MB of them, in 8 MiB for rows and 8 MiB for sorting."""
    assert peak(predict, groups, rows=2_000_000, memory=8 << 20) < (2 * 8 << 20) / 1024
