from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec import spec as specs
from rec.data.stored_rows import AS_OF, SEEN
from rec.errors import SpecError
from serving.online.ages import StoredAges
from serving.online.rank import RankService
from serving.store import EntityStore, EntityTable, RowMoments, SentColumn
from tests.reference import ages as slow
from tests.serving.conftest import NOW, items

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = 3_600_000_000
SPEC = specs.parse("""
name = "ages"
[keys]
user = "user"
item = "item"
time = "time"
[context]
user = { kind = "id", dim = 4 }
device = { kind = "id", values = "string", dim = 4 }
user_shown = { kind = "number", make = "count", per = "user" }
hour = { kind = "id", make = "hour" }
[candidates]
item = { kind = "id", dim = 4 }
price = { kind = "number" }
item_shown = { kind = "number", make = "count", per = "item" }
item_on_device = { kind = "number", make = "count", per = ["device", "item"] }
position = { kind = "id", bias = true, dim = 4 }
[tasks.click]
label = "click"
[serve]
max_feature_age = "6h"
""")
OF_LAST = {"context": {"device"}, "candidates": {"price", "position"}}
READ = {
    "context": {"device": SEEN, "user_shown": AS_OF},
    "candidates": {"price": SEEN, "item_shown": AS_OF, "item_on_device": AS_OF},
}


def table(side, as_of, seen):
    """The rows of a side by their moments; nothing looks at their values."""
    moments = RowMoments(np.array(as_of, np.int64), np.array(seen, np.int64), frozenset(OF_LAST[side]))
    return EntityTable(pa.array([{}] * len(as_of), pa.struct([])), len, moments)


def stored(users, of_items):
    """The ages of a store of which only moments are asked; pairs are missing, not borrowed."""
    keys = {"context": "user", "candidates": "item"}
    foreign = {"context": {}, "candidates": {"item_on_device": frozenset({"device"})}}
    store = EntityStore(table("context", *users), table("candidates", *of_items), {}, keys, foreign)
    return StoredAges(SPEC, store)


def sent(names, count):
    """Columns of which some rows send a value."""
    return {
        name: SentColumn(pa.nulls(count), None if all(rows) else np.array(rows, bool)) for name, rows in names.items()
    }


MOMENTS = st.tuples(st.integers(0, 9 * HOUR), st.integers(0, 9 * HOUR)).map(sorted)  # an impression, the log's end


@given(st.data())
def test_ages_are_those_of_a_loop_over_candidates_and_features(data):
    """Whatever is sent by whom, known or not: the median, the oldest, and how many are past the limit."""
    rows = data.draw(st.lists(MOMENTS, min_size=1, max_size=8))
    seen, as_of = [row[0] for row in rows], [row[1] for row in rows]
    index = np.array(data.draw(st.lists(st.integers(-1, len(rows) - 1), max_size=8)), int)
    user = data.draw(st.integers(-1, len(rows) - 1))
    which = st.lists(st.booleans(), min_size=len(index), max_size=len(index)).filter(any)
    names = {} if not len(index) else data.draw(st.dictionaries(st.sampled_from([*READ["candidates"]]), which))
    own = data.draw(st.sets(st.sampled_from([*READ["context"]])))
    context, candidates = sent({key: [True] for key in own}, 1), sent(names, len(index))
    time = 10 * HOUR
    actual = stored((as_of, seen), (as_of, seen)).of(
        time, {"context": context, "candidates": candidates}, np.array([user]), index
    )
    known = [{AS_OF: after, SEEN: before} for before, after in rows]
    by = [{name for name, sent_by in names.items() if sent_by[place]} for place in range(len(index))]
    lost = {"item_on_device"} - names.keys()
    moments = [
        slow.moment(READ["candidates"], None if row < 0 else known[row], by[place], lost)
        for place, row in enumerate(index)
    ]
    of_user = slow.moment(READ["context"], None if user < 0 else known[user], own, set())
    median, oldest, items_stale = slow.ages(time, moments, 6 * HOUR)
    assert actual.ages.candidates_median == median
    assert actual.ages.candidates_oldest == oldest
    assert actual.items == items_stale
    assert actual.ages.user == (None if of_user is None else (time - of_user) / 1e6)
    assert actual.user == (of_user is not None and time - of_user > 6 * HOUR)


