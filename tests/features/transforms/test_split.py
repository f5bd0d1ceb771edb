"""Which requests train, validate and test."""

from __future__ import annotations

import polars as pl
import pytest

from features.transforms import split
from rec.errors import DataError
from rec.spec import parse
from tests.features import tiny

DAY = 86_400
FIRST = 1_772_323_200  # 2026-03-01


def test_a_request_is_split_by_its_first_impression():
    """From `validation` on it validates, from `test` on it tests; a request is never torn."""
    rows = [(1, 10, FIRST, 0), (2, 10, FIRST + DAY - 1, 0), (2, 10, FIRST + DAY + 1, 0)]
    rows += [(3, 10, FIRST + DAY, 0), (4, 10, FIRST + 2 * DAY, 0)]
    grouped = tiny.grouped(tiny.spec(), tiny.frame(rows))
    placed = dict(
        zip(
            grouped.rows[grouped.offsets[:-1]]["user"],
            split.assign(tiny.spec(), grouped, grouped.rows).tolist(),
            strict=True,
        )
    )
    assert placed == {1: 0, 2: 0, 3: 1, 4: 2}


def test_nothing_to_train_on_is_refused():
    """With the days there are, or the column that says so."""
    last = (FIRST + 5 * DAY) * tiny.SECOND
    with pytest.raises(DataError, match=r"split: no request is in train; the logs run from 2026-03-06T00:00:00"):
        split.refuse_none(tiny.spec(), 0, last, last)
    with pytest.raises(DataError, match=r"split: no request is in train; column 'split'"):
        split.refuse_none(BY_COLUMN, 0, None, None)
    split.refuse_none(tiny.spec(), 1, last, last)


BY_COLUMN = parse('name = "x"\nkeys = { request = "rid" }\ntasks = { a = { label = "a" } }')


def by_column(words: list[str], ids: list[str]) -> dict:
    """The splits of requests by their words."""
    grouped = tiny.grouped(BY_COLUMN, pl.DataFrame({"a": [0] * len(words), "split": words, "rid": ids}))
    return dict(zip(grouped.ids.to_pylist(), split.assign(BY_COLUMN, grouped, grouped.rows).tolist(), strict=True))


def test_a_column_may_say_it():
    """In the words train, validation and test."""
    assert by_column(["test", "train", "validation"], ["a", "b", "c"]) == {"a": 2, "b": 0, "c": 1}


@pytest.mark.parametrize(
    ("words", "ids", "message"),
    [
        (
            ["train", "tests"],
            ["a", "b"],
            r"split.column: expected one of train, .*, got 'tests'; did you mean 'test'\?",
        ),
        (["train", "test"], ["a", "a"], r"split.column: request a is in several splits"),
    ],
)
def test_a_bad_column_is_refused(words, ids, message):
    """Another word, a torn request."""
    with pytest.raises(DataError, match=message):
        by_column(words, ids)
