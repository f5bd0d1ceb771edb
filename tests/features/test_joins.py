"""Impressions and side tables: only what is needed, and only what fits."""

from __future__ import annotations

import polars as pl
import pytest

from features import joins
from features.logs import Logs
from rec.errors import DataError, SpecError
from tests.features import tiny

ROWS = tiny.frame([(1, 10, 0, 0), (2, 11, 1, 1), (9, None, 2, 0)])
USERS = pl.DataFrame({"user": pl.Series([2, 1], dtype=pl.Int32), "age": [20, 10], "seen": [[11], None]})
ITEMS = pl.DataFrame({"item": [10, 11], "price": [1.5, 2.5], "age": [7, 8]})
AGE = tiny.spec(context='age = { kind = "number", column = "users.age" }', candidates='price = { kind = "number" }')


def read(spec=AGE, rows=ROWS, users=USERS, items=ITEMS) -> joins.Table:
    """What is read of them."""
    return joins.read(spec, Logs(rows.lazy(), users.lazy(), items.lazy()))


def test_items_are_joined_to_impressions_and_users_to_requests():
    """In the log's order; who is unknown has nothing; a list per user is not repeated per candidate."""
    table = read(tiny.spec(context='seen = { kind = "ids" }', candidates='price = { kind = "number" }'))
    assert table.rows["price"].to_list() == [1.5, 2.5, None]
    assert "seen" not in table.rows.columns
    rows = joins.with_users(AGE, table.rows, table.users)
    assert rows["seen"].to_list() == [None, [11], None]


def test_a_context_may_read_an_items_column():
    """That of its request's first item."""
    table = read(tiny.spec(context='price = { kind = "number" }'))
    assert table.rows["price"].to_list() == [1.5, 2.5, None]


def test_columns_nobody_names_are_not_read():
    """So that a wide log costs what is used of it."""
    assert set(read().rows.columns) == {"user", "item", "time", "clicked", "price", "@time"}


def test_a_column_of_both_side_tables_is_told_apart_by_its_table():
    """`users.age` and `items.age`; the bare name is refused."""
    both = 'item_age = { kind = "number", column = "items.age" }'
    assert read(tiny.spec(candidates=both)).rows["items.age"].to_list() == [7, 8, None]
    with pytest.raises(
        SpecError, match=r"context.age: column 'age' is in users and in items; say users.age or items.age"
    ):
        read(tiny.spec(context='age = { kind = "number" }'))


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
    ],
)
def test_a_column_nothing_has_is_refused_before_a_row_is_read(spec, message):
    """Where the spec names it, and the nearest there is."""
    with pytest.raises(SpecError, match=message):
        read(spec)


def test_a_key_nothing_has_is_refused():
    """Keys are columns of impressions."""
    with pytest.raises(SpecError, match=r"keys.time: no column 'time' in the logs; did you mean 'timed'\?"):
        read(rows=ROWS.rename({"time": "timed"}))


def test_side_tables_have_one_row_per_key():
    """Rows without a key are left out; a second row of one user is refused."""
    nobody = pl.concat([USERS, USERS.with_columns(user=pl.lit(None, pl.Int32))])
    assert read(users=nobody).users is not None
    with pytest.raises(DataError, match=r"users: expected one row per user, got several of 2 \(4 such rows\)"):
        read(users=pl.concat([USERS, USERS]))


def test_side_tables_have_the_key_in_the_same_type():
    """int32 meets int64; words do not meet numbers."""
    with pytest.raises(DataError, match=r"items: no column 'item', by which it is joined \(keys.item\)"):
        read(items=ITEMS.rename({"item": "sku"}))
    with pytest.raises(DataError, match=r"items: column 'item' is String, but Int64 among the impressions"):
        read(items=ITEMS.cast({"item": pl.String}))
