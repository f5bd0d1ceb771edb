from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data.session_table import TIME, side_fields
from rec.data.stored_rows import AS_OF, KEY, OF_LAST, SEEN
from rec.errors import BundleError
from rec.spec import parse
from serving.store import SentColumn, load

SPEC = """
name = "s"
[keys]
user = "user_id"
item = "item_id"
[split]
column = "split"
[context]
user_id = { kind = "id", values = "string" }
seen = { kind = "ids" }
[candidates]
item_id = { kind = "id" }
price = { kind = "number" }
tags = { kind = "ids", values = "string" }
[tasks.click]
label = "click"
"""


def moments(count, time=5):
    """The moments of so many stored rows."""
    return {name: pa.array([time] * count, pa.int64()).cast(TIME) for name in (AS_OF, SEEN)}


def write(path, table):
    """An Arrow file."""
    path.parent.mkdir(exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def written(folder, ids):
    """A store of two users and of the given items: an item's price is its id."""
    spec = parse(SPEC)
    users = {"@key": ["ann", "bob"], "user_id": ["ann", "bob"], "seen": [[1, 2], None]}
    items = {"@key": ids, "item_id": ids, "price": [float(i % 1000) for i in ids], "tags": [[str(i)] for i in ids]}
    for side, features, columns in (("context", spec.context, users), ("candidates", spec.candidates, items)):
        fields = side_fields(features)
        shape = pa.schema(
            [pa.field("@key", fields[0].type), *(pa.field(name, TIME) for name in (AS_OF, SEEN)), *fields]
        )
        write(folder / f"{side}.arrow", pa.table(columns | moments(len(columns["@key"])), schema=shape))
    return load(spec, folder)


@pytest.fixture
def store(tmp_path):
    """Items 1, 5 and 9."""
    return written(tmp_path, [1, 5, 9])


def hydrated(store, side, count, **sent):
    """Hydrated rows as Python values."""
    return store.hydrate(side, sent, count).rows.to_pylist()


def test_what_is_not_sent_comes_from_the_store(store):
    """Known users and items are filled in."""
    assert hydrated(store, "context", 1, user_id=SentColumn(pa.array(["ann"]))) == [{"user_id": "ann", "seen": [1, 2]}]
    rows = hydrated(store, "candidates", 2, item_id=SentColumn(pa.array([9, 1])))
    assert rows == [{"item_id": 9, "price": 9.0, "tags": ["9"]}, {"item_id": 1, "price": 1.0, "tags": ["1"]}]


def test_of_the_unknown_only_the_id_is_kept(store):
    """Everything else is null, and it is said who was unknown."""
    filled = store.hydrate("candidates", {"item_id": SentColumn(pa.array([5, 77]))}, 2)
    assert filled.rows.to_pylist()[1] == {"item_id": 77, "price": None, "tags": None}
    assert filled.known.tolist() == [True, False]


def test_what_is_sent_wins(store):
    """For every candidate that sent it, null included; the others keep what is stored."""
    price = SentColumn(pa.array([2.5, None, None], pa.float32()), np.array([True, True, False]))
    rows = hydrated(store, "candidates", 3, item_id=SentColumn(pa.array([1, 5, 9])), price=price)
    assert [row["price"] for row in rows] == [2.5, None, 9.0]


def test_lists_can_be_sent_for_some_candidates_only(store):
    """Nested columns are merged like any other."""
    tags = SentColumn(pa.array([None, ["x"]], pa.list_(pa.string())), np.array([False, True]))
    rows = hydrated(store, "candidates", 2, item_id=SentColumn(pa.array([1, 5])), tags=tags)
    assert [row["tags"] for row in rows] == [["1"], ["x"]]


def test_no_id_and_null_ids_are_unknown(store):
    """A request may come from nobody in particular."""
    assert hydrated(store, "context", 1) == [{"user_id": None, "seen": None}]
    assert store.hydrate("context", {"user_id": SentColumn(pa.array([None], pa.string()))}, 1).known.tolist() == [False]
    assert store.hydrate("candidates", {"item_id": SentColumn(pa.array([None], pa.int64()))}, 1).known.tolist() == [
        False
    ]


def test_no_candidates_are_no_rows(store):
    """An empty request is hydrated like any other."""
    assert hydrated(store, "candidates", 0) == []


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=30), st.booleans(), st.data())
def test_every_key_is_found_and_nothing_else(tmp_path_factory, keys, dense, data):
    """Dense or sparse, negative or huge: the row of a key is where it was written."""
    keys = sorted({key % 100 for key in keys}) if dense else sorted(keys)
    store = written(tmp_path_factory.mktemp("store"), keys)
    ids = data.draw(st.lists(st.sampled_from([*keys, -1, 0, 3, 2**63 - 1, -(2**63)]), max_size=10))
    place = {key: index for index, key in enumerate(keys)}
    assert store.candidates is not None
    rows = store.candidates.lookup(pa.array(ids, pa.int64()))
    assert rows.tolist() == [place.get(key, -1) for key in ids]


