"""What a column may be, from its name and its first values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pipelines.init.columns import Clock, FileGroup, among, clock, inner, roles, span, tables
from pipelines.init.features import attributes
from pipelines.init.tables import LogTable, arranged
from pipelines.init.tasks import outcomes
from rec.errors import DataError

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = int(NOON.timestamp())


def table(**columns: object) -> FileGroup:
    """A table that nobody read from a file."""
    return FileGroup(("log.csv",), (), pl.DataFrame(columns))


def shaped(*several: FileGroup):
    """What some tables are."""
    return arranged([LogTable(each, roles(each)) for each in several])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([SECOND], Clock("s")),
        ([SECOND * 10**3], Clock("ms")),
        ([SECOND * 10**6], Clock("us")),
        ([SECOND * 10**9], Clock("ns")),
        ([SECOND, SECOND * 1000], Clock("auto")),
        ([20260302, 20260303], Clock(form="%Y%m%d")),
        ([NOON], Clock()),
        ([NOON.date()], Clock()),
        (["2026-03-02T12:00:00Z", "2026-03-03"], Clock()),
        (["02.03.2026", "24.03.2026"], Clock(form="%d.%m.%Y")),
        (["6-4", "12-31"], Clock(form="%m-%d")),
        ([1, 2, 3], None),
        (["phone"], None),
        ([True], None),
        ([timedelta(1)], None),
        ([], None),
    ],
)
def test_a_clock_is_told_from_its_values(values, expected):
    """Its unit, or its form."""
    assert clock(pl.Series(values)) == expected


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"user_id": [1], "item_id": [2], "timestamp": [SECOND]}, ("user_id", "item_id", "timestamp")),
        (
            {"visitorid": [1], "itemid": [2], "time_ms": [SECOND * 1000], "date": [20260302]},
            ("visitorid", "itemid", "time_ms"),
        ),
        (
            {"uid": [1], "click_article_id": [2], "click_timestamp": [SECOND]},
            ("uid", "click_article_id", "click_timestamp"),
        ),
        ({"reader_id": [1], "story_id": [2], "shown_at": [SECOND]}, ("reader_id", "story_id", "shown_at")),
        ({"customer": ["a"], "product_name": ["p"], "sku": ["x"], "odd": ["2026-03-02"]}, ("customer", "sku", "odd")),
    ],
)
def test_keys_are_found_by_name(columns, expected):
    """The finest clock of several."""
    columns = {name: values * 2 for name, values in columns.items()}
    if "time_ms" in columns:
        columns["time_ms"] = [SECOND * 1000, SECOND * 1000 + 1]
    actual = roles(table(**columns))
    assert (actual.user, actual.item, actual.time) == expected


def test_labels_are_zero_and_one_with_a_name():
    """Amounts and moments beside them are outcomes, and no features; what looks like none may be one of either."""
    actual = roles(
        table(
            item_id=[1, 2], is_click=[0, 1], bought=[False, True], premium=[0, 1], clicks=[3, 0], watch_time=[0, 41],
            is_click_time=[None, NOON], like=[0, 2], position=[1, 2],
        )
    )  # fmt: skip
    assert actual.labels == ("is_click", "bought")
    assert actual.outcomes == ("watch_time", "is_click_time")
    assert actual.kept == ("position",)


def test_lists_are_told_from_text():
    """As a CSV writes them."""
    actual = roles(table(a=["3|7", "4"], b=["[3, 7]", "[]"], c=[[1], [2]], d=["red shoe", "blue shoe"]))
    assert actual.lists == ("a", "b", "c")
    assert inner(pl.Series(["3|7"])) == "int"
    assert inner(pl.Series(["x|y"])) == "string"
    assert inner(pl.Series([[0.5]])) is None
    assert among(pl.Series(["3|7"]), pl.Series([3, 7, 9]))
    assert not among(pl.Series(["3|7"]), pl.Series([[1], [2]]))


def test_files_of_the_same_columns_are_one_table(tmp_path):
    """Looked at from both ends, so that the whole span of time is known."""
    for day in range(3):
        pl.DataFrame({"item_id": [1], "time": [SECOND + 86_400 * day]}).write_csv(tmp_path / f"{day}.csv")
    pl.DataFrame({"item_id": [1], "price": [2.0]}).write_parquet(tmp_path / "items.parquet")
    log, items = tables(sorted(map(str, tmp_path.glob("*"))))
    assert (len(log.logs), len(log.rows), items.rows.columns) == (3, 2, ["item_id", "price"])
    assert span(log, roles(log)) == (NOON, NOON + timedelta(days=2))
    assert span(items, roles(items)) is None


def test_a_table_with_one_row_per_key_is_beside_the_log():
    """Or with several, told apart by a timestamp."""
    log = table(user_id=[1, 1], item_id=[5, 6], time=[SECOND, SECOND], click=[0, 1])
    users = table(user_id=[1, 2], age=[30, 40])
    items = table(item_id=[5, 5], since=[NOON, NOON + timedelta(1)], price=[1.0, 2.0])
    actual = shaped(log, users, items)
    assert actual.users is not None
    assert actual.items is not None
    assert (actual.source, actual.users.since, actual.items.since) == ("impressions", None, "since")


def test_a_table_without_an_item_is_refused():
    """With the columns there are."""
    with pytest.raises(DataError, match=r"expected a table with an item, .* the columns are: a, b"):
        shaped(table(a=[1], b=[2]))


def test_what_changes_inside_a_request_is_a_candidates():
    """And what follows the item; what does not, is the context's."""
    log = table(
        request_id=[1, 1, 2, 2], user_id=[1, 1, 2, 2], item_id=[5, 6, 5, 6], time=[SECOND] * 2 + [SECOND + 9] * 2,
        click=[0, 1, 0, 1], device=["a", "a", "b", "b"], price=[1.0, 2.0, 1.0, 2.0], slot=[1, 2, 2, 1],
        always=[1, 1, 1, 1], never=[None] * 4,
    )  # fmt: skip
    actual = {attribute.name: (attribute.side, attribute.text) for attribute in attributes(shaped(log))}
    assert actual["device"] == ("context", '{ kind = "id", values = "string", dim = 4 }')
    assert actual["price"] == ("candidates", '{ kind = "number" }')
    assert actual["slot"][0] == "candidates"
    assert actual["always"][1] is None
    assert actual["never"][1] is None


