from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from rec.data import splits
from rec.data.session_table import to_batch
from rec.spec import Keys
from serving import store
from serving.batch import score_rows
from serving.online.problems import RequestError
from serving.online.rank import STAGES, RankService
from serving.scorer import Scorer
from tests.serving.conftest import IDS, NOW, items


def degraded(reasons, items_defaulted, user):
    """What an answer lacks, of which no stored feature is too old."""
    counts = {"items_defaulted": items_defaulted, "items_stale": 0}
    return {"any": bool(reasons), "reasons": reasons, **counts, "user": user}


def full(row):
    """A session-table row as a request that sends every stored feature."""

    def plain(values):
        return {
            k: v.isoformat() if isinstance(v, datetime) else v for k, v in values.items() if k not in ("click", "buy")
        }

    context = {"context": plain(row["context"]), "candidates": [plain(c) for c in row["candidates"]]}
    return {"request_id": row["request_id"], "time": row["time"].astimezone(UTC).isoformat(), **context}


def test_batch_and_online_agree(data, spec, scorer, service):
    """The same request scored as a session-table row and as JSON: the same scores to 1e-6, the same order."""
    rows = next(splits.read(data, "test", spec)).slice(0, 20)
    table = pl.DataFrame(score_rows(scorer, rows))
    for row in rows.to_pylist():
        answer = json.loads(service.rank(json.dumps(full(row)).encode(), NOW).body)
        offline = table.filter(request_id=row["request_id"]).sort("rank")
        online = answer["candidates"]
        assert [line["item_id"] for line in online] == offline["candidates.item_id"].to_list()
        assert [line["rank"] for line in online] == offline["rank"].to_list()
        np.testing.assert_allclose([line["score"] for line in online], offline["score"], atol=1e-6)
        for name in scorer.outputs:
            np.testing.assert_allclose([line["tasks"][name] for line in online], offline[f"tasks.{name}"], atol=1e-6)


def test_batch_and_online_agree_bit_for_bit_in_one_batch_shape(data, spec, scorer, service):
    """A request alone in its batch offline is the very computation of the endpoint, and JSON keeps every digit."""
    for row in [next(splits.read(data, "test", spec)).slice(index, 1) for index in range(5)]:
        offline = pl.DataFrame(score_rows(scorer, row)).sort("rank")
        online = json.loads(service.rank(json.dumps(full(row.to_pylist()[0])).encode(), NOW).body)["candidates"]
        for name in scorer.outputs:
            assert np.float32([line["tasks"][name] for line in online]).tolist() == offline[f"tasks.{name}"].to_list()
        assert [line["score"] for line in online] == offline["score"].to_list()


def test_a_request_in_full_is_its_row(data, spec, service):
    """What is sent reaches the session table unchanged."""
    rows = next(splits.read(data, "test", spec)).slice(0, 5)
    for row in rows.to_pylist():
        row_of_request = service.row(json.dumps(full(row)).encode(), NOW).to_pylist()[0]
        wanted = [{k: v for k, v in c.items() if k not in ("click", "buy")} for c in row["candidates"]]
        assert row_of_request == row | {"candidates": wanted}


def test_columns_answer_as_rows_do(ask):
    """A request in columns gets a response in columns: the same values, also of a stranger."""
    rows, columns = ask(**IDS, candidates=items(3, 4, -5)), ask(**IDS, candidates={"item_id": [3, 4, -5]})
    turned = {name: [line[name] for line in rows["candidates"]] for name in ("item_id", "rank", "score", "status")}
    turned["tasks"] = {
        name: [line["tasks"][name] for line in rows["candidates"]] for name in ("click", "buy", "buy|click")
    }
    assert columns["candidates"] == turned
    assert "item_unknown" in turned["status"]


def test_the_answer_is_ranked_and_complete(ask, opened):
    """Best first, ranks from 1, every output by name, and which model it was."""
    answer = ask(**IDS, candidates=items(3, 4, 5), request_id="r1")
    scores = [line["score"] for line in answer["candidates"]]
    assert answer["request_id"] == "r1"
    assert answer["model"] == {"name": "tiny-shop", "digest": opened.digest}
    assert scores == sorted(scores, reverse=True)
    assert [line["rank"] for line in answer["candidates"]] == [1, 2, 3]
    assert {line["item_id"] for line in answer["candidates"]} == {3, 4, 5}
    assert set(answer["candidates"][0]["tasks"]) == {"click", "buy", "buy|click"}
    assert answer["degraded"] == degraded([], 0, "ok")
    assert list(answer["timing_ms"]) == list(STAGES[:-1])


