"""What is odd about built tables: planted faults, and how much there must be of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from features.checks import quality
from features.checks.sample import Sample
from rec.spec import Spec
from tests.features import tiny

N = 40
DAY = 86_400_000_000
NOW = 20_514 * DAY + 12 * DAY // 24  # 2026-03-02 12:00
SPLITS = ("train", "validation", "test")


def samples(values: pa.Array | None = None, *, time: int = NOW, click: int = 1, **of_split: pa.Array) -> dict:
    """A request per row in every split, with a column `x`, in one split another where a test wants it."""
    columns = {}
    for split in SPLITS:
        column = of_split.get(split, values)
        rows = N if column is None else len(column)
        candidates = {"item": pa.array(np.arange(rows)), "click": pa.array(np.arange(rows) % 2 * click)}
        candidates |= {} if column is None else {"x": column}
        moments = time + np.arange(rows) * DAY
        columns[split] = Sample({"user": pa.array(np.arange(rows))}, candidates, moments, np.arange(rows))
    return columns


def spec(feature: str) -> Spec:
    """With a candidate feature `x`."""
    return tiny.spec(candidates=f"x = {{ {feature} }}")


NUMBER = spec('kind = "number"')
NOTHING = pa.nulls(N, pa.float32())
KNOWN = pa.array(np.arange(N), pa.float32())


def test_features_with_content_are_no_finding():
    """Three findings, each of none."""
    assert [finding.count for finding in quality.contents(NUMBER, samples(KNOWN))] == [0, 0, 0]


def test_an_attribute_that_never_has_a_value_fails():
    """Nobody declares a column that is empty throughout."""
    never, of_split, constant = quality.contents(NUMBER, samples(NOTHING))
    assert (never.passed, never.examples) == (False, ("candidates.x",))
    assert of_split.count == constant.count == 0
    assert quality.contents(NUMBER, samples(pa.array([float("nan")] * N, pa.float32())))[0].count == 1


@pytest.mark.parametrize(
    "feature", ['kind = "number", make = "count", per = "item"', 'kind = "kept", values = "float"']
)
def test_the_past_may_be_empty_and_so_may_what_is_kept(feature):
    """A log may be too short to have one; what the model never sees does not matter."""
    assert quality.contents(spec(feature), samples(NOTHING))[0].passed


def test_a_feature_that_is_lost_in_a_split_is_a_warning():
    """Known in training, and never in test."""
    _, of_split, _ = quality.contents(NUMBER, samples(KNOWN, test=NOTHING))
    assert (of_split.passed, of_split.level, of_split.examples) == (True, "warn", ("candidates.x: in test",))


def test_a_feature_of_one_value_is_a_warning():
    """Nothing is learnt from it; a list is no single value."""
    _, _, constant = quality.contents(NUMBER, samples(KNOWN, train=pa.array([3.0] * N, pa.float32())))
    assert constant.examples == ("candidates.x: 3.0",)
    words = samples(pa.array([["a"]] * N))
    assert quality.contents(spec('kind = "ids", values = "string"'), words)[2].count == 0


def test_a_few_rows_are_not_enough_to_call_anything_empty():
    """19 of them."""
    assert [finding.count for finding in quality.contents(NUMBER, samples(pa.nulls(19, pa.float32())))] == [0, 0, 0]


def test_infinite_numbers_are_a_warning():
    """They are read as missing."""
    values = pa.array([float("inf"), *range(N - 1)], pa.float32())
    finding = quality.ranges(NUMBER, samples(KNOWN, test=values))
    assert (finding.level, finding.examples) == ("warn", ("candidates.x: 1 infinite; they count as missing",))


def test_moments_of_1970_are_a_warning():
    """A missing moment is often written as 0."""
    moments = pa.array(np.where(np.arange(N) < 3, 0, NOW - DAY), pa.int64()).cast(pa.timestamp("us", "UTC"))
    finding = quality.ranges(spec('kind = "number", make = "age"'), samples(moments))
    assert finding.examples == ("candidates.x: 9 timestamps over 50 years ago; is a missing one written as 0?",)


def test_requests_before_2000_are_a_warning():
    """Milliseconds that are read as seconds are not found so, seconds that are read as milliseconds are."""
    early, _ = quality.clock(NUMBER, samples(time=NOW // 1000))
    assert (early.passed, early.level, early.count) == (True, "warn", 3 * N)
    assert early.examples[0].startswith("1970-01-21T")
    assert quality.clock(NUMBER, samples())[0].count == 0


@pytest.mark.parametrize(("said", "right"), [("ms", "s"), ("us", "ms"), ("ns", "us")])
def test_a_wrong_unit_of_time_is_named(said, right):
    """With the unit in which the timestamps would be of our time; where there is none it is a question."""
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    named = NUMBER.model_copy(update={"keys": NUMBER.keys.model_copy(update={"time_unit": said})})
    early, _ = quality.clock(named, samples(time=NOW * per[right] // per[said]))
    assert early.text == f"requests before 2000; with keys.time_unit = {right!r} they would be of our time"
    early, _ = quality.clock(NUMBER, samples(time=7))
    assert early.text == "requests before 2000; is keys.time_unit right?"


def test_a_clock_of_whole_days_is_a_note():
    """What happened on a day is seen from the next."""
    _, days = quality.clock(NUMBER, samples(time=20_514 * DAY))
    assert (days.passed, days.level, days.count) == (True, "note", 3 * N)
    assert quality.clock(NUMBER, samples())[1].count == 0


def test_without_a_clock_there_is_nothing_to_say_of_it():
    """A table of rows."""
    plain = tiny.spec().model_copy(update={"keys": tiny.spec().keys.model_copy(update={"time": None})})
    assert quality.clock(plain, samples()) == []


def counts(**positives: int) -> dict:
    """What splits hold: 900 candidates each, of which so many are clicked (600 where nothing else is said)."""
    return {
        split: {"requests": 300, "observed": {"click": 900}, "positives": {"click": positives.get(split, 600)}}
        for split in SPLITS
    }


@pytest.mark.parametrize(
    ("split", "means"),
    [
        ("train", "nothing can be learnt"),
        ("validation", "training cannot stop early or choose its best epoch"),
        ("test", "the model cannot be evaluated on unseen data"),
    ],
)
def test_an_empty_split_is_a_warning(split, means):
    """With what it means; its tasks are not named too."""
    empty = {"requests": 0, "observed": {"click": 0}, "positives": {"click": 0}}
    splits, labels = quality.splits(NUMBER, counts() | {split: empty})
    assert (splits.name, splits.passed, splits.level, splits.count, splits.total) == ("splits", True, "warn", 1, 3)
    assert splits.text == "splits without a request; see [split] in the spec"
    assert splits.examples == (f"{split}: 0 requests; {means}",)
    assert labels.count == 0


@pytest.mark.parametrize(
    ("split", "positives", "example"),
    [
        ("train", 0, "0 positives, 900 negatives; the model cannot learn what makes the difference"),
        ("train", 900, "900 positives, 0 negatives; the model cannot learn what makes the difference"),
        ("validation", 0, "0 positives, 900 negatives; its AUC cannot choose the best epoch"),
        ("test", 0, "0 positives, 900 negatives; no AUC can be computed there"),
        ("test", 900, "900 positives, 0 negatives; no AUC can be computed there"),
    ],
)
def test_a_task_of_one_kind_of_label_in_a_split_is_a_warning(split, positives, example):
    """With how many there are, and what it means; one of the other kind is enough to say nothing."""
    splits, labels = quality.splits(NUMBER, counts(**{split: positives}))
    assert splits.count == 0
    assert (labels.name, labels.passed, labels.level, labels.count) == ("labels.split", True, "warn", 1)
    assert labels.examples == (f"click in {split}: {example}",)
    assert quality.splits(NUMBER, counts(**{split: abs(positives - 1)}))[1].count == 0


def test_a_task_without_labels_in_a_split_is_a_warning():
    """Its window has not closed, say."""
    unknown = {"requests": 300, "observed": {"click": 0}, "positives": {"click": 0}}
    _, labels = quality.splits(NUMBER, counts() | {"test": unknown})
    assert labels.examples == ("click in test: 0 labels observed; nothing can be learnt or evaluated there",)


def test_an_amount_above_0_throughout_is_no_warning():
    """It is learnt as it is."""
    paid = tiny.spec(tasks='paid = { label = "paid", predict = "log" }')
    splits = {
        split: {"requests": 9, "observed": {"click": 9, "paid": 9}, "positives": {"click": 5, "paid": 9}}
        for split in SPLITS
    }
    assert quality.splits(paid, splits)[1].count == 0


def test_ids_that_training_does_not_know_are_a_warning():
    """Half of them, or more; the worst first."""
    finding = quality.unknown({"validation": {"a": 1.0}, "test": {"a": 0.5, "b": 1.0, "c": 0.49}})
    assert (finding.passed, finding.level, finding.count, finding.total) == (True, "warn", 2, 3)
    assert finding.examples == ("b: 100.0% of its ids in test", "a: 50.0% of its ids in test")
