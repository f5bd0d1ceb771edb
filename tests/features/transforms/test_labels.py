"""Labels: expressions over columns, what they were when their windows closed, and what they must not meet."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from features.transforms import labels
from rec.errors import SpecError
from rec.spec import Spec
from tests.features import tiny

ROWS = pl.DataFrame({"clicked": [1, 1, 0, None], "dwell": [40, None, None, None], "word": ["yes", "no", "yes", None]})


def evaluated(expression: str, rows: pl.DataFrame = ROWS) -> list[int]:
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
    assert evaluated(expression) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("dwel >= 30", r"tasks.long.label: no column 'dwel' in the logs; did you mean 'dwell'\?"),
        ("dwell >=", r"tasks.long.label: not an SQL expression: "),
        ("dwell", r"tasks.long.label: expected 0 or 1, got 40; write a comparison, such as 'dwell > 0'"),
        (
            "word",
            r"tasks.long.label: expected a number in 'word', got 'yes'; write a comparison, such as .word = 'yes'",
        ),
        ("word > 3", r"tasks.long.label: expected a number in 'word', got 'yes'; write a comparison"),
        ("SUM(clicked) > 1", r"tasks.long.label: expected one value per impression, got 1 for 4 impressions"),
    ],
)
def test_a_bad_label_is_refused(expression, message):
    """Where, what, and the nearest column."""
    with pytest.raises(SpecError, match=message):
        evaluated(expression)


@pytest.mark.parametrize(
    "label", ["dwell > AVG(dwell)", "ROW_NUMBER() OVER (ORDER BY dwell) = 1", "LAG(dwell) OVER (ORDER BY dwell) > 3"]
)
def test_a_label_reads_its_own_row_only(label):
    """An aggregate and a window function look at impressions to come."""
    rows = pl.DataFrame({"clicked": [0, 1] * 20, "dwell": range(40), "word": ["yes"] * 40})
    message = r"depends on other rows of the log \(an aggregate or a window function\); expected an expression"
    with pytest.raises(SpecError, match=message):
        evaluated(label, rows)


@pytest.mark.parametrize(
    "feature",
    [
        'clicked = { kind = "number" }',
        'x = { kind = "id", column = "clicked" }',
        'x = { kind = "ids", column = "clicked" }',
        'x = { kind = "number", make = "age", column = "clicked" }',
        'x = { kind = "number", make = "count", per = "clicked" }',
        'x = { kind = "number", make = "since", per = ["item", "clicked"] }',
        'x = { kind = "number", make = "mean", per = "clicked", column = "clicked", task = "click" }',
    ],
)
def test_a_feature_of_a_labels_column_is_a_leak(feature):
    """However it reads the column."""
    (leak,) = labels.leaks(tiny.spec(candidates=feature))
    assert "reads 'clicked', a column of the label of task 'click'" in leak


def test_a_behaviour_that_no_task_predicts_has_a_label_too():
    """It is read as a task's is, refused as a task's is, and no feature may read its column."""
    spec = tiny.spec(tasks="[events]\nlong = { label = 'dwell >= 30' }", candidates='dwell = { kind = "number" }')
    assert labels.read(spec, ROWS)["long"].tolist() == [1, -1, -1, -1]
    (leak,) = labels.leaks(spec)
    assert leak.startswith("candidates.dwell: reads 'dwell', a column of the label of ")
    with pytest.raises(SpecError, match=r"events.long.label: no column 'dwel' in the logs; did you mean 'dwell'\?"):
        labels.read(tiny.spec(tasks="[events]\nlong = { label = 'dwel >= 30' }"), ROWS)


def test_a_label_may_be_carried_and_its_past_may_be_read():
    """Kept columns are no input, and a history of past dwell times is past."""
    carried = tiny.spec(candidates='clicked = { kind = "kept" }')
    past = tiny.spec(context='x = { kind = "ids", make = "history", column = "clicked" }')
    assert labels.leaks(carried) == labels.leaks(past) == []


def test_a_history_of_what_was_shown_holds_no_outcome_that_takes_a_while():
    """Known five seconds later, it would be seen before; of a behaviour it is seen when its window has passed."""
    early = 'x = { kind = "ids", make = "history", column = "clicked" }'
    (leak,) = labels.leaks(tiny.spec(context=early, window=5))
    assert leak == "context.x: reads 'clicked', a column of the label of task 'click'"
    assert labels.leaks(tiny.spec(context=early.replace(" }", ', task = "click" }'), window=5)) == []


def test_what_an_event_says_is_not_known_when_it_is_shown():
    """No attribute, no count and no history of all shown may read it; a history of those who did it may."""
    evaluated = ["bought", "bought_time", "bought_count", "paid"]
    task = "[tasks.buy]\nlabel = 'bought'"
    for side, feature in (
        ("candidates", 'paid = { kind = "number" }'),
        ("candidates", 'n = { kind = "number", make = "count", per = "bought_count" }'),
        ("context", 'x = { kind = "ids", make = "history", column = "paid", task = "click" }'),
        ("context", 'x = { kind = "ids", make = "history", column = "paid" }'),
    ):
        (early,) = labels.too_early(tiny.spec(**{side: feature, "tasks": task}), "bought", evaluated)
        assert "of source.events.bought" in early
    fine = 'x = { kind = "ids", make = "history", column = "paid", task = "buy" }'
    assert labels.too_early(tiny.spec(context=fine, tasks=task), "bought", evaluated) == []


DWELL = 'predict = "log"'


def dwelt(expression: str, more: str = DWELL, rows: pl.DataFrame = ROWS) -> list[float | None]:
    """The quantity of every row, given a click; None where it is not observed."""
    spec = tiny.spec(tasks=f'stay = {{ label = "{expression}", given = "click", {more} }}')
    return pl.Series(labels.read(spec, rows)["stay"], nan_to_null=True).to_list()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("dwell", [40.0, None, 0.0, None]),
        ("dwell / 10", [4.0, None, 0.0, None]),
        ("CASE WHEN clicked THEN 7 END", [7.0, 7.0, 0.0, None]),
        ("CASE WHEN word = 'yes' THEN dwell ELSE 1 END", [40.0, 1.0, 0.0, 1.0]),
    ],
)
def test_a_quantity_is_a_number_and_nothing_without_its_parent(expression, expected):
    """Unknown after a click, 0 without one, unknown where nobody knows of a click."""
    assert dwelt(expression) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("word", r"tasks.stay.label: expected a number in 'word', got 'yes'; write a comparison"),
        ("dwell > 3", r"tasks.stay.label: expected a number, got Boolean"),
        ("dwel", r"tasks.stay.label: no column 'dwel' in the logs; did you mean 'dwell'\?"),
    ],
)
def test_what_is_no_quantity_is_refused(expression, message):
    """As a bad label is."""
    with pytest.raises(SpecError, match=message):
        dwelt(expression)


@pytest.mark.parametrize(("value", "shown"), [(-1.5, "-1.5"), (float("inf"), "inf")])
def test_an_impossible_quantity_is_found(value, shown):
    """Negative or infinite: with how many, and who; what it means is for the spec to say."""
    spec = tiny.spec(tasks=f'stay = {{ label = "dwell", {DWELL} }}')
    rows = tiny.frame([(1, 10, 0, 1), (1, 11, 1, 0), (2, 11, 1, 0)]).with_columns(dwell=pl.Series([2.0, value, None]))
    (finding,) = labels.below_nothing(spec, labels.read(spec, rows), rows)
    assert (finding.name, finding.count, finding.total) == ("tasks.stay.label", 1, 2)
    assert finding.text.startswith(f"stay is a number of 0 or more, got {shown}; what it means")
    assert finding.examples == ("user=1 item=11 time=1",)


def test_a_quantity_without_its_parent_is_found():
    """Some of it where there was no click; none of it is no fault."""
    spec = tiny.spec(tasks=f'stay = {{ label = "dwell", given = "click", {DWELL} }}')
    rows = tiny.frame([(1, 10, 0, 1), (1, 11, 1, 0), (2, 11, 1, 0)]).with_columns(dwell=pl.Series([2.0, 3.0, 0.0]))
    (finding,) = labels.orphans(spec, labels.read(spec, rows), rows)
    assert (finding.passed, finding.count, finding.total) == (False, 1, 2)
    assert finding.text == "stay without click; write its label as 'CASE WHEN clicked = 1 THEN dwell END'"


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
    assert finding.text == "buy without click; write its label as '(clicked = 1) AND (bought)'"


def settled(seconds: list[int], clicked: list, *, window: int, end: int, late: list | None = None):
    """Labels of impressions at some seconds at the end of the log, and what was found about their windows."""
    spec = tiny.spec(window=window, tasks=f'stay = {{ label = "dwell", predict = "log", window = "{window}s" }}')
    rows = tiny.frame([(1, 10, second, outcome) for second, outcome in zip(seconds, clicked, strict=True)])
    rows = tiny.read(spec, rows.with_columns(dwell=pl.lit(2.0)))
    if late is not None:
        moments = pl.Series([None if at is None else round(at * tiny.SECOND) for at in late], dtype=pl.Int64)
        rows = rows.with_columns(clicked_time=moments.cast(pl.Datetime("us", "UTC")))
    return labels.settled(spec, labels.read(spec, rows), rows, end * tiny.SECOND)


@pytest.mark.parametrize(
    ("window", "end", "expected"), [(0, 3, [1, 0, -1]), (5, 9, [1, 0, -1]), (5, 8, [1, -1, -1]), (5, 4, [-1, -1, -1])]
)
def test_a_window_that_has_not_closed_says_nothing(window, end, expected):
    """Neither that it happened nor that it did not; one of no length is always closed. Quantities likewise."""
    evaluated, findings = settled([0, 4, 4], [1, 0, None], window=window, end=end)
    assert evaluated["click"].tolist() == expected
    assert evaluated["click"].dtype == np.int8
    closed = [window == 0 or second + window <= end for second in (0, 4, 4)]
    np.testing.assert_array_equal(evaluated["stay"], np.where(closed, np.float32(2), np.float32("nan")))
    (finding,) = [f for f in findings if f.name == "tasks.click.window" and "not closed" in f.text]
    assert (finding.passed, finding.count) == (True, sum(not is_closed for is_closed in closed[:2]))


def test_what_came_later_than_its_window_did_not_happen_in_time():
    """It is counted, and said; to the microsecond."""
    evaluated, findings = settled([0, 0, 0], [1, 1, 1], window=5, end=99, late=[5, 5.000001, None])
    assert evaluated["click"].tolist() == [1, 0, 1]
    finding = findings[0]
    assert (finding.name, finding.passed, finding.count, finding.total) == ("tasks.click.window", True, 1, 3)
    assert finding.text == "click came after its window of 0:00:05: counted as not happened"
    assert finding.examples == ("user=1 item=10 time=0",)


def test_without_a_clock_every_window_is_closed():
    """A table of rows knows what came of them."""
    spec = tiny.spec(window=5)
    evaluated, findings = labels.settled(spec, labels.read(spec, ROWS), ROWS, None)
    assert evaluated["click"].tolist() == [1, 1, 0, -1]
    assert findings == []


@pytest.mark.parametrize(("late", "count"), [([-1, 0, 7], 1), ([-7, -0.000001, None], 2), ([None, 0, 0], 0)])
def test_what_came_before_its_impression_is_warned_of(late, count):
    """A clock is wrong, or 0 stands for what did not happen; a date, midnight, is some time of its day."""
    seconds = [10, 20, 30]
    late = [None if after is None else second + after for second, after in zip(seconds, late, strict=True)]
    _, findings = settled(seconds, [1, 1, 1], window=9, end=99, late=late)
    warned = [f for f in findings if f.level == "warn"]
    text = "click came before its impression, and is counted as happened; do the clocks agree?"
    assert [(f.count, f.text) for f in warned] == [(count, text)] * bool(count)
    _, findings = settled(seconds, [1, 0, 1], window=9, end=99, late=[0, -5, 0])
    assert not [f for f in findings if f.level == "warn"]