def test_a_spec_without_keys_has_no_store(tmp_path):
    """Then a request must bring every feature itself."""
    spec = parse('name = "s"\n[split]\ncolumn = "s"\n[candidates]\nprice = { kind = "number" }\n[tasks.c]\nlabel = "c"')
    store = load(spec, tmp_path)
    filled = store.hydrate("candidates", {"price": SentColumn(pa.array([1.5], pa.float32()))}, 1)
    assert filled.rows.to_pylist() == [{"price": 1.5}]
    assert filled.known is None
    assert store.hydrate("context", {}, 1).rows.to_pylist() == [{}]


def broken(folder, **columns):
    """The error of a store in which these columns are something else."""
    row = {"@key": [1], "item_id": [1], "price": pa.array([1.0], pa.float32()), "tags": [["a"]]} | columns
    table = pa.table(moments(len(row["@key"])) | row)
    written(folder, [1])
    write(folder / "candidates.arrow", table)
    with pytest.raises(BundleError) as error:
        load(parse(SPEC), folder)
    return str(error.value)


def test_a_store_of_another_schema_is_refused(tmp_path):
    """The error names the column."""
    assert broken(tmp_path, price=["cheap"]) == "candidates.arrow: price: expected float, got string"
    two = {"item_id": [1, 2], "price": pa.array([1.0, 1.0], pa.float32()), "tags": [["a"], ["a"]]}
    assert "@key: expected sorted keys without repeats" in broken(tmp_path, **{"@key": [2, 1]}, **two)
    assert "@key: expected no null, got 1" in broken(tmp_path, **{"@key": [1, None]}, **two)
    assert broken(tmp_path, **{AS_OF: [5]}) == "candidates.arrow: @as_of: expected timestamp[us, tz=UTC], got int64"
    some = {"@key": [1, 2], **two, SEEN: pa.array([5, None], pa.int64()).cast(TIME)}
    assert broken(tmp_path, **some) == "candidates.arrow: @seen: expected a moment in every row or in none, got some"


def test_a_store_knows_when_its_rows_were_true(tmp_path):
    """Two moments a row, and the features that are of the last impression; nothing of logs without timestamps."""
    table = written(tmp_path, [1, 2]).candidates
    assert (table.moments.as_of.tolist(), table.moments.seen.tolist()) == ([5, 5], [5, 5])
    assert table.moments.of_last == set()
    path = tmp_path / "candidates.arrow"
    plain = pa.ipc.open_file(path).read_all()
    price = plain.schema.get_field_index("price")
    write(path, plain.set_column(price, plain.schema.field(price).with_metadata(OF_LAST), plain["price"]))
    assert load(parse(SPEC), tmp_path).candidates.moments.of_last == {"price"}
    unknown = plain.set_column(1, AS_OF, pa.nulls(2, TIME)).set_column(2, SEEN, pa.nulls(2, TIME))
    write(path, unknown)
    assert load(parse(SPEC), tmp_path).candidates.moments is None


