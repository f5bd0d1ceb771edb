"""Columns that the spec names: which table has them, and what the side tables say at a timestamp."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from features.logs.logs import LazySideTable, Logs, columns_in
from features.transforms import joins
from rec.errors import DataError, SpecError
from tests.features import tiny

ROWS = tiny.frame([(1, 10, 0, 0), (2, 11, 1, 1), (9, None, 2, 0)])
USERS = pl.DataFrame({"user": pl.Series([2, 1], dtype=pl.Int32), "age": [20, 10], "seen": [[11], None]})
ITEMS = pl.DataFrame({"item": [10, 11], "price": [1.5, 2.5], "age": [7, 8]})
AGE = tiny.spec(context='age = { kind = "number", column = "users.age" }', candidates='price = { kind = "number" }')
PRICE = tiny.spec(candidates='price = { kind = "number" }')


def origins(spec=AGE, rows=ROWS, users=USERS, items=ITEMS) -> dict[str, joins.ColumnOrigin]:
    """Where the columns of the spec are found."""
    logs = Logs.whole(rows.lazy(), users.lazy(), items.lazy())
    return joins.origins(spec, {"impressions": columns_in(logs.impressions), **joins.side_schemas(spec, logs)})


def table(name: str, frame: pl.DataFrame, spec=AGE, since: str | None = None) -> joins.SideTable:
    """A side table with the columns that the spec names."""
    tables = origins(spec, **{name: frame})
    side = joins.side_table(spec, name, LazySideTable(frame.lazy(), since), tables, key_kind=pl.Int64())
    assert side is not None
    return side


def joined(side: joins.SideTable, rows: pl.DataFrame = ROWS) -> pl.DataFrame:
    """Rows with all of a side table's columns, as of the timestamp of each row."""
    return side.joined(rows, side.columns, rows["time"].to_numpy() * tiny.SECOND)


def test_a_side_table_is_joined_in_the_order_of_the_rows():
    """Who is unknown, or nobody, has nothing."""
    assert joined(table("items", ITEMS))["price"].to_list() == [1.5, 2.5, None]
    seen = tiny.spec(context='seen = { kind = "ids" }')
    assert joined(table("users", USERS, seen))["seen"].to_list() == [None, [11], None]


def test_what_only_the_context_needs_is_not_needed_per_candidate():
    """A list per user is never repeated per candidate; what something counts by is needed for every impression."""
    assert origins()["users.age"] == joins.ColumnOrigin("users", per_request=True)
    assert origins()["price"] == joins.ColumnOrigin("items", per_request=False)
    both = tiny.spec(
        context='age = { kind = "number", column = "users.age" }\n'
        'n = { kind = "number", make = "count", per = ["users.age", "price"] }'
    )
    assert not origins(both)["users.age"].per_request


def test_columns_nobody_names_are_not_read():
    """So that a wide log costs what is used of it."""
    assert set(origins()) == {"user", "item", "time", "clicked", "users.age", "price"}
    assert table("items", ITEMS).columns == ["price"]


def test_a_side_table_of_several_rows_per_key_is_as_of_just_before_a_moment():
    """A row that begins at the very moment is not seen; before the first there is nothing."""
    changing = pl.DataFrame({"item": [10, 10, 11], "since": [3, 1, 1], "price": [3.0, 1.0, 9.0]})
    rows = tiny.frame([(1, 10, second, 0) for second in (4, 3, 2, 1)] + [(1, 11, 9, 0), (1, None, 9, 0)])
    side = table("items", changing, PRICE, since="since")
    assert joined(side, rows)["price"].to_list() == [3.0, 1.0, 1.0, None, 9.0, None]
    assert side.latest().sort("item").rows() == [(10, 3.0), (11, 9.0)]


