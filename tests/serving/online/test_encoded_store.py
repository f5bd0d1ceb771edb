from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rec import spec as specs
from rec.data.encoders import Buckets
from rec.data.session_table import to_batch
from serving.online import encoded_store
from serving.online.rank import RankService
from tests.serving.conftest import NOW, encoded, items

TIMES = st.datetimes(timezones=st.just(UTC))


@given(st.integers(0, 119), st.lists(st.integers(0, 59), unique=True, min_size=1), TIMES)
def test_known_ids_give_the_batch_that_the_door_gives(service, opened, user, ids, time):
    """The short way for requests of known ids is the whole way, value by value and type by type."""
    store = opened.store
    user_id = store.context.rows[user % len(store.context.rows)]["user_id"].as_py()
    item_ids = [store.candidates.rows[i % len(store.candidates.rows)]["item_id"].as_py() for i in ids]
    candidates = items(*dict.fromkeys(item_ids))
    request = {"time": time.isoformat(), "context": {"user_id": user_id}, "candidates": candidates}
    body = json.dumps(request).encode()
    short = encoded(service, body)
    whole = to_batch(service.row(body, NOW), opened.spec, opened.preprocessor.encoders)
    np.testing.assert_array_equal(short.owner, whole.owner)
    for short_side, whole_side in ((short.context, whole.context), (short.candidates, whole.candidates)):
        assert set(short_side) == set(whole_side)
        for name, value in whole_side.items():
            assert short_side[name].dtype == value.dtype
            assert short_side[name].flags.c_contiguous
            np.testing.assert_array_equal(short_side[name], value)


NEIGHBOURS = [
    'context.many={ kind = "number", make = "size" }',
    'candidates.cheap={ kind = "number", make = "rank", of = ["price", "item_click"] }',
    'candidates.newest={ kind = "number", make = "best", of = "listed" }',
    'candidates.dear={ kind = "number", make = "gap", of = "price", scale = "quantile" }',
]


@given(st.integers(0, 119), st.lists(st.integers(0, 59), unique=True, min_size=1), TIMES)
def test_numbers_among_their_neighbours_are_those_of_the_door(opened, scorer, user, ids, time):
    """Stored ones, one that depends on the time, one in buckets."""
    spec = specs.parse(specs.dump(opened.spec), overrides=NEIGHBOURS)
    learnt = replace(
        opened.preprocessor, encoders={**opened.preprocessor.encoders, "dear": Buckets(np.array([-1.0, 0.0, 2.0]))}
    )
    service = RankService(replace(opened, spec=spec, preprocessor=learnt), scorer, new_id=lambda: "generated")
    store = opened.store
    user_id = store.context.rows[user % len(store.context.rows)]["user_id"].as_py()
    item_ids = [store.candidates.rows[i % len(store.candidates.rows)]["item_id"].as_py() for i in ids]
    candidates = items(*dict.fromkeys(item_ids))
    request = {"time": time.isoformat(), "context": {"user_id": user_id}, "candidates": candidates}
    body = json.dumps(request).encode()
    short = encoded(service, body)
    whole = to_batch(service.row(body, NOW), spec, learnt.encoders)
    assert set(short.candidates) == set(whole.candidates) >= {"cheap_price", "cheap_item_click", "newest", "dear"}
    assert short.context["many"].tolist() == [len(candidates)]
    for name, value in whole.candidates.items():
        assert short.candidates[name].dtype == value.dtype
        assert short.candidates[name].tobytes() == value.tobytes()


def test_a_request_that_says_more_takes_the_whole_way(service):
    """Anything but two known kinds of id."""

    def short(**request):
        return encoded(service, json.dumps(request).encode())

    assert short(context={"user_id": 7}, candidates=items(3)) is not None
    assert short(context={"user_id": 7, "city": "x"}, candidates=items(3)) is None
    assert short(context={"user_id": 7}, candidates=[{"item_id": 3, "price": None}]) is None
    assert short(context={"user_id": 7}, candidates=items(3, 987654)) is None
    assert short(context={"user_id": 987654}, candidates=items(3)) is None
    assert short(context={}, candidates=items(3)) is None


def test_a_store_too_large_to_hold_twice_is_not_prepared(opened, monkeypatch):
    """Then every request takes the whole way."""
    assert encoded_store.encode_store(opened) is not None
    monkeypatch.setattr(encoded_store, "MAX_CELLS", 100)
    assert encoded_store.encode_store(opened) is None
