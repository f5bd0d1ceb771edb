"""Columns of outcomes used as features, each planted once; and honest ones on the other side of the threshold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.checks import implications
from features.checks.implications import ALPHA, log_bound
from features.checks.outcome_names import looks_like_outcome
from features.checks.sample import Sample
from features.logs.logs import Finding
from rec.spec import Spec
from tests.features import tiny

REQUESTS, SHOWN = 1500, 4
N = REQUESTS * SHOWN
RNG = np.random.default_rng(5)
CLICK = RNG.random(N) < 0.3
OWNER = np.repeat(np.arange(REQUESTS), SHOWN)
USER = np.arange(REQUESTS) % 300
ITEM = RNG.integers(0, 400, N)


def sample(*, click: np.ndarray = CLICK, context: dict | None = None, **candidates: np.ndarray) -> Sample:
    """Requests of four candidates, of 300 users, with more columns where a test wants them."""
    sides = {"user": USER, **(context or {})}, {"item": ITEM, "click": click.astype(np.int8), **candidates}
    columns = [{name: pa.array(values, from_pandas=True) for name, values in side.items()} for side in sides]
    return Sample(columns[0], columns[1], np.arange(REQUESTS) * 60_000_000, OWNER)


def outcome(feature: str, values: np.ndarray, **more: np.ndarray) -> tuple[Finding, Finding]:
    """The findings about a candidate feature `x`: known only afterwards, and one label."""
    spec = tiny.spec(candidates=f"x = {{ {feature} }}")
    first, second = implications.findings(spec, sample(x=values, **more))
    return first, second


NUMBER, ID = 'kind = "number"', 'kind = "id"'


@pytest.mark.parametrize("feature", [NUMBER, ID])
def test_an_outcome_that_implies_the_label_fails(feature):
    """A comment, say, that only a click makes possible."""
    comment = CLICK & (RNG.random(N) < 0.5)
    later, one_label = outcome(feature, comment.astype(np.int64))
    assert (later.name, later.passed, later.count, later.total) == ("outcomes.click", False, 1, 3)
    count = f"{comment.sum():,}"
    where = "is not 0" if feature == NUMBER else "is 1"
    assert later.examples == (f"candidates.x: click happened in {count} of {count} rows where it {where}",)
    assert later.text == (
        "features known only after the impression: they imply click, or click implies them, beyond chance"
    )
    assert one_label.count == 0  # it is said once


def test_an_outcome_that_the_label_implies_fails():
    """A view, without which nobody clicks."""
    view = CLICK | (RNG.random(N) < 0.1)
    later, _ = outcome(ID, view.astype(np.int64))
    assert not later.passed
    assert later.examples[0].startswith("candidates.x: it is 1 in ")
    assert later.examples[0].endswith(" rows where click happened")


def test_an_amount_that_is_missing_or_zero_without_the_event_fails():
    """Seconds watched, of some clicks."""
    seconds = np.where(CLICK & (RNG.random(N) < 0.6), 1 + RNG.random(N), np.nan)
    assert outcome(NUMBER, seconds)[0].examples[0].endswith(" rows where it has a value")
    assert outcome(NUMBER, np.nan_to_num(seconds))[0].examples[0].endswith(" rows where it is not 0")


def test_a_few_exceptions_do_not_hide_an_outcome():
    """Logs have errors: 1 in 200 of the rows."""
    comment = (CLICK & (RNG.random(N) < 0.6)) | (RNG.random(N) < 0.001)
    assert not outcome(ID, comment.astype(np.int64))[0].passed


@pytest.mark.parametrize("strength", [0.5, 0.8, 0.9])
def test_a_strong_attribute_is_no_outcome(strength):
    """A flag that says a lot, and is wrong now and then."""
    flag = np.where(CLICK, RNG.random(N) < strength, RNG.random(N) > strength).astype(np.int64)
    assert [finding.count for finding in outcome(ID, flag)] == [0, 0]


def test_a_condition_of_nearly_all_rows_is_no_outcome():
    """What is out of stock is never clicked; that was known before, and is a warning at most."""
    in_stock = (CLICK | (RNG.random(N) < 0.7)).astype(np.int64)
    later, _ = outcome(ID, in_stock)
    assert later.passed


def test_a_value_of_several_with_one_label_is_a_warning():
    """A category that is always clicked."""
    group = np.where(CLICK, RNG.integers(0, 4, N), RNG.integers(1, 4, N))
    later, one_label = outcome(ID, group)
    assert later.passed
    assert (one_label.name, one_label.passed, one_label.level, one_label.count) == ("one label.click", True, "warn", 1)
    count = f"{(group == 0).sum():,}"
    assert one_label.examples == (f"candidates.x: click happened in {count} of {count} rows where it is 0",)


def test_an_attribute_of_items_counts_items():
    """Items that everybody clicks are a warning, not an outcome; ten of them are chance."""
    for items, warned in ((170, 1), (10, 0)):
        promoted = np.where(ITEM < items, 1, 0)
        click = (promoted == 1) | (CLICK & (ITEM % 6 == 0))
        spec = tiny.spec(candidates="x = { kind = 'id' }")
        later, one_label = implications.findings(spec, sample(click=click, x=promoted))
        assert (later.count, one_label.count) == (0, warned)


def test_a_context_is_judged_over_requests():
    """Whether anything was clicked in the request."""
    spec = tiny.spec(context='x = { kind = "number" }')
    click = CLICK & (OWNER % 2 == 0)
    paid = ((np.bincount(OWNER, weights=click) > 0) & (RNG.random(REQUESTS) < 0.9)).astype(np.int64)
    later, _ = implications.findings(spec, sample(click=click, context={"x": paid}))
    assert later.examples == (
        f"context.x: click happened in {paid.sum():,} of {paid.sum():,} requests where it is not 0",
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.05, 0.6), st.integers(5, 3000))
def test_values_drawn_at_random_are_no_false_alarm(seed, base, values):
    """Rare values, flags, ids with as many values as rows: whatever has nothing to do with the label."""
    rng = np.random.default_rng(seed)
    click = rng.random(N) < base
    spec = tiny.spec(candidates="x = { kind = 'id' }\ny = { kind = 'number' }\nz = { kind = 'id' }")
    drawn = sample(
        click=click, x=rng.integers(0, values, N), y=rng.integers(0, 2, N), z=(rng.random(N) < 0.02).astype(int)
    )
    assert [finding.count for finding in implications.findings(spec, drawn)] == [0, 0]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.2, 0.9))
def test_the_labels_of_a_child_are_no_false_alarm(seed, share):
    """What tells a click says something of purchases, which are clicks; it is not named for it."""
    rng = np.random.default_rng(seed)
    buy = CLICK & (rng.random(N) < share * 0.5)
    spec = tiny.spec(candidates="x = { kind = 'number' }", tasks='buy = { label = "bought", given = "click" }')
    honest = np.where(CLICK, rng.random(N) < 0.8, rng.random(N) < 0.2).astype(np.float64)
    findings = implications.findings(spec, sample(x=honest, buy=buy.astype(np.int8)))
    assert [finding.count for finding in findings] == [0, 0, 0, 0]


@settings(deadline=None)
@given(st.integers(1, 400), st.floats(0.01, 0.5), st.data())
def test_the_bound_is_above_the_binomial_tail(count, chance, data):
    """Compared with scipy's; it is exact where there is no exception."""
    from scipy import stats

    exceptions = data.draw(st.integers(0, count))
    exact = stats.binom.logcdf(exceptions, count, chance)
    assert log_bound(exceptions, count, chance) >= exact - 1e-9
    assert log_bound(0, count, chance) == pytest.approx(stats.binom.logcdf(0, count, chance))