def test_a_bias_and_a_pair_have_no_age():
    """A position is read by no served model, a count of a pair is missing: what is left is the item's own."""
    ages = stored(([0], [0]), ([9 * HOUR], [1 * HOUR]))
    priced = {"context": {}, "candidates": sent({"price": [True]}, 1)}
    assert ages.of(10 * HOUR, priced, None, np.array([0])).ages.candidates_oldest == 3600.0


@pytest.fixture(scope="module")
def asked(opened, scorer):
    """Answers of the shop's bundle under a limit, or under none."""

    def ask(limit, **request):
        serve = opened.spec.serve.model_copy(update={"max_feature_age": limit})
        bundle = replace(opened, spec=opened.spec.model_copy(update={"serve": serve}))
        service = RankService(bundle, scorer, new_id=lambda: "generated")
        return json.loads(service.rank(json.dumps(request).encode(), NOW).body)

    return ask


def end(opened, after):
    """A moment after the shop's log has ended, as a request's time."""
    moment = opened.store.candidates.moments.as_of[0].item() / 1e6 + after
    return {"time": (timedelta(seconds=moment) + EPOCH).isoformat(), "context": {"user_id": 7}}


def test_the_answer_says_how_old_stored_features_are(asked, opened):
    """Seconds since the end of the log that the store is of; without a limit nothing is degraded."""
    answer = asked(None, **end(opened, 7200), candidates=items(3, 4, 5))
    assert answer["features_age_s"] == {"user": 7200.0, "candidates_median": 7200.0, "candidates_oldest": 7200.0}
    assert answer["degraded"]["any"] is False


def test_past_the_limit_the_answer_is_degraded_and_says_why(asked, opened):
    """The reason, how many candidates, and the ages; at the limit all is well. Another path tells the same."""
    limit = timedelta(hours=2)
    assert asked(limit, **end(opened, 7200), candidates=items(3, 4, 5))["degraded"]["reasons"] == []
    for candidates in (items(3, 4, 5), [*items(3, 4), {"item_id": 5, "price": 1.0}]):
        degraded = asked(limit, **end(opened, 7201), candidates=candidates)["degraded"]
        assert degraded == {
            "any": True, "reasons": ["stale_features"], "items_defaulted": 0, "items_stale": 3, "user": "ok",
        }  # fmt: skip


def test_what_is_unknown_or_sent_is_not_stale(asked, opened):
    """Strangers have no age; who sends all of its features neither."""
    limit, moment = timedelta(hours=2), end(opened, 7201)
    answer = asked(limit, time=moment["time"], context={"user_id": 98765}, candidates=items(98765))
    assert answer["features_age_s"] == {"user": None, "candidates_median": None, "candidates_oldest": None}
    assert "stale_features" not in answer["degraded"]["reasons"]
    row = {name: None for name in opened.store.fields["candidates"] if name != "item_id"}
    everything = {name: None for name in opened.store.fields["context"] if name != "user_id"}
    whole = moment | {"context": {"user_id": 7} | everything, "candidates": [{"item_id": 3} | row]}
    answer = asked(limit, **whole)
    assert answer["features_age_s"]["candidates_oldest"] is answer["features_age_s"]["user"] is None
    mixed = asked(limit, **moment, candidates=[{"item_id": 3} | row, {"item_id": 4}, {"item_id": 98765}])
    assert mixed["degraded"]["items_stale"] == 1
    assert set(mixed["degraded"]["reasons"]) == {"item_unknown", "stale_features"}


def test_a_store_of_the_future_says_so(asked, opened):
    """A request of before the log's end, replayed: the age is negative, which no limit makes stale."""
    answer = asked(timedelta(0), **end(opened, -60), candidates=items(3))
    assert answer["features_age_s"] == {"user": -60.0, "candidates_median": -60.0, "candidates_oldest": -60.0}
    assert answer["degraded"]["any"] is False


def test_ages_change_no_score(asked, opened):
    """A degraded answer is scored as any other."""
    request = end(opened, 7201) | {"candidates": items(3, 4, 5)}
    assert asked(timedelta(seconds=1), **request)["candidates"] == asked(None, **request)["candidates"]


@pytest.mark.parametrize(
    ("age", "text"), [("6h", "needs keys.time; without timestamps"), ("6 hours", "expected a duration such as '30s'")]
)
def test_a_limit_needs_timestamps_and_is_a_duration(age, text):
    """Of a log without times no feature has an age."""
    with pytest.raises(SpecError, match=f"spec: serve.max_feature_age: {text}"):
        specs.parse(f'name = "x"\n[tasks.click]\nlabel = "c"\n[serve]\nmax_feature_age = "{age}"')
