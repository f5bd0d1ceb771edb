from __future__ import annotations

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.errors import BundleError
from rec.trees import ensemble
from tests.reference import trees as reference

NARROW = st.floats(width=32, allow_nan=False, allow_infinity=False)


def grown(seed: int = 1, **settings) -> tuple[lightgbm.Booster, np.ndarray]:
    """Trees of 400 rows and five columns, of which two have missing values, and the rows."""
    random = np.random.default_rng(seed)
    columns = random.normal(size=(400, 5)).astype(np.float32)
    columns[:, 3] = random.integers(0, 4, 400)
    columns[random.random(400) < 0.2, 1] = columns[random.random(400) < 0.3, 4] = np.nan
    label = (np.nan_to_num(columns[:, 0] * columns[:, 4]) + columns[:, 3] > 1).astype(float)
    about = {"objective": "binary", "num_leaves": 8, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1}
    return lightgbm.train({**about, **settings}, lightgbm.Dataset(columns, label), 12), columns


@given(NARROW, st.integers(-2, 2), st.floats(allow_nan=False, allow_infinity=False))
def test_a_narrow_threshold_has_the_same_columns_below_it(number, steps, threshold):
    """X <= t for the float64 t exactly if x <= t32, for x beside t and anywhere."""
    if abs(threshold) < float(np.finfo(np.float32).max):
        beside = np.float32(threshold)
        for _ in range(abs(steps)):
            beside = np.nextafter(beside, np.float32(np.inf if steps > 0 else -np.inf))
        if np.isfinite(beside):
            assert (beside <= ensemble.below(np.array([threshold]))[0]) == (float(beside) <= threshold)
    assert (np.float32(number) <= ensemble.below(np.array([threshold]))[0]) == (number <= threshold)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_trees_are_those_of_the_library_and_of_the_slow_twin(seed):
    """At random rows, at missing values in every column, and at every threshold and the float32 on both sides of it."""
    booster, columns = grown(seed)
    trees = ensemble.parse(booster.model_to_string(), 5, "planted")
    edges = []
    for column, threshold in zip(trees.column, trees.threshold, strict=True):
        for value in (threshold, *(np.nextafter(threshold, np.float32(way)) for way in (-np.inf, np.inf))):
            row = columns[len(edges) % 400].copy()
            row[column] = value
            edges.append(row)
    holes = np.where(np.random.default_rng(seed).random((200, 5)) < 0.4, np.nan, columns[:200])
    rows = np.concatenate([columns, holes.astype(np.float32), np.array(edges, np.float32)])
    np.testing.assert_allclose(trees.raw(rows), booster.predict(rows, raw_score=True), atol=1e-12)
    dump = booster.dump_model()
    few = np.concatenate([rows[:100], rows[400:500], rows[-100:]])
    by_hand = [reference.raw(dump, row) for row in few.astype(np.float64).tolist()]
    np.testing.assert_allclose(trees.raw(few), by_hand, atol=1e-12)


def test_a_tree_without_a_split_is_a_number():
    """As of labels that nothing tells apart."""
    booster, columns = grown(min_data_in_leaf=400)
    trees = ensemble.parse(booster.model_to_string(), 5, "planted")
    assert len(trees.column) == 0
    np.testing.assert_allclose(trees.raw(columns), booster.predict(columns, raw_score=True), atol=1e-12)


def test_a_text_model_that_is_none_of_ours_is_refused():
    """No trees, a node that is its own ancestor, a column that is not there, numbers that are none, another split."""
    text = grown()[0].model_to_string()
    child = next(line for line in text.splitlines() if line.startswith("left_child="))
    wrong = {
        "it has no tree": text.partition("\nTree=0")[0],
        "a node whose child comes before it": text.replace(child, "left_child=0" + child[len("left_child=") + 1 :], 1),
        "not a text model": text.replace("leaf_value=", "leaf_value=x ", 1),
        "expected 7 numbers": text.replace("threshold=", "threshold=1 ", 1),
        "categorical splits": text.replace("num_cat=0", "num_cat=1", 1),
    }
    for words, planted in wrong.items():
        with pytest.raises(BundleError, match=words):
            ensemble.parse(planted, 5, "planted")
    with pytest.raises(BundleError, match=r"planted: expected splits of 2 columns, got one of column 4"):
        ensemble.parse(text, 2, "planted")