def test_a_score_does_not_depend_on_the_other_candidates(ask):
    """Candidate 4 alone scores what it scores among others."""
    among = {line["item_id"]: line for line in ask(**IDS, candidates=items(3, 4, 5))["candidates"]}
    alone = ask(**IDS, candidates=items(4))["candidates"][0]
    assert alone["score"] == pytest.approx(among[4]["score"], abs=1e-6)


def test_top_k_cuts_the_answer(ask):
    """The best k of all, or all when there are fewer."""
    whole = ask(**IDS, candidates=items(3, 4, 5))["candidates"]
    assert ask(**IDS, candidates=items(3, 4, 5), options={"top_k": 2})["candidates"] == whole[:2]
    assert ask(**IDS, candidates=items(3, 4, 5), options={"top_k": 99})["candidates"] == whole


def test_an_unknown_item_is_ranked_and_said(ask):
    """With what is known of it, which may be nothing."""
    answer = ask(**IDS, candidates=items(3, 987654))
    status = {line["item_id"]: line["status"] for line in answer["candidates"]}
    assert status == {3: "ok", 987654: "item_unknown"}
    assert answer["degraded"] == {
        "any": True,
        "reasons": ["item_unknown"],
        "items_defaulted": 1,
        "items_stale": 0,
        "user": "ok",
    }


@pytest.mark.parametrize(("context", "user"), [({"user_id": 987654}, "unknown"), ({}, "missing")])
def test_an_unknown_user_is_answered_and_said(ask, context, user):
    """As somebody of whom nothing is known."""
    answer = ask(time=IDS["time"], context=context, candidates=items(3, 4))
    assert len(answer["candidates"]) == 2
    assert answer["degraded"] == {
        "any": True,
        "reasons": [f"user_{user}"],
        "items_defaulted": 0,
        "items_stale": 0,
        "user": user,
    }


def test_no_candidates_are_an_empty_answer(ask):
    """Not an error: there was nothing to rank."""
    assert ask(**IDS, candidates=[])["candidates"] == []


def test_as_many_candidates_as_allowed_are_answered(ask, spec):
    """And one more is not."""
    most = spec.serve.max_candidates
    assert len(ask(**IDS, candidates={"item_id": list(range(most))})["candidates"]["item_id"]) == most
    with pytest.raises(RequestError, match=f"expected at most {most}, got {most + 1}"):
        ask(**IDS, candidates={"item_id": list(range(most + 1))})


def test_what_is_sent_changes_the_score(ask):
    """A price in the request overrides the stored one."""
    stored = ask(**IDS, candidates=items(3))["candidates"][0]["score"]
    assert ask(**IDS, candidates=[{"item_id": 3, "price": 1e6}])["candidates"][0]["score"] != stored


def test_the_moment_changes_the_clock_and_the_age(service, opened):
    """Hour and age are computed from the request's own time."""
    body = json.dumps({"time": "2026-03-09T10:30:00Z", "context": {"user_id": 7}, "candidates": items(3)}).encode()
    batch = to_batch(service.row(body, NOW), opened.spec, opened.preprocessor.encoders)
    assert batch.context["hour"].tolist() == [11]
    assert batch.candidates["listed"][0] > 0


def test_the_answer_is_strict_json(service):
    """Every number in it is finite."""
    body = service.rank(json.dumps({**IDS, "candidates": items(*range(200))}).encode(), NOW).body
    json.loads(body, parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def keyless(opened):
    """The same model for a spec without user and item keys, so without a store."""
    spec = opened.spec.model_copy(update={"keys": Keys(time="time")})
    bundle = replace(opened, spec=spec, store=store.load(spec, opened.path / "store"))
    return RankService(bundle, Scorer(bundle, threads=1), new_id=lambda: "generated")


def test_without_keys_a_request_brings_everything(data, spec, service, keyless):
    """Candidates are then named by their position, and scored as they would be with a store."""
    row = next(splits.read(data, "test", spec)).slice(0, 1).to_pylist()[0]
    body = json.dumps(full(row)).encode()
    lines = json.loads(keyless.rank(body, NOW).body)["candidates"]
    known = json.loads(service.rank(body, NOW).body)["candidates"]
    assert [line["score"] for line in lines] == [line["score"] for line in known]
    assert [row["candidates"][line["position"]]["item_id"] for line in lines] == [line["item_id"] for line in known]


def test_without_keys_what_is_left_out_is_said(keyless):
    """Nothing stands in for a feature that was not sent."""
    answer = json.loads(keyless.rank(b'{"candidates": [{"price": 1.0}, {"price": 2.0}]}', NOW).body)
    assert answer["degraded"] == {
        "any": True,
        "reasons": ["feature_missing"],
        "items_defaulted": 0,
        "items_stale": 0,
        "user": "none",
    }
    assert len(answer["candidates"]) == 2