def test_a_moment_after_the_impression_is_no_feature():
    """It is an outcome under another name."""
    times = {"time": [NOON] * 3, "listed": [NOON - timedelta(d) for d in (1, 2, 3)], "left": [NOON + timedelta(1)] * 3}
    times["left"][0] += timedelta(1)
    log = table(user_id=[1, 2, 3], item_id=[5, 6, 7], click=[0, 1, 0], **times)
    actual = {attribute.name: (attribute.text, attribute.why) for attribute in attributes(shaped(log))}
    assert actual["listed"][0] == '{ kind = "number", make = "age", scale = "log" }'
    assert actual["left"] == (None, "says when something was after the impression")


def test_a_child_is_told_from_its_parent():
    """It never is where the parent is not, and is seen less often."""
    log = table(item_id=[1] * 4, click=[1, 1, 1, 0], cart=[1, 1, 0, 0], buy=[1, 0, 0, 0], like=[0, 1, 0, 1])
    assert {outcome.name: (outcome.label, outcome.given) for outcome in outcomes(shaped(log))} == {
        "click": ("click = 1", None),
        "cart": ("click = 1 AND cart = 1", "click"),
        "buy": ("cart = 1 AND buy = 1", "cart"),
        "like": ("like = 1", None),
    }


def test_a_rating_is_high_or_not():
    """Where nothing is 0 or 1."""
    log = table(item_id=[1, 2, 3, 4], rating=[1, 3, 5, 3], time=[SECOND] * 4)
    assert [(outcome.name, outcome.label) for outcome in outcomes(shaped(log))] == [("rating_high", "rating > 3")]
