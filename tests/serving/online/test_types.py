"""Every kind of feature, from a spec to an answer: session table, fit, training, ONNX, endpoint and encoded store."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rec.atomic import write_bytes, write_json
from rec.data import arrow_file, preprocessor, splits
from rec.data.session_table import TIME, schema, side_fields, to_batch
from rec.data.stored_rows import AS_OF, SEEN
from rec.progress import Silent
from rec.spec import dump, parse
from rec.training import trainer
from serving import bundle as bundles
from serving import export
from serving.batch import score_rows
from serving.graph.signature import expected_inputs
from serving.online.problems import RequestError
from serving.online.rank import RankService
from serving.scorer import Scorer
from tests.reference import door as slow
from tests.serving.conftest import encoded

SPEC = parse("""
name = "kinds"
[keys]
user = "user"
item = "item"
time = "time"
[context]
user = { kind = "id", dim = 4 }
city = { kind = "id", values = "string", dim = 4 }
hour = { kind = "id", make = "hour", dim = 4 }
here = { kind = "id", make = "cross", of = ["city", "hour"], rows = 40, dim = 4 }
home = { kind = "id", make = "cross", of = ["user", "city"], rows = 40, dim = 4 }
taste = { kind = "vector", size = 3 }
quiet = { kind = "number", make = "since", scale = "quantile", buckets = 4, dim = 4 }
asked = { kind = "number", make = "session_requests" }
seen = { kind = "ids", make = "history", table = "item", last = 3 }
gaps = { kind = "ids", make = "gaps", last = 3, dim = 4 }
[candidates]
item = { kind = "id", dim = 4 }
group = { kind = "id", values = "string", dim = 4 }
price = { kind = "number", scale = "quantile", buckets = 4, dim = 8 }
listed = { kind = "number", make = "age", scale = "log" }
words = { kind = "ids", make = "tokens", values = "string", last = 3, dim = 4 }
picture = { kind = "vector", size = 2 }
match = { kind = "id", make = "cross", of = ["group", "city"], rows = 50, dim = 4 }
when = { kind = "id", make = "cross", of = ["hour", "item"], rows = 50, dim = 4 }
own = { kind = "id", make = "cross", of = ["item", "group"], rows = 50, dim = 4 }
[tasks.click]
label = "click"
negatives = 0.5
[tasks.buy]
label = "buy"
given = "click"
[model]
name = "mmoe"
experts = 2
expert_widths = [8]
tower_widths = [4]
[model.attention]
kind = "din"
[model.feature_gating]
kind = "senet"
[train]
batch = 128
epochs = 1
device = "cpu"
""")
NOW = datetime(2026, 3, 9, 10, tzinfo=UTC)
USERS, ITEMS = range(1, 13), range(100, 125)
LABELS = ("click", "buy")


def user(index, rng):
    """What is stored of a user."""
    return {
        "user": index,
        "city": [None, "x", "y", "\u00e9"][index % 4],
        "taste": None if index % 5 == 0 else rng.normal(size=3).astype(np.float32).tolist(),
        "quiet": None if index % 6 == 0 else NOW - timedelta(days=30, hours=index * 7),
        "asked": float(index % 3),
        "seen": rng.choice(ITEMS, index % 5).tolist(),
        "gaps": list(range(1, index % 5 + 1)),
    }


def item(index, rng):
    """What is stored of an item."""
    return {
        "item": index,
        "group": ["a", "b", None][index % 3],
        "price": None if index % 7 == 0 else float(np.float32(rng.lognormal())),
        "listed": NOW - timedelta(days=60, minutes=index),
        "words": ["red", "blue", "shoe"][: index % 4],
        "picture": None if index % 4 == 0 else rng.normal(size=2).astype(np.float32).tolist(),
    }


def stored():
    """All users and all items."""
    rng = np.random.default_rng(3)
    return {"context": [user(i, rng) for i in USERS], "candidates": [item(i, rng) for i in ITEMS]}


def requests(count, seed):
    """Session-table rows whose users and items are as they are stored."""
    rng, rows = np.random.default_rng(seed), stored()
    rows_of_requests = []
    for index in range(count):
        many = rng.choice(len(ITEMS), rng.integers(1, 8), replace=False)
        clicked = rng.integers(-1, 2, len(many)).tolist()
        labels = [{"click": c, "buy": int(rng.integers(0, 2)) if c == 1 else 0} for c in clicked]
        rows_of_requests.append(
            {
                "request_id": f"r{index}",
                "time": NOW - timedelta(hours=int(rng.integers(0, 500))),
                "context": rows["context"][int(rng.integers(len(USERS)))],
                "candidates": [rows["candidates"][i] | label for i, label in zip(many, labels, strict=True)],
            }
        )
    return pa.RecordBatch.from_pylist(rows_of_requests, schema=schema(SPEC))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """DATA written by hand, and the bundle of a model trained on it."""
    folder = tmp_path_factory.mktemp("kinds")
    data = folder / "data"
    for seed, split in enumerate(splits.SPLITS):
        (data / split).mkdir(parents=True)
        splits.write(data / split / "part-00000.arrow", [requests(60, seed)], schema(SPEC))
    preprocessor.fit(splits.read(data, "train", SPEC), SPEC).save(data / "fitted")
    (data / "store").mkdir()
    for side, features in SPEC.sides():
        rows, key = stored()[side], getattr(SPEC.keys, "user" if side == "context" else "item")
        own = [pa.field("@key", pa.int64()), pa.field(AS_OF, TIME), pa.field(SEEN, TIME)]
        shape = pa.schema([*own, *side_fields(features)])
        moments = {AS_OF: NOW, SEEN: NOW}
        table = pa.Table.from_pylist([{"@key": row[key], **moments, **row} for row in rows], schema=shape)
        arrow_file.write(data / "store" / f"{side}.arrow", table)
    write_bytes(data / "spec.toml", dump(SPEC).encode())
    write_json(data / "manifest.json", {})
    trainer.train(SPEC, data, folder / "run", progress=Silent())
    export.export(folder / "run", folder / "bundle", data=data, progress=Silent())
    return folder


@pytest.fixture(scope="module")
def opened(folder):
    """The bundle, verified: its graph has the inputs that the spec describes."""
    return bundles.load(folder / "bundle")


@pytest.fixture(scope="module")
def service(opened):
    """Its rank service."""
    return RankService(opened, Scorer(opened, threads=1), new_id=lambda: "generated")


def body(time, context, candidates):
    """A request as JSON."""
    text = {"time": time.isoformat(), "context": context, "candidates": candidates}
    return json.dumps(text, default=lambda value: value.isoformat()).encode()


def test_the_graph_has_an_input_for_every_feature(opened):
    """Ids, crosses and numbers in buckets are rows; vectors are as wide as they are."""
    inputs = expected_inputs(opened.spec)
    assert opened.manifest["inputs"] == {name: {"type": t, "shape": list(s)} for name, (t, s) in inputs.items()}
    assert inputs["candidates.match"] == inputs["candidates.price"] == ("int64", ["N"])
    assert inputs["context.taste"] == ("float32", ["B", 3])


def test_what_is_fitted_is_read_back(folder, opened):
    """Edges of about equal mass, kept to the last digit; crosses need nothing."""
    learnt = preprocessor.load(SPEC, folder / "data" / "fitted")
    batch = to_batch(requests(60, 0), SPEC, learnt.encoders)
    np.testing.assert_array_equal(learnt.encoders["price"].edges, opened.preprocessor.encoders["price"].edges)
    share = np.bincount(batch.candidates["price"], minlength=6)[1:] / (batch.candidates["price"] > 0).sum()
    assert learnt.rows(SPEC)["price"] == 5
    assert (share[:4] > 0.15).all()
    assert (learnt.rows(SPEC)["match"], learnt.rows(SPEC)["hour"]) == (50, 25)


def test_the_endpoint_scores_what_batch_scoring_scores(folder, service):
    """A request that sends every feature, and its row of the session table."""
    rows = next(splits.read(folder / "data", "test", SPEC)).slice(0, 12)
    table = pl.DataFrame(score_rows(service.scorer, rows))
    for row in rows.to_pylist():
        plain = [{k: v for k, v in candidate.items() if k not in LABELS} for candidate in row["candidates"]]
        answer = json.loads(service.rank(body(row["time"], row["context"], plain), 0).body)
        offline = table.filter(request_id=row["request_id"]).sort("rank")
        assert [line["item"] for line in answer["candidates"]] == offline["candidates.item"].to_list()
        for name in service.scorer.outputs:
            online = [line["tasks"][name] for line in answer["candidates"]]
            np.testing.assert_allclose(online, offline[f"tasks.{name}"], atol=1e-6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from(USERS),
    st.lists(st.sampled_from(ITEMS), unique=True, min_size=1),
    st.datetimes(timezones=st.just(UTC)),
)
def test_known_ids_give_the_batch_that_the_door_gives(opened, service, user, items, time):
    """The short way is the whole way, value by value; and both are what a loop over values says."""
    request = body(time, {"user": user}, [{"item": item} for item in items])
    short = encoded(service, request)
    row = service.row(request, 0)
    whole = to_batch(row, opened.spec, opened.preprocessor.encoders)
    plain = row.to_pylist()[0]
    for short_side, whole_side in ((short.context, whole.context), (short.candidates, whole.candidates)):
        assert set(short_side) == set(whole_side)
        for name, values in whole_side.items():
            assert short_side[name].dtype == values.dtype
            assert short_side[name].flags.c_contiguous
            np.testing.assert_array_equal(short_side[name], values)
    plain = _in_microseconds(plain)
    for name in ("here", "home", "quiet"):
        assert whole.context[name].tolist() == [slow.value(SPEC, opened.preprocessor.encoders, plain, "context", name)]
    for name in ("match", "when", "own", "price"):
        expected = [
            slow.value(SPEC, opened.preprocessor.encoders, plain, "candidates", name, index=i)
            for i in range(len(items))
        ]
        assert whole.candidates[name].tolist() == expected


def _in_microseconds(row):
    def number(timestamp):
        return None if timestamp is None else pa.array([timestamp], TIME).cast(pa.int64())[0].as_py()

    return {**row, "time": number(row["time"]), "context": {**row["context"], "quiet": number(row["context"]["quiet"])}}


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"taste": [1.0, 2.0]}, "context.taste: expected a list of 3 numbers, got [1.0, 2.0]"),
        ({"taste": [1.0, None, 2.0]}, "context.taste: expected a list of 3 numbers, got [1.0, None, 2.0]"),
        ({"taste": [1.0, "a", 2.0]}, "context.taste: expected a list of 3 numbers, got [1.0, 'a', 2.0]"),
        ({"taste": 1.0}, "context.taste: expected a list of 3 numbers, got 1.0"),
        ({"here": 3}, "context.here: computed from city and hour; leave it out"),
        ({"quiet": 3}, "context.quiet: expected a timestamp with a time zone, such as '2026-11-20T08:30:00Z', got 3"),
    ],
)
def test_what_does_not_fit_is_refused(service, context, message):
    """In the words of the spec."""
    with pytest.raises(RequestError) as error:
        service.rank(body(NOW, {"user": 1, **context}, []), 0)
    assert message in str(error.value)


def test_a_missing_vector_and_a_vector_of_whole_numbers_are_taken(service):
    """Null says that it is known to be missing; nobody writes 1.0 where 1 will do."""
    for taste in (None, [1, 2, 3]):
        row = service.row(body(NOW, {"user": 1, "taste": taste}, []), 0).to_pylist()[0]
        assert row["context"]["taste"] == taste


def test_without_the_store_what_is_left_out_is_said(opened, service):
    """Crosses are nobody's to bring."""
    assert "here" not in service._required["context"]
    assert "match" not in service._required["candidates"]
    assert {"quiet", "taste"} <= service._required["context"]
    assert opened.store.context is not None
