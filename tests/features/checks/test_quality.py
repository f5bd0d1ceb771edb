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
    made = {}
    for split in SPLITS:
        column = of_split.get(split, values)
        rows = N if column is None else len(column)
        candidates = {"item": pa.array(np.arange(rows)), "click": pa.array(np.arange(rows) % 2 * click)}
        candidates |= {} if column is None else {"x": column}
        moments = time + np.arange(rows) * DAY
        made[split] = Sample({"user": pa.array(np.arange(rows))}, candidates, moments, np.arange(rows))
    return made


def spec(feature: str) -> Spec:
    """With a candidate feature `x`."""
    return tiny.spec(candidates=f"x = {{ {feature} }}")


NUMBER = spec('kind = "number"')
NOTHING = pa.nulls(N, pa.float32())
KNOWN = pa.array(np.arange(N), pa.float32())


def test_features_with_content_are_no_finding():
    """Three findings, each of none."""
    assert [one.count for one in quality.contents(NUMBER, samples(KNOWN))] == [0, 0, 0]


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
    assert [one.count for one in quality.contents(NUMBER, samples(pa.nulls(19, pa.float32())))] == [0, 0, 0]


def test_infinite_numbers_are_a_warning():
    """They are read as missing."""
    values = pa.array([float("inf"), *range(N - 1)], pa.float32())
    finding = quality.ranges(NUMBER, samples(KNOWN, test=values))
    assert (finding.level, finding.examples) == ("warn", ("candidates.x: 1 infinite; they are as missing",))


def test_moments_of_1970_are_a_warning():
    """A missing moment is often written as 0."""
    moments = pa.array(np.where(np.arange(N) < 3, 0, NOW - DAY), pa.int64()).cast(pa.timestamp("us", "UTC"))
    finding = quality.ranges(spec('kind = "number", make = "age"'), samples(moments))
    assert finding.examples == ("candidates.x: 9 moments over 50 years ago; is a missing one written as 0?",)


def test_requests_before_2000_are_a_warning():
    """Milliseconds that are read as seconds are not found so, seconds that are read as milliseconds are."""
    early, _ = quality.clock(NUMBER, samples(time=NOW // 1000))
    assert (early.passed, early.level, early.count) == (True, "warn", 3 * N)
    assert early.examples[0].startswith("1970-01-21T")
    assert quality.clock(NUMBER, samples())[0].count == 0


def test_a_clock_of_whole_days_is_a_note():
    """What happened on a day is seen from the next."""
    _, days = quality.clock(NUMBER, samples(time=20_514 * DAY))
    assert (days.passed, days.level, days.count) == (True, "note", 3 * N)
    assert quality.clock(NUMBER, samples())[1].count == 0


def test_without_a_clock_there_is_nothing_to_say_of_it():
    """A table of rows."""
    plain = tiny.spec().model_copy(update={"keys": tiny.spec().keys.model_copy(update={"time": None})})
    assert quality.clock(plain, samples()) == []


def test_a_task_without_an_event_in_a_split_is_a_warning():
    """Nothing happened, or nobody knows."""
    nothing = quality.labels(NUMBER, samples(click=0))
    assert (nothing.count, nothing.total) == (3, 3)
    assert nothing.examples[0] == "click: nothing happened in train"
    unknown = samples()
    unknown["test"].candidates["click"] = pa.array([-1] * N)
    assert quality.labels(NUMBER, unknown).examples == ("click: nothing is known in test",)


def test_ids_that_training_does_not_know_are_a_warning():
    """Half of them, or more; the worst first."""
    finding = quality.unknown({"validation": {"a": 1.0}, "test": {"a": 0.5, "b": 1.0, "c": 0.49}})
    assert (finding.passed, finding.level, finding.count, finding.total) == (True, "warn", 2, 3)
    assert finding.examples == ("b: 100.0% of its ids in test", "a: 50.0% of its ids in test")
