"""A number among those of its request: ties, missing numbers, alone or in a batch, in any order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data import preprocessor, request_features, session_table
from rec.errors import SpecError
from rec.spec import parse
from rec.spec.features import COMPARED
from tests.reference import door as slow

NAN = float("nan")
SPEC = """
name = "x"
[split]
column = "split"
[context]
many = { kind = "number", make = "size" }
[candidates]
price = { kind = "number" }
sold = { kind = "number", scale = "quantile" }
among = { kind = "number", make = "rank", of = ["price", "sold"] }
best = { kind = "number", make = "best", of = "price", scale = "quantile", buckets = 2, dim = 4 }
[tasks.click]
label = "c"
"""
numbers = st.lists(
    st.sampled_from([NAN, 0.0, -0.0, 1.0, 1.0, -2.5, 3e38, -3e38, 1e-40]) | st.floats(-9, 9, width=32), max_size=9
)


def made(make, *requests):
    """One feature of the candidates of several requests."""
    owner = np.repeat(np.arange(len(requests)), [len(of) for of in requests])
    number = np.array([x for of in requests for x in of], np.float32)
    return request_features.compared(number, owner, len(requests)).of(make)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        ("rank", [0.0, 2 / 3, NAN, 2 / 3, 2 / 3]),
        ("gap", [-1.5, 0.5, NAN, 0.5, 0.5]),
        ("share", [0.5, 1.0, NAN, 1.0, 1.0]),
        ("zscore", [-(3**0.5), 3**-0.5, NAN, 3**-0.5, 3**-0.5]),
        ("best", [-2.0, 0.0, NAN, 0.0, 0.0]),
    ],
)
def test_equal_numbers_are_equal_and_missing_ones_take_no_part(make, expected):
    """Of 2, 4, nothing, 4 and 4: each of the fours has one below it, and ties with two of three others."""
    np.testing.assert_allclose(made(make, [2.0, 4.0, NAN, 4.0, 4.0]), np.float32(expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "alone"), [("rank", 0.5), ("gap", 0.0), ("share", 1.0), ("zscore", 0.0), ("best", 0.0)]
)
def test_a_number_without_another_is_compared_with_itself(make, alone):
    """One candidate, one known one, and none at all."""
    np.testing.assert_array_equal(made(make, [7.0], [NAN, 7.0], [], [NAN]), np.float32([alone, NAN, alone, NAN]))
    assert made(make).shape == (0,)


def test_the_best_alone_is_above_the_second():
    """The others are below the best; without numbers above 0 a share is still one of the largest size."""
    np.testing.assert_array_equal(made("best", [1.0, 5.0, 3.0]), np.float32([-4, 2, -2]))
    np.testing.assert_array_equal(made("share", [-4.0, 2.0], [0.0, 0.0]), np.float32([-1, 0.5, 0, 0]))
    assert made("gap", [3e38, -3e38]).tolist() == pytest.approx([3e38, -3e38], rel=1e-6)


@given(st.lists(numbers, min_size=1, max_size=5), st.sampled_from(COMPARED), st.randoms(use_true_random=False))
def test_neither_order_nor_batch_changes_a_bit(requests, make, random):
    """Each request alone, and its candidates in another order, as in the batch; and as the slow twin has it."""
    together = np.split(made(make, *requests), np.cumsum([len(of) for of in requests])[:-1])
    for of, values in zip(requests, together, strict=True):
        assert made(make, of).tobytes() == values.tobytes()
        order = random.sample(range(len(of)), len(of))
        assert made(make, [of[i] for i in order]).tobytes() == values[order].tobytes()
        expected = [slow.compared(make, [float(np.float32(x)) for x in of], i) for i in range(len(of))]
        rounding = 1e-15 * np.max(np.abs(of), initial=0, where=~np.isnan(of))  # of a sum in fp64: the twin's is exact
        np.testing.assert_allclose(values, np.float32(expected), rtol=1e-6, atol=1e-6 + rounding)


def rows(*requests):
    """Session-table rows of (price, sold) pairs."""
    shape = session_table.schema(parse(SPEC))
    table = [
        {
            "request_id": "r",
            "time": 0,
            "context": {},
            "candidates": [{"price": p, "sold": s, "click": 0} for p, s in of],
        }
        for of in requests
    ]
    return pa.RecordBatch.from_pylist(table, schema=shape)


def test_they_are_made_at_the_door_and_not_stored():
    """A number with buckets is compared by its value; scales and edges are fitted over what the door makes."""
    spec, table = parse(SPEC), rows([(1.0, 9.0), (None, 5.0), (2.0, 5.0)], [(4.0, None)])
    assert [f.name for f in table.schema.field("candidates").type.value_type] == ["price", "sold", "click"]
    learnt = preprocessor.fit([table], spec)
    batch = session_table.to_batch(table, spec, learnt.encoders)
    assert batch.context["many"].tolist() == [3.0, 1.0]
    np.testing.assert_array_equal(batch.candidates["among_price"], np.float32([0, NAN, 1, 0.5]))
    np.testing.assert_array_equal(batch.candidates["among_sold"], np.float32([1, 0.25, 0.25, NAN]))
    assert learnt.scales["many"].mean == 2.0
    assert learnt.scales["among_price"].mean == pytest.approx(0.5)
    assert learnt.scales["among_price"].std == pytest.approx((1 / 6) ** 0.5)
    edges = learnt.encoders["best"].edges.tolist()  # of -1, 1 and 0
    assert batch.candidates["best"].tolist() == [slow.bucket(edges, value) for value in (-1.0, NAN, 1.0, 0.0)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'r = { kind = "number", make = "rank" }',
            r"r\.of: expected a number of \[candidates\], or a list of them, got",
        ),
        ('r = { kind = "number", make = "rank", of = [] }', r"r\.of: expected a number of \[candidates\]"),
        ('r = { kind = "number", make = "gap", of = "pric" }', r"r\.of: no number 'pric'.*'price'"),
        ('r = { kind = "number", make = "gap", of = "item" }', r"r\.of: 'item' is no number"),
        ('r = { kind = "number", make = "gap", of = "best" }', r"r\.of: 'best' is no number that is stored or counted"),
        ('r = { kind = "number", make = "gap", of = "many" }', r"r\.of: 'many' belongs to the context"),
        ('r = { kind = "number", make = "size" }', r"candidates\.r: the size of a request belongs to the context"),
        ('r = { kind = "number", of = "price" }', r"r\.of: only for make = 'rank' or 'gap'"),
        (
            'r = { kind = "number", make = "rank", of = "price", column = "x" }',
            r"r\.column: 'rank' is made from the req",
        ),
        ('r = { kind = "number", make = "rank", of = "price", per = "item" }', r"r\.per: only for make = 'count'"),
    ],
)
def test_what_cannot_be_compared_is_refused(line, message):
    """In the spec, with the nearest number."""
    with pytest.raises(SpecError, match=message):
        parse(SPEC.replace("[tasks.click]", f'item = {{ kind = "id" }}\n{line}\n[tasks.click]'))


def test_what_compares_candidates_belongs_to_them():
    """The context has one value per request."""
    with pytest.raises(SpecError, match=r"context\.r: 'rank' compares the candidates of a request"):
        parse(SPEC.replace("[candidates]", 'r = { kind = "number", make = "rank", of = "price" }\n[candidates]'))
