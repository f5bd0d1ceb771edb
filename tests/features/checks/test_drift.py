"""How far test is from train: the index against its formula, what is a bucket, and what chance does."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.checks import drift
from features.checks.sample import Sample
from rec.spec import Spec
from tests.features import tiny

N = 2000
RNG = np.random.default_rng(5)
NUMBER = tiny.spec(candidates='x = { kind = "number" }')


def sample(values: pa.Array) -> Sample:
    """A request per value."""
    ids = pa.array(np.arange(len(values)))
    candidates = {"item": pa.array(np.zeros(len(values), np.int64)), "x": values}
    return Sample({"user": ids}, candidates, np.arange(len(values)), np.arange(len(values)))


def of(spec: Spec, train: pa.Array, test: pa.Array) -> float:
    """The index of `x`."""
    return drift.of(spec, {"train": sample(train), "test": sample(test)})["candidates.x"]


def floats(values: np.ndarray) -> pa.Array:
    """A column of numbers."""
    return pa.array(values, pa.float32(), from_pandas=True)


def test_the_index_is_its_formula():
    """By hand, with half a row added to every bucket."""
    p, q = np.array([10.5, 30.5]) / 41, np.array([20.5, 20.5]) / 41
    expected = (q[0] - p[0]) * np.log(q[0] / p[0]) + (q[1] - p[1]) * np.log(q[1] / p[1])
    assert drift.psi(np.array([10, 30]), np.array([20, 20])) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=9))
def test_the_index_has_no_direction_and_is_never_below_nothing(rows):
    """0 where the shares agree; empty buckets are finite."""
    train, test = np.array(rows).T
    index = drift.psi(train, test)
    assert index >= -1e-12
    assert index == pytest.approx(drift.psi(test, train))
    assert drift.psi(train, train) == pytest.approx(0)


def test_a_number_that_moves_is_found_and_one_that_stays_is_not():
    """A shift of one deviation is a lot; another draw of the same is nothing."""
    train = RNG.normal(0, 1, N)
    assert of(NUMBER, floats(train), floats(RNG.normal(1, 1, N))) > 0.25
    assert of(NUMBER, floats(train), floats(RNG.normal(0, 1, N))) == 0


def test_what_is_missing_is_a_bucket():
    """A column that is lost for half of the test rows has moved, though what is left is alike."""
    values = RNG.normal(0, 1, N)
    half = np.where(np.arange(N) % 2, values, np.nan)
    assert of(NUMBER, floats(values), floats(half)) > 0.25


def test_ids_are_the_frequent_ones_and_all_others():
    """A new value falls in with the rare ones, a frequent one that goes is seen."""
    spec = tiny.spec(candidates='x = { kind = "id", values = "string" }')
    words = np.array(["a"] * 900 + ["b"] * 900 + [f"c{i}" for i in range(200)])
    assert of(spec, pa.array(words), pa.array(words[::-1])) == 0
    gone = np.where(words == "a", "new", words)
    assert of(spec, pa.array(words), pa.array(gone)) > 0.25
    lost = pa.array([None if word == "a" else word for word in words], pa.string())
    assert of(spec, pa.array(words), lost) > 0.25


def test_lists_are_as_long_as_they_are():
    """A history that is full in test and was empty in training."""
    spec = tiny.spec(candidates='x = { kind = "ids", make = "tokens", values = "string" }')
    short, long = (pa.array([["a"] * n for _ in range(N)]) for n in (0, 3))
    assert of(spec, short, long) > 0.25


def test_small_logs_have_moved_less_than_they_look():
    """Twenty rows of the same distribution have an index above 0.25, which is chance."""
    train, test = RNG.normal(0, 1, (2, 20))
    edges = np.quantile(train, np.arange(1, 10) / 10)
    plain = drift.psi(*(np.bincount(np.searchsorted(edges, x), minlength=10) for x in (train, test)))
    assert plain > 0.25
    assert of(NUMBER, floats(train), floats(test)) == 0


def test_a_split_without_requests_has_not_moved():
    """There is nothing to compare."""
    none = sample(floats(np.zeros(0)))
    assert drift.of(NUMBER, {"train": sample(floats(np.zeros(9))), "test": none}) == {}


def test_the_farthest_are_a_warning_and_a_little_is_a_note():
    """By how much, and for what grows with the log, what would help."""
    spec = tiny.spec(
        candidates='x = { kind = "number" }\n'
        'n = { kind = "number", make = "count", per = "item" }\n'
        'w = { kind = "number", make = "count", per = "item", window = "1d" }'
    )
    moved = {"candidates.n": 1.5, "candidates.w": 0.5, "candidates.x": 0.2, "context.user": 0.0}
    far, some = drift.findings(spec, moved)
    assert (far.passed, far.level, far.count, far.total) == (True, "warn", 2, 4)
    assert far.examples == (
        "candidates.n: PSI 1.50; it covers more past than in train; a window would even that out",
        "candidates.w: PSI 0.50",
    )
    assert (some.passed, some.level, some.examples) == (True, "note", ("candidates.x: PSI 0.20",))
