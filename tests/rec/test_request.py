"""RequestBatch: slicing and joining lose nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rec.request import RequestBatch, concat, spans


def a_batch(counts):
    """A batch whose values say where they came from."""
    owner = np.repeat(np.arange(len(counts)), counts)
    n = len(owner)
    return RequestBatch(
        len(counts),
        {"user": np.arange(len(counts)) * 10, "past": np.arange(len(counts) * 2).reshape(-1, 2)},
        {"item": np.arange(n)},
        owner,
        {"click": np.arange(n, dtype=np.int8) % 2},
    )


def same(a, b):
    """Whether two batches are equal in every value."""
    np.testing.assert_array_equal(a.owner, b.owner)
    for side in ("context", "candidates", "labels"):
        left, right = getattr(a, side), getattr(b, side)
        assert list(left) == list(right)
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])
    assert a.size == b.size


counts = st.lists(st.integers(0, 4), min_size=1, max_size=6)


@given(counts)
def test_requests_taken_one_by_one_and_joined_are_the_batch(counts):
    """No candidate changes its request, empty requests included."""
    batch = a_batch(counts)
    same(concat([batch.request(i) for i in range(batch.size)]), batch)


@given(counts, st.data())
def test_taking_requests_takes_their_candidates(counts, data):
    """Any requests in any order, repeats too."""
    batch = a_batch(counts)
    wanted = data.draw(st.lists(st.integers(0, batch.size - 1), min_size=1))
    taken = batch.take(np.array(wanted))
    per_request = batch.split(batch.candidates["item"])
    np.testing.assert_array_equal(taken.candidates["item"], np.concatenate([per_request[i] for i in wanted]))
    np.testing.assert_array_equal(taken.context["user"], [i * 10 for i in wanted])


@given(counts, st.data())
def test_cut_parts_joined_are_the_batch(counts, data):
    """Consecutive views cover everything once."""
    batch = a_batch(counts)
    inner = data.draw(st.lists(st.integers(1, batch.size), unique=True))
    edges = sorted({0, batch.size, *inner})
    same(concat(list(batch.cut(edges))), batch)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5))))
def test_spans_are_ranges_one_after_the_other(pairs):
    """Against a loop."""
    start, length = (np.array(x, np.int64) for x in zip(*pairs, strict=True)) if pairs else (np.zeros(0, np.int64),) * 2
    slow = [i for s, n in pairs for i in range(s, s + n)]
    assert spans(start, length).tolist() == slow
