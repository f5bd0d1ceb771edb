"""Scales: one pass over training rows, equal to numpy over all of them at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rec.data import preprocessor
from rec.data.encoders import Buckets
from rec.data.preprocessor import Scale
from rec.data.session_table import schema, to_batch
from rec.modules.dense import Numbers, Vectors
from rec.spec import parse

SPEC = parse('name = "x"\n[context]\na = { kind = "number", scale = "log" }\nb = { kind = "number" }\n'
             'c = { kind = "number", scale = "none" }\n[tasks.t]\nlabel = "t"')  # fmt: skip
TASK = '[tasks.t]\nlabel = "t"'
number = st.none() | st.floats(-1e4, 1e4, width=32)


@given(st.lists(st.tuples(number, number), min_size=1, max_size=12), st.integers(1, 5))
def test_scales_do_not_depend_on_how_rows_are_cut(values, size):
    """Mean and deviation of the transformed known values; missing ones leave them alone."""
    table = [{"request_id": "r", "time": 0, "context": {"a": a, "b": b, "c": a}, "candidates": []} for a, b in values]
    blocks = [pa.RecordBatch.from_pylist(table[i : i + size], schema=schema(SPEC)) for i in range(0, len(table), size)]
    scales = preprocessor.fit(blocks, SPEC).scales
    a = np.array([np.sign(v) * np.log1p(abs(np.float32(v))) for v, _ in values if v is not None])
    b = np.array([np.float32(v) for _, v in values if v is not None], np.float64)
    for scale, known in ((scales["a"], a), (scales["b"], b)):
        assert scale.mean == pytest.approx(known.mean() if len(known) else 0.0, abs=1e-3)
        spread = known.std() if len(known) else 0.0
        assert scale.std == pytest.approx(spread if spread > 1e-6 else 1.0, rel=1e-3)
    assert scales["c"] == Scale(0.0, 1.0, log=False)


@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0, 1e9])
def test_a_number_that_is_small_everywhere_is_scaled_like_any_other(size):
    """A rate of one in a billion is none the less a rate; a constant is no such number, whatever its size."""
    values = [(size * (1 + part / 10), size / 3) for part in range(10)]
    table = [{"request_id": "r", "time": 0, "context": {"a": b, "b": a, "c": a}, "candidates": []} for a, b in values]
    scales = preprocessor.fit([pa.RecordBatch.from_pylist(table, schema=schema(SPEC))], SPEC).scales
    numbers = Numbers({"b": scales["b"]})({"b": torch.tensor([a for a, _ in values], dtype=torch.float32)})
    assert numbers.std(unbiased=False).item() == pytest.approx(1.0, rel=1e-3)
    assert scales["a"].std == 1.0


def test_a_missing_number_has_a_weight_of_its_own():
    """NaN never reaches the first layer."""
    numbers = Numbers({"a": Scale(1.0, 2.0, log=False), "b": Scale(0.0, 1.0, log=True)})
    with torch.no_grad():
        numbers.missing.copy_(torch.tensor([7.0, 8.0]))
        got = numbers({"a": torch.tensor([3.0, float("nan")]), "b": torch.tensor([float("nan"), -(np.e - 1)])})
    torch.testing.assert_close(got, torch.tensor([[1.0, 8.0], [7.0, -1.0]]))


def test_a_missing_part_of_a_vector_has_a_weight_of_its_own():
    """Vectors stand side by side as they are."""
    vectors = Vectors({"a": 2, "b": 1})
    with torch.no_grad():
        vectors.missing.copy_(torch.tensor([7.0, 8.0, 9.0]))
        nan = float("nan")
        got = vectors({"a": torch.tensor([[1.0, 2.0], [nan, 4.0]]), "b": torch.tensor([[nan], [5.0]])})
    torch.testing.assert_close(got, torch.tensor([[1.0, 2.0, 9.0], [7.0, 4.0, 5.0]]))


@given(st.lists(st.none() | st.sampled_from([0.0, 0.0, 1.0, 2.5, -3.0, 1e30]), min_size=1), st.integers(2, 6))
def test_buckets_are_of_about_equal_mass(values, count):
    """Each edge is the smallest number above a quantile of those that are known; no bucket of training is empty."""
    spec = parse(f'name = "x"\n[context]\na = {{ kind = "number", scale = "quantile", buckets = {count} }}\n{TASK}')
    table = [{"request_id": "r", "time": 0, "context": {"a": value}, "candidates": []} for value in values]
    rows = pa.RecordBatch.from_pylist(table, schema=schema(spec))
    learnt = preprocessor.fit([rows], spec)
    known = sorted(np.float32(value) for value in values if value is not None)
    quantiles = {known[-(-k * len(known) // count) - 1] for k in range(1, count)} if known else set()
    above = [min((v for v in known if v > quantile), default=None) for quantile in sorted(quantiles)]
    assert learnt.encoders["a"].edges.tolist() == [edge for edge in above if edge is not None]
    column = to_batch(rows, spec, learnt.encoders).context["a"]
    assert [row == 0 for row in column] == [value is None for value in values]
    assert set(column) - {0} == set(range(1, learnt.rows(spec)["a"])) or not known


def test_edges_survive_the_disk(tmp_path):
    """To the last digit of a float32."""
    spec = parse(f'name = "x"\n[context]\na = {{ kind = "number", scale = "quantile" }}\n{TASK}')
    edges = np.random.default_rng(1).normal(size=15).astype(np.float32)
    edges.sort()
    preprocessor.Preprocessor({"a": Buckets(edges.tolist())}, {}, {"t": 0.5}).save(tmp_path)
    np.testing.assert_array_equal(preprocessor.load(spec, tmp_path).encoders["a"].edges, edges)


def test_the_rate_of_a_child_is_among_those_whose_parent_happened():
    """Two of three clicks observed bought; one event and one non-event are added."""
    spec = parse('name = "x"\n[tasks.c]\nlabel = "c"\n[tasks.b]\nlabel = "b"\ngiven = "c"')
    labels = [(1, 1), (1, 0), (1, -1), (1, 1), (0, 0), (-1, 0)]
    table = [{"request_id": "r", "time": 0, "context": {}, "candidates": [{"c": c, "b": b} for c, b in labels]}]
    rates = preprocessor.fit([pa.RecordBatch.from_pylist(table, schema=schema(spec))] * 2, spec).rates
    assert rates == {"c": (8 + 1) / (10 + 2), "b": (4 + 1) / (6 + 2)}