def test_a_column_of_both_side_tables_is_told_apart_by_its_table():
    """`users.age` and `items.age`; the bare name is refused."""
    both = tiny.spec(candidates='item_age = { kind = "number", column = "items.age" }')
    assert joined(table("items", ITEMS, both))["items.age"].to_list() == [7, 8, None]
    with pytest.raises(
        SpecError, match=r"context.age: column 'age' is in users and in items; say users.age or items.age"
    ):
        origins(tiny.spec(context='age = { kind = "number" }'))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            tiny.spec(candidates='prise = { kind = "number" }'),
            r"candidates.prise: no column 'prise' .*; did you mean 'price'\?",
        ),
        (tiny.spec(context='x = { kind = "number", make = "count", per = "itm" }'), r"context.x.per: no column 'itm'"),
        (
            tiny.spec(tasks='t = { label = "clickd" }'),
            r"tasks.t.label: no column 'clickd' .*; did you mean 'clicked'\?",
        ),
        (
            tiny.spec(tasks='[events]\ne = { label = "clickd" }'),
            r"events.e.label: no column 'clickd' .*; did you mean 'clicked'\?",
        ),
    ],
)
def test_a_column_nothing_has_is_refused_before_a_row_is_read(spec, message):
    """Where the spec names it, and the nearest there is."""
    with pytest.raises(SpecError, match=message):
        origins(spec)


def test_a_key_nothing_has_is_refused():
    """Keys are columns of impressions."""
    with pytest.raises(SpecError, match=r"keys.time: no column 'time' in the logs; did you mean 'timed'\?"):
        origins(rows=ROWS.rename({"time": "timed"}))


def test_side_tables_have_one_row_per_key():
    """Rows without a key are left out; a second row of one user is refused, and a second from the same timestamp on."""
    nobody = pl.concat([USERS, USERS.with_columns(user=pl.lit(None, pl.Int32))])
    assert len(table("users", nobody).rows) == 2
    with pytest.raises(DataError, match=r"users: expected one row per user, got several of 2 \(4 such rows\)"):
        table("users", pl.concat([USERS, USERS.with_columns(age=pl.col("age") + 1)]))
    again = pl.DataFrame({"item": [10, 10], "since": [1, 1], "price": [3.0, 1.0]})
    with pytest.raises(DataError, match=r"items: expected one row per item and since, got several of 10 \(2 such"):
        table("items", again, PRICE, since="since")


def test_rows_of_a_side_table_that_are_alike_are_one():
    """In every column that is read; rows of one key that differ are refused as before."""
    twice = table("users", pl.concat([USERS, USERS]))
    assert (len(twice.rows), twice.repeats) == (len(table("users", USERS).rows), len(table("users", USERS).rows))
    (finding,) = joins.repeats(AGE, {"users": twice})
    assert (finding.level, finding.count) == ("note", twice.repeats)


def test_side_tables_have_the_key_in_the_same_type():
    """int32 meets int64, and text that is a number; words do not meet numbers."""
    with pytest.raises(DataError, match=r"items: no column 'item', by which it is joined \(keys.item\)"):
        table("items", ITEMS.rename({"item": "sku"}), PRICE)
    assert table("items", ITEMS.cast({"item": pl.String}), PRICE).rows["item"].dtype == pl.Int64
    with pytest.raises(DataError, match=r"items: items: column 'item': expected an id \(int\), got 'x'"):
        table("items", ITEMS.with_columns(item=pl.lit("x")), PRICE)


def test_a_table_without_the_moment_its_rows_begin_is_refused():
    """With the nearest column."""
    with pytest.raises(DataError, match=r"items: no column 'snce', the timestamp .*; did you mean 'since'\?"):
        table("items", ITEMS.with_columns(since=0), PRICE, since="snce")


def test_a_key_is_lacking_where_the_table_has_nothing_of_it_yet():
    """For whatever moment in a plain table; up to the first row's in one that changes."""
    keys, moments = pl.DataFrame({"item": [10, 10, 11, 12]}), np.array([1, 4, 4, 4]) * tiny.SECOND
    assert table("items", ITEMS).lacks(keys, moments).to_list() == [False, False, False, True]
    changing = pl.DataFrame({"item": [10, 11], "since": [3, 1], "price": [3.0, 9.0]})
    assert table("items", changing, PRICE, since="since").lacks(keys, moments).to_list() == [True, False, False, True]