def test_the_threshold_is_where_the_page_says():
    """Without an exception, chance 0.7, 100 tests: the first count beyond the tenth part, and the one before it."""
    test = implications.Implication("x", "", 159, 0, 0.7, may_fail=True)
    assert test.beyond(implications.WARNS, 100) == (0.93**159 < ALPHA / 100)
    counts = [n for n in range(1000) if implications.Implication("x", "", n, 0, 0.7, may_fail=True).beyond(0.1, 100)]
    assert counts[0] == int(np.ceil(np.log(ALPHA / 100) / np.log(0.93)))


def test_past_features_and_kept_columns_are_not_looked_at():
    """Counts of the past are known before by their making; what is kept is no input."""
    spec: Spec = tiny.spec(
        candidates='x = { kind = "number", make = "count", per = "item" }\ny = { kind = "kept", values = "int" }'
    )
    drawn = sample(x=CLICK.astype(np.float64), y=CLICK.astype(np.int64))
    assert [finding.count for finding in implications.findings(spec, drawn)] == [0, 0]


def test_a_column_with_the_name_of_an_outcome_is_a_warning():
    """Whatever it says; an attribute of an item may have it."""
    assert looks_like_outcome("is_like")
    assert not looks_like_outcome("device")
    spec = tiny.spec(candidates="is_like = { kind = 'number' }\nrating = { kind = 'number' }")
    finding = implications.names(spec, sample(is_like=RNG.integers(0, 2, N), rating=(ITEM % 5) * 1.0))
    assert (finding.name, finding.passed, finding.level) == ("outcome names", True, "warn")
    assert finding.examples == ("candidates.is_like",)
    assert finding.text == "features named like outcomes; were they known before the impression?"


def test_an_attribute_of_a_user_with_the_name_of_an_outcome_is_a_warning():
    """It may be a sum over the whole log."""
    spec = tiny.spec(context="read_time = { kind = 'number' }")
    (example,) = implications.names(spec, sample(context={"read_time": (USER % 5) * 1.0})).examples
    assert example == "context.read_time, the same in all rows of a user: does it sum up what came later?"


def test_a_task_of_one_label_has_nothing_to_imply():
    """Nothing happened, or everything did; no row at all."""
    spec = tiny.spec(candidates="x = { kind = 'id' }")
    for click in (np.zeros(N, bool), np.ones(N, bool)):
        findings = implications.findings(spec, sample(click=click, x=RNG.integers(0, 2, N)))
        assert [finding.count for finding in findings] == [0, 0]


@pytest.mark.parametrize(
    "name",
    [
        "read_time", "scroll_percentage", "next_read_time", "next_scroll_percentage", "next_click", "time_spent",
        "ms_played", "percent_watched", "watched_seconds", "scroll_depth", "play_progress", "visit_duration",
        "time_on_page", "is_like", "session_read_time", "listen_ms", "completed_ratio",
    ],
)  # fmt: skip
def test_names_of_outcomes(name):
    """What is done with an item, how long, how far, and what comes next."""
    assert looks_like_outcome(name)


@pytest.mark.parametrize(
    "name",
    ["price", "device", "is_weekend", "hour", "time", "joined", "category", "popularity", "duration", "size", "readers",
     "nextdoor", "view_count", "item_click_1d", "progressive", "depth"],
)  # fmt: skip
def test_names_of_attributes(name):
    """Known before anything is shown."""
    assert not looks_like_outcome(name)