def test_a_missing_store_is_refused(tmp_path):
    """A spec that names a key has a store."""
    written(tmp_path, [1])
    (tmp_path / "context.arrow").unlink()
    with pytest.raises(BundleError, match=r"context\.arrow: missing table of the store"):
        load(parse(SPEC), tmp_path)


def test_the_store_is_mapped(opened):
    """Opening it takes no memory for its rows: workers share the pages of the file."""
    before = pa.total_allocated_bytes()
    store = load(opened.spec, opened.path / "store")
    assert store.candidates is not None
    assert pa.total_allocated_bytes() - before < 1_000


PAIRS = parse("""
name = "pairs"
[keys]
user = "user"
item = "item"
time = "time"
[context]
user = { kind = "id", dim = 4 }
device = { kind = "id", values = "string", dim = 4 }
user_shown = { kind = "number", make = "count", per = "user" }
device_shown = { kind = "number", make = "count", per = "device" }
[candidates]
item = { kind = "id", dim = 4 }
shop = { kind = "id", dim = 4 }
shop_shown = { kind = "number", make = "count", per = "shop" }
item_on_device = { kind = "number", make = "count", per = ["device", "item"] }
[tasks.click]
label = "click"
""")


@pytest.fixture
def pairs(tmp_path):
    """A store of one user and two items, with counts of whatever request came last."""
    write(
        tmp_path / "context.arrow",
        pa.table(
            {
                KEY: [7],
                **moments(1),
                "user": [7],
                "device": ["ios"],
                "user_shown": pa.array([5.0], pa.float32()),
                "device_shown": pa.array([900.0], pa.float32()),
            }
        ),
    )
    write(
        tmp_path / "candidates.arrow",
        pa.table(
            {
                KEY: [1, 2],
                **moments(2),
                "item": [1, 2],
                "shop": [4, 4],
                "shop_shown": pa.array([30.0, 30.0], pa.float32()),
                "item_on_device": pa.array([11.0, 12.0], pa.float32()),
            }
        ),
    )
    return load(PAIRS, tmp_path)


def sent(**columns):
    """Columns of a request."""
    return {name: SentColumn(pa.array(values)) for name, values in columns.items()}


def test_what_depends_on_a_pair_is_missing_and_not_borrowed(pairs):
    """A count per device and item is that of whoever came last: null, unless it is sent; the shop's is the item's."""
    rows = pairs.hydrate("candidates", sent(item=[1, 2]), 2).rows.to_pylist()
    assert [row["item_on_device"] for row in rows] == [None, None]
    assert [row["shop_shown"] for row in rows] == [30.0, 30.0]
    assert pairs.lost("candidates", sent(item=[1])) == {"item_on_device"}
    given_by_request = sent(item=[1]) | {"item_on_device": SentColumn(pa.array([3.0], pa.float32()))}
    assert pairs.hydrate("candidates", given_by_request, 1).rows.to_pylist()[0]["item_on_device"] == 3.0
    assert pairs.lost("candidates", given_by_request) == set()


def test_what_belongs_to_another_device_is_missing(pairs):
    """The user's own counts stay; those of the device go when the request comes from a device that it names."""
    row = pairs.hydrate("context", sent(user=[7], device=["android"]), 1).rows.to_pylist()[0]
    assert (row["user_shown"], row["device_shown"], row["device"]) == (5.0, None, "android")
    assert pairs.lost("context", sent(user=[7], device=["android"])) == {"device_shown"}
    assert pairs.hydrate("context", sent(user=[7]), 1).rows.to_pylist()[0]["device_shown"] == 900.0
    assert pairs.lost("context", sent(user=[7])) == set()
