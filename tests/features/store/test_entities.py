"""What the store is made of: latest rows, and what is sent."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import hashing
from features.logs.dtypes import cleaned
from features.logs.logs import Logs
from features.store import state
from features.store.entities import Entities, EntityField
from features.store.request_values import RequestValues
from rec.data.session_table import field_type
from rec.errors import SpecError
from rec.spec.features import Id, Kept, Number
from tests.features import tiny

quietly = settings(deadline=None, max_examples=50)
SPEC = tiny.spec()


def test_latest_rows_keep_what_is_not_said_again():
    """A key without a row is as row 0, a new one too until something is said of it; what was seen earlier loses."""
    nothing = {"a": pa.array([None], pa.float32()), "words": pa.array([[]], pa.list_(pa.string()))}
    latest = Entities(nothing, {})
    latest.put(["x", "y"], {"a": pa.array([1, 2], pa.float32())})
    latest.see(["y", "z"], np.array([5, 5]), {"words": pa.array([["u"], ["v", "w"]])})
    latest.see(["y", "z"], np.array([4, 6]), {"words": pa.array([["late"], ["new"]])})
    rows = latest.find(["y", "q", "z", "x"])
    assert latest.take(["a"], rows)["a"].to_pylist() == [2, None, None, 1]
    assert latest.take(["words"], rows)["words"].to_pylist() == [["u"], [], ["new"], []]
    assert latest.table(["words"]).to_pylist() == [
        {"@key": "y", "@seen": 5, "words": ["u"]},
        {"@key": "z", "@seen": 6, "words": ["new"]},
    ]


KINDS = [
    (Id(kind="id"), pl.Int64(), st.integers(-5, 5)),
    (Id(kind="id", values="string"), pl.String(), st.sampled_from(["", "a", "\u00e9"])),
    (Id(kind="id", values="string"), pl.Int64(), st.integers(-5, 5)),
    (Kept(kind="kept", values="float"), pl.Float64(), st.sampled_from([0.1, 2.5])),
    (Kept(kind="kept", values="float"), pl.Int64(), st.integers(0, 9)),
    (Number(kind="number"), pl.Float64(), st.floats(-1e9, 1e9)),
    (Number(kind="number"), pl.Int16(), st.integers(-9, 9)),
    (Number(kind="number"), pl.Boolean(), st.booleans()),
]


@quietly
@given(st.data(), st.sampled_from(KINDS))
def test_values_taken_as_they_are_are_those_of_the_pipeline(data, one):
    """The short way and the way of the pipeline give the same column, and the same hashes."""
    feature, kind, values = one
    kept = data.draw(st.lists(st.one_of(st.none(), values), min_size=1, max_size=5))
    field = EntityField("f", "f", field_type(feature), "candidates", feature)
    column = cleaned(pl.Series("f", kept, kind))
    long = field.of(SPEC, column)
    assert RequestValues(SPEC, "candidates.f", kind, kept).of(field, field.direct(kind)).equals(long)
    if not kind.is_float():
        code, known = RequestValues(SPEC, "candidates.f", kind, kept).hashed
        assert known.tolist() == column.is_not_null().to_list()
        assert code[known].tolist() == hashing.hashed(column)[known].tolist()


CODED = tiny.spec(candidates='cheap = { kind = "number" }\nodd = { kind = "number" }')


def test_columns_made_by_code_are_made_in_the_store_too(tmp_path):
    """What reads a table alone is known of every row of it; what reads impressions is as it was seen last, or sent."""
    (tmp_path / "cheap.py").write_text("def cheap(price):\n    return 1 / price\n")
    (tmp_path / "odd.py").write_text("def odd(clicked, price):\n    return clicked + price\n")
    rows = tiny.frame([(1, 10, 0, 1)])
    logs = Logs.whole(rows.lazy(), None, pl.DataFrame({"item": [10, 11], "price": [4.0, 2.0]}).lazy())
    store = state.empty(CODED, Logs(logs.impressions, items=logs.items, columns=tmp_path))
    store.feed(rows)
    (row,) = store.hydrate(1, [10, 11], 1, candidates={}).to_pylist()
    assert row["candidates"] == [{"item": 10, "cheap": 0.25, "odd": 5.0}, {"item": 11, "cheap": 0.5, "odd": None}]
    (row,) = store.hydrate(1, [11], 1, candidates={"odd": [7.0]}).to_pylist()
    assert row["candidates"][0]["odd"] == 7.0
    state.save(store, tmp_path / "state")
    assert state.load(CODED, tmp_path / "state", columns=tmp_path).hydrate(1, [11], 1).num_rows == 1
    with pytest.raises(SpecError, match=r"logs.columns: 'cheap' is made by code, and no folder of such columns is giv"):
        state.load(CODED, tmp_path / "state")
