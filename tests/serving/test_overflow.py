from __future__ import annotations

import json

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from rec.data import splits
from rec.data.session_table import schema
from serving.batch import score_rows
from serving.online.problems import RequestError
from serving.overflow import largest
from tests.serving.conftest import IDS, NOW, items

HUGE = 3e38


def request():
    """A request for three items, with a huge number of the second."""
    candidates = items(3, 4, 5)
    candidates[1]["item_click"] = -HUGE
    return {**IDS, "candidates": candidates}


def refused(service, sent):
    """The error that a request meets."""
    with pytest.raises(RequestError) as error:
        service.rank(json.dumps(sent).encode(), NOW)
    return error.value


def test_a_number_that_the_model_cannot_bear_is_the_requests_fault(service):
    """422 with its place, not 500: a fault of the client must not wake whoever runs the server."""
    error = refused(service, request())
    assert (error.status, error.problems[0][0]) == (422, "/candidates/1/item_click")
    assert str(error) == "candidates[1].item_click: -3e+38 is too large: with it the model's scores are not finite"
    columns = {"item_id": [3, 4], "item_click": [0.1, HUGE]}
    assert refused(service, {**IDS, "candidates": columns}).problems[0][0] == "/candidates/item_click/1"


def test_the_largest_number_of_a_row_is_named():
    """Of numbers and vectors, by its size whatever its sign; nothing where all are ordinary."""
    values = {
        "age": np.float32([3, -HUGE]),
        "taste": np.float32([[1, np.nan], [1e20, 2]]),
        "user_id": np.array([2**62, 2**62]),
    }
    assert largest(values, 0) is None
    assert largest(values, 1) == ("age", pytest.approx(-HUGE))
    assert largest({"taste": values["taste"]}, 1) == ("taste", pytest.approx(1e20))


def test_a_batch_job_goes_on(data, spec, scorer):
    """The candidate has null scores and the last rank's place; all others are scored as without it."""
    rows = next(splits.read(data, "test", spec)).slice(0, 4)
    listed = pa.RecordBatch.from_pylist(rows.to_pylist(), schema=schema(spec, labels=False)).to_pylist()
    listed[1]["candidates"][0]["item_click"] = HUGE
    spoilt = pa.RecordBatch.from_pylist(listed, schema=schema(spec, labels=False))
    before, after = pl.DataFrame(score_rows(scorer, rows)), pl.DataFrame(score_rows(scorer, spoilt))
    bad = len(listed[0]["candidates"])
    assert after.with_row_index().filter(pl.col("score").is_null())["index"].to_list() == [bad]
    assert (after["rank"][bad], after["tasks.buy"][bad]) == (None, None)
    others = [index for index in range(len(before)) if index != bad]
    np.testing.assert_allclose(after["score"].gather(others), before["score"].gather(others), rtol=1e-5)
