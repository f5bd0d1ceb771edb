"""The rules of the store, one by one: moments, windows, what is sent, late rows and events, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest

from features.logs.logs import EventLog, LazySideTable, Logs
from features.pipeline import build
from features.pipeline.build import BuildOptions
from features.store import state
from features.store.store import FeatureStore
from rec.data.session_table import schema
from rec.errors import BundleError, DataError, SpecError
from rec.progress import Silent
from tests.features import tiny

SPEC = tiny.spec(
    context='seen = { kind = "ids", make = "history", task = "click", last = 2 }\n'
    'ago = { kind = "ids", make = "gaps", task = "click" }\n'
    'city = { kind = "id", values = "string" }',
    candidates='n = { kind = "number", make = "count", per = "item", window = "10s" }\n'
    'r = { kind = "number", make = "rate", per = "item", task = "click", prior = 1.0 }\n'
    'when = { kind = "number", make = "since", per = "item", task = "click" }\n'
    'first = { kind = "number", make = "since_first", per = "item" }\n'
    'price = { kind = "number" }',
    window=3,
)
USERS = pl.DataFrame({"user": [1, 2], "city": ["a", "b"]})
ITEMS = pl.DataFrame({"item": [10, 11], "price": [1.0, 2.0]})
SECOND = tiny.SECOND


def shop(rows: list[tuple] = (), spec=SPEC) -> FeatureStore:
    """A store of two users and two items, fed with rows of (user, item, second, clicked)."""
    store = state.empty(spec, Logs.whole(tiny.frame([(1, 10, 0, 0)]).lazy(), USERS.lazy(), ITEMS.lazy()))
    store.feed(tiny.frame(list(rows)))
    return store


def hydrated(store: FeatureStore, second: float, user: int | None = 1, items: tuple = (10,), **sent) -> dict:
    """The one row that a store makes."""
    (row,) = store.hydrate(user, items, round(second * SECOND), **sent).to_pylist()
    return row


@pytest.mark.parametrize(("more", "seen"), [(0, 0), (1, 1)])
def test_a_leak_of_one_microsecond_is_caught(more, seen):
    """An impression at T is not known to a request at T; one microsecond later it is, and its click a window later."""
    assert hydrated(shop([(1, 10, 5, 1)]), 5 + more / SECOND)["candidates"][0]["n"] == seen
    assert len(hydrated(shop([(1, 10, 5, 1)]), 8 + more / SECOND)["context"]["seen"]) == seen


@pytest.mark.parametrize(("more", "seen"), [(0, 1), (1, 0)])
def test_a_window_ends_to_the_microsecond(more, seen):
    """What became known a window ago is in it still, and is not a microsecond later."""
    assert hydrated(shop([(1, 10, 5, 0)]), 15 + more / SECOND)["candidates"][0]["n"] == seen


def test_the_row_has_the_schema_of_a_request_without_labels():
    """A record batch of one row, so that it goes through the one door."""
    rows = shop().hydrate(1, [10, 11], datetime(2026, 3, 1, tzinfo=UTC), request_id="r1")
    assert rows.schema == schema(SPEC, labels=False)
    assert rows.to_pylist()[0]["request_id"] == "r1"
    assert rows["time"].cast(pa.int64()).to_pylist() == [1_772_323_200 * SECOND]


def test_what_is_sent_wins_over_what_is_stored():
    """A price of today, a missing one, and a city that the table of users does not know yet."""
    row = hydrated(shop(), 1, items=(10, 11), context={"city": "c"}, candidates={"price": [9.5, None]})
    assert row["context"]["city"] == "c"
    assert [candidate["price"] for candidate in row["candidates"]] == [9.5, None]


def test_strangers_are_known_by_nothing_but_their_ids():
    """An unknown user and an unknown item, and nobody at all."""
    row = hydrated(shop([(1, 10, 0, 1)]), 60, user=7, items=(99,))
    assert row["context"] == {"user": 7, "seen": [], "ago": [], "city": None}
    assert row["candidates"] == [{"item": 99, "n": 0.0, "r": None, "when": None, "first": None, "price": None}]
    assert hydrated(shop([(1, 10, 0, 1)]), 60, user=None)["context"]["seen"] == []


def test_a_rate_is_missing_until_an_hour_has_passed():
    """In the first hour of a log, whatever the item itself saw; then an item nobody saw has the rate of all."""
    store = shop([(1, 10, 0, 1)])
    rates = [[candidate["r"] for candidate in hydrated(store, at, items=(10, 99))["candidates"]] for at in (60, 3600)]
    base = (1 + 1) / (1 + 2)
    assert rates == [[None, None], [pytest.approx((1 + base) / (1 + 1)), pytest.approx(base)]]


def test_a_rate_given_an_event_is_of_the_impressions_where_it_happened():
    """Long reads among the clicks: an impression without a click counts neither for the item nor for all."""
    spec = tiny.spec(
        candidates='r = { kind = "number", make = "rate", per = "item", task = "long", given = "click", prior = 1.0 }',
        tasks="[events]\nlong = { label = 'clicked = 1 AND \"user\" = 2' }",
    )
    store = shop([(2, 10, 0, 1), (1, 10, 1, 1), (1, 10, 2, 0), (2, 11, 3, 1), (2, 11, 4, 0)], spec)
    base = (2 + 1) / (3 + 2)
    rates = [candidate["r"] for candidate in hydrated(store, 3600, items=(10, 11, 99))["candidates"]]
    assert rates == pytest.approx([(1 + base) / (2 + 1), (1 + base) / (1 + 1), base])


def test_a_request_without_candidates_is_one():
    """Nothing was to be shown."""
    assert hydrated(shop(), 1, items=())["candidates"] == []


def test_the_clock_does_not_go_back():
    """A timestamp before one that was asked about is refused; the same timestamp is not."""
    store = shop()
    hydrated(store, 5)
    hydrated(store, 5)
    with pytest.raises(DataError, match=r"time: the store is at 1970-01-01T00:00:05.000000Z, got .*04.0+Z; it cannot"):
        hydrated(store, 4)


def test_rows_of_a_table_can_be_replaced():
    """A new price holds from now on; what is not said of an item stays away."""
    store = shop()
    store.describe("items", pl.DataFrame({"item": [11, 12], "price": [5.0, 6.0]}))
    assert [candidate["price"] for candidate in hydrated(store, 1, items=(10, 11, 12))["candidates"]] == [1.0, 5.0, 6.0]


def test_rows_that_hold_from_a_moment_hold_from_then_on():
    """A price that changes at second 5 is the old one at 5, and the new one a microsecond later."""
    prices = pl.DataFrame({"item": [10], "price": [1.0], "from": [0]})
    logs = Logs.whole(tiny.frame([(1, 10, 0, 0)]).lazy(), USERS.lazy())
    store = state.empty(SPEC, Logs(logs.impressions, logs.users, LazySideTable(prices.lazy(), since="from")))
    store.describe("items", pl.DataFrame({"item": [10, 11], "price": [7.0, 8.0], "from": [5, 9]}), since="from")
    moments = [5, 5.000001, 9, 9.000001]
    prices_by_time = [
        [candidate["price"] for candidate in hydrated(store, at, items=(10, 11))["candidates"]] for at in moments
    ]
    assert prices_by_time == [[1.0, None], [7.0, None], [7.0, None], [7.0, 8.0]]


@pytest.mark.parametrize(
    ("table", "columns", "since", "text"),
    [
        ("item", {"item": [1], "price": [1.0]}, None, r"item: no such table; did you mean 'items'\?"),
        ("items", {"item": [1], "prise": [1.0]}, None, r"items: no column 'price'; did you mean 'prise'\?"),
        ("items", {"item": [1], "price": ["x"]}, None, r"price: expected Float64, got 'x'"),
        ("items", {"item": [1], "price": [1.0]}, "at", r"items: expected rows without a timestamp they hold from"),
    ],
)
def test_rows_of_a_table_that_do_not_fit_are_refused(table, columns, since, text):
    """Another table, column, type, or a timestamp where none is kept."""
    with pytest.raises(DataError, match=text):
        shop().describe(table, pl.DataFrame(columns), since=since)


def test_repeats_are_one_impression():
    """Fed together or one after the other, while it may still change something."""
    store = shop([(1, 10, 5, 0), (1, 10, 5, 0)])
    assert store.feed(tiny.frame([(1, 10, 5, 0)])) == 0
    assert hydrated(store, 6)["candidates"][0]["n"] == 1


def test_a_post_that_is_sent_again_changes_nothing(tmp_path):
    """Long after its window, in a store that was saved in between; after an hour a row is another one."""
    store = shop([(1, 10, 5, 1)])
    store.advance(1800 * SECOND)
    assert store.feed(tiny.frame([(1, 10, 5, 1), (1, 10, 1700, 0)])) == 1
    state.save(store, tmp_path / "state")
    store = state.load(SPEC, tmp_path / "state")
    assert store.feed(tiny.frame([(1, 10, 5, 1), (1, 10, 1700, 0)])) == 0
    assert store.feed(tiny.frame([(1, 10, 9000, 0)])) == store.feed(tiny.frame([(1, 10, 5, 1)])) == 1


def test_events_that_are_sent_again_are_not_counted_again():
    """As impressions are: the first of those alike is kept."""
    store = clicking([(1, 10, 100, 0)], within=timedelta(minutes=10))
    click = pl.DataFrame({"user": [1, 1], "item": [10, 10], "time": [101, 101]})
    store.happened("clicked", click)
    before = store.open_windows.rows
    assert all(finding.total == 0 for finding in store.happened("clicked", click))
    assert store.open_windows.rows.equals(before)


def clicking(rows: list[tuple], within: timedelta | None = None) -> FeatureStore:
    """A store of a shop whose clicks are logged apart, fed with impressions."""
    shown = tiny.frame(rows).drop("clicked")
    kinds = {"clicked": pl.Int8, "clicked_time": pl.Datetime("us", "UTC")}
    logged = shown.with_columns(pl.lit(None, kind).alias(name) for name, kind in kinds.items())
    fed = state.empty(SPEC, Logs.whole(logged.lazy(), USERS.lazy(), ITEMS.lazy()))
    log = EventLog((), within=within)
    store = FeatureStore(SPEC, fed.like, fed.origins, sides=fed.sides, happened={"clicked": log})
    store.feed(shown)
    return store


def test_an_event_that_is_fed_late_puts_right_what_was_counted_without_it():
    """Its window had closed; from now on it happened, in totals, in bases, in last timestamps and in histories."""
    store = clicking([(1, 10, 3590, 0)], within=timedelta(minutes=1))
    row = hydrated(store, 3610)
    base = (0 + 1) / (1 + 2)
    assert (row["context"]["seen"], row["candidates"][0]["when"]) == ([], None)
    assert row["candidates"][0]["r"] == pytest.approx((0 + base) / (1 + 1))
    store.happened("clicked", pl.DataFrame({"user": [1], "item": [10], "time": [3591]}))
    row = hydrated(store, 3610)
    base = (1 + 1) / (1 + 2)
    assert row["context"]["seen"] == [10]
    assert row["candidates"][0]["r"] == pytest.approx((1 + base) / (1 + 1))
    assert row["candidates"][0]["when"] == datetime(1970, 1, 1, 0, 59, 50, tzinfo=UTC)


def test_events_arrive_after_their_impression():
    """A click fed apart counts as of its window's end, one that comes too late does not; an unknown log is refused."""
    rows = tiny.frame([(1, 10, 0, 0), (1, 11, 0, 0)]).drop("clicked")
    store = clicking([(1, 10, 0, 0), (1, 11, 0, 0)])
    store.happened("clicked", pl.DataFrame({"user": [1, 1], "item": [10, 11], "time": [2, 4]}))
    assert hydrated(store, 3)["context"]["seen"] == []
    row = hydrated(store, 4)
    assert (row["context"]["seen"], row["context"]["ago"]) == ([10], [3])
    with pytest.raises(DataError, match=r"click: no such log of events; did you mean 'clicked'\?"):
        store.happened("click", rows)
    (lost, _) = store.happened("clicked", pl.DataFrame({"user": [2], "item": [10], "time": [5]}))
    assert (lost.count, lost.total) == (1, 1)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ({"context": {"town": "a"}}, r"context.town: no such feature or column"),
        ({"candidates": {"prise": [1.0]}}, r"candidates.prise: no such feature or column; did you mean 'price'\?"),
        ({"candidates": {"price": [1.0, 2.0]}}, r"candidates.price: expected 1 values, one per item, got 2"),
        ({"candidates": {"price": ["cheap"]}}, r"candidates.price: expected Float64, got 'cheap'"),
        ({"user": "bob"}, r"context.user: expected Int64, got 'bob'"),
        ({"items": ("x",)}, r"candidates.item: expected Int64, got 'x'"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(sent, text):
    """A name, a length, a type: the message says which."""
    with pytest.raises(DataError, match=text):
        hydrated(shop(), 5, **sent)


def test_impressions_that_do_not_fit_are_refused():
    """A column that is not there, one of another type, and a row without an item."""
    store, rows = shop(), tiny.frame([(1, 10, 5, 0)])
    with pytest.raises(DataError, match=r"impressions: no column 'clicked'; did you mean 'clicks'\?"):
        store.feed(rows.rename({"clicked": "clicks"}))
    with pytest.raises(DataError, match=r"user: expected Int64, got 'bob'"):
        store.feed(rows.with_columns(pl.lit("bob").alias("user")))
    with pytest.raises(DataError, match=r"impressions: item: 1 of 1 rows have none"):
        store.feed(rows.with_columns(pl.lit(None, pl.Int64).alias("item")))


def test_a_store_needs_a_clock(tmp_path):
    """Without keys.time nobody knows what came before what."""
    text = 'name = "a"\nkeys = { user = "user", item = "item" }\nsplit = { column = "split" }\n'
    text += '[context]\nuser = { kind = "id" }\n[candidates]\nitem = { kind = "id" }\n[tasks.click]\nlabel = "clicked"'
    rows = tiny.frame([(1, 10, 5, 0)]).with_columns(pl.lit("train").alias("split"))
    spec, logs = tiny.parse(text), Logs.whole(rows.lazy())
    with pytest.raises(SpecError, match=r"keys.time: a store needs the column with the timestamp of an impression"):
        state.empty(spec, logs)
    with pytest.raises(SpecError, match=r"keys.time: a store needs the column with the timestamp of an impression"):
        build.build(spec, logs, tmp_path / "data", progress=Silent(), how=BuildOptions(snapshot=True))


def test_a_state_of_another_spec_is_refused(tmp_path):
    """Other windows make other totals; another learning rate does not."""
    state.save(shop(), tmp_path / "state")
    with pytest.raises(BundleError, match=r"state: was written for a spec with other keys, features, events or tasks"):
        state.load(tiny.spec(window=4), tmp_path / "state")
    assert hydrated(state.load(SPEC, tmp_path / "state"), 1)["candidates"][0]["price"] == 1.0


def test_a_state_that_is_not_whole_is_refused(tmp_path):
    """A file is missing."""
    state.save(shop(), tmp_path / "state")
    (tmp_path / "state" / "recent.arrow").unlink()
    with pytest.raises(BundleError, match=r"recent.arrow: missing table of a store's state"):
        state.load(SPEC, tmp_path / "state")


def test_what_is_long_past_is_forgotten():
    """The queue of open windows holds what may still change something, and not the whole log."""
    store = shop([(1, 10, second, 0) for second in range(0, 600, 5)])
    hydrated(store, 600)
    assert len(store.open_windows) <= 6
