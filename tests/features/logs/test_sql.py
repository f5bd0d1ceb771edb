"""SQL expressions mean the same whatever the form of the columns, and NaN is nothing."""

from __future__ import annotations

import polars as pl
import pytest

from features.logs.sql import typed
from rec.errors import SpecError

NAN = float("nan")


def true(text: str, **columns: list) -> list:
    """The values of a condition."""
    rows = pl.DataFrame(columns, strict=False)
    read, expression = typed(text, rows, "label", lambda kind: kind == pl.Boolean or kind.is_numeric())
    return read.select(value=expression)["value"].to_list()


@pytest.mark.parametrize(
    "forms",
    [
        {"dwell": [NAN, 40.0, 3.0, None], "kind": [1, 2, 2, None], "open": [True, False, None, True]},
        {"dwell": ["NaN", "40", "3.0", ""], "kind": ["1", "2", "2", None], "open": ["True", "false", "", "1"]},
        {"dwell": ["nan", "40", "3", "\\N"], "kind": [1.0, 2.0, 2.0, NAN], "open": [1, 0, None, 1]},
    ],
    ids=["typed", "text", "mixed"],
)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dwell >= 30", [None, True, False, None]),
        ("dwell > 0", [None, True, True, None]),
        ("dwell <> 40", [None, False, True, None]),
        ("dwell BETWEEN 1 AND 50", [None, True, True, None]),
        ("kind = 2 AND dwell >= 30", [False, True, False, None]),
        ("kind IN (2, 3)", [False, True, True, None]),
        ("dwell IS NULL", [True, False, False, True]),
        ("open AND dwell >= 30", [None, False, False, None]),
        ("NOT (dwell >= 30)", [None, False, True, None]),
        ("CASE WHEN dwell >= 30 THEN 1 ELSE 0 END", [0, 1, 0, 0]),
    ],
)
def test_missing_is_never_true(forms, text, expected):
    """NaN, an empty text and a word of no value are what null is; numbers in text are numbers."""
    assert true(text, **forms) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("action = '02'", [True, False, None]),
        ("action <> 2", [False, True, None]),
        ("action IN ('02', '2')", [True, False, None]),
        ("action LIKE '0%'", [True, True, None]),
    ],
)
def test_a_column_of_text_is_what_it_is_compared_with(text, expected):
    """Beside a number a number, beside text text."""
    assert true(text, action=["02", "03", None]) == expected


@pytest.mark.parametrize("text", ["action = '2'", "action = 2", "action <> '3'"])
def test_a_number_may_be_compared_with_text(text):
    """As in a file that writes it as text."""
    assert true(text, action=[2, 3]) == [True, False]


def test_what_is_no_number_is_nothing():
    """0 / 0 is in no comparison, and neither is the root of -1; where it is not asked for, it is not looked at."""
    columns = {"watched": [0, 2, 0], "length": [0, 2, 5]}
    assert true("watched / length >= 0.5", **columns) == [None, True, False]
    assert true("watched > 0 AND watched / length >= 0.5", **columns) == [False, True, False]
    assert true("CASE WHEN length > 0 THEN watched / length >= 0.5 ELSE FALSE END", **columns) == [False, True, False]
    assert true("sqrt(watched - length) >= 0", **columns) == [True, True, None]


def test_a_word_among_numbers_is_refused():
    """With the word, and the comparison that may have been meant."""
    with pytest.raises(SpecError, match=r"label: expected a number in 'word', got 'yes'; write a comparison, such as"):
        true("word", word=["yes", "no"])
    with pytest.raises(SpecError, match=r"label: 'upper\(words\)' cannot be evaluated: "):
        true("upper(words)", words=[["a"]])
