"""Labels: expressions over columns, and what they must not meet."""

from __future__ import annotations

import polars as pl
import pytest

from features import labels
from rec.errors import DataError, SpecError
from rec.spec import Spec
from tests.features import tiny

ROWS = pl.DataFrame({"clicked": [1, 1, 0, None], "dwell": [40, None, None, None], "word": ["yes", "no", "yes", None]})


def made(expression: str, rows: pl.DataFrame = ROWS) -> list[int]:
    """The label of every row."""
    spec = tiny.spec(tasks=f'long = {{ label = "{expression}" }}')
    return labels.read(spec, rows)["long"].tolist()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("clicked", [1, 1, 0, -1]),
        ("clicked = 1", [1, 1, 0, -1]),
        ("clicked AND dwell >= 30", [1, -1, 0, -1]),
        ("NOT clicked", [0, 0, 1, -1]),
        ("clicked OR word = 'yes'", [1, 1, 1, -1]),
        ("word = 'yes'", [1, 0, 1, -1]),
        ("dwell BETWEEN clicked AND dwell", [1, -1, -1, -1]),
        ("dwell IS NOT NULL", [1, 0, 0, 0]),
        ("CASE WHEN clicked THEN dwell > 50 ELSE FALSE END", [0, -1, 0, 0]),
    ],
)
def test_a_label_is_an_expression(expression, expected):
    """1 it happened, 0 it did not, -1 not observed; a column of 0 and 1 stands for a condition."""
    assert made(expression) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("dwel >= 30", r"tasks.long.label: no column 'dwel' in the logs; did you mean 'dwell'\?"),
        ("dwell >=", r"tasks.long.label: not an SQL expression: "),
        ("dwell", r"tasks.long.label: expected 0 or 1, got 40; write a comparison, such as 'dwell > 0'"),
        ("word", r"tasks.long.label: expected 0 or 1, got String; write a comparison"),
        ("word > 3", r"tasks.long.label: 'word > 3' cannot be worked out: "),
        ("SUM(clicked) > 1", r"tasks.long.label: expected one value per impression, got 1 for 4 impressions"),
    ],
)
def test_a_bad_label_is_refused(expression, message):
    """Where, what, and the nearest column."""
    with pytest.raises(SpecError, match=message):
        made(expression)


@pytest.mark.parametrize(
    "feature",
    [
        'clicked = { kind = "number" }',
        'x = { kind = "id", column = "clicked" }',
        'x = { kind = "ids", column = "clicked" }',
        'x = { kind = "number", make = "age", column = "clicked" }',
        'x = { kind = "number", make = "count", per = "clicked" }',
    ],
)
def test_a_feature_of_a_labels_column_is_a_leak(feature):
    """However it reads the column."""
    (leak,) = labels.leaks(tiny.spec(candidates=feature))
    assert "reads 'clicked', of which the label of task 'click' is made" in leak


def test_a_label_may_be_carried_and_its_past_may_be_read():
    """Kept columns are no input, and a history of past dwell times is past."""
    kept = tiny.spec(candidates='clicked = { kind = "kept" }')
    past = tiny.spec(context='x = { kind = "ids", make = "history", column = "clicked" }')
    assert labels.leaks(kept) == labels.leaks(past) == []


def chain() -> tuple[Spec, pl.DataFrame]:
    """Two purchases, one of them without a click."""
    spec = tiny.spec(tasks='buy = { label = "bought", given = "click" }')
    rows = tiny.frame([(1, 10, 0, 1), (1, 11, 1, 0)]).with_columns(bought=pl.Series([1, 1]))
    return spec, rows


def test_a_child_without_its_parent_is_found():
    """With how many, and who."""
    spec, rows = chain()
    (finding,) = labels.orphans(spec, labels.read(spec, rows), rows)
    assert (finding.passed, finding.count, finding.total) == (False, 1, 2)
    assert finding.examples == ("user=1 item=11 time=1",)
    with pytest.raises(
        DataError, match=r"tasks.buy: 1 of 2: buy without click; write its label as '\(clicked = 1\) AND"
    ):
        labels.refuse([finding])
