"""The order of requests: whose they are, and where they are read from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rec.data import request_order

COUNTS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=5)


def pool(counts, *, seed=0, before=0):
    """Blocks of requests with so many candidates each, shuffled; a candidate is the number of its request."""
    blocks, start = [], before
    for count in counts:
        numbers = np.arange(start, start + len(count))
        candidates = [[number] * n for number, n in zip(numbers.tolist(), count, strict=True)]
        columns = [pa.array(numbers), pa.array(candidates, pa.list_(pa.int64()))]
        blocks.append(pa.RecordBatch.from_arrays(columns, ["number", "candidates"]))
        start += len(count)
    order = np.random.default_rng(seed).permutation(start - before)
    return request_order.of_pool(blocks, order, before=before)


def read(requests):
    """The numbers of requests that are read, in the order they are read in."""
    return [number for rows in requests.stored() for number in rows.column("number").to_pylist()]


@given(counts=COUNTS, ranks=st.integers(1, 9))
def test_ranks_own_equally_many_candidates(counts, ranks):
    """Of any batch, to half a request at each border; each request is owned once."""
    requests = pool(counts)
    owner, count = requests.owners(ranks), requests.count
    assert ((owner >= 0) & (owner < ranks)).all()
    shares = np.bincount(owner, count, ranks)
    assert np.abs(shares - count.sum() / ranks).max() <= count.max()


@given(counts=COUNTS, ranks=st.integers(2, 9))
def test_a_rank_owns_a_range_of_what_is_stored(counts, ranks):
    """So that what ranks read is divided too; two halves of a pool need not be cut at the same place."""
    requests = pool(counts)
    owner_by_row = requests.owners(ranks)[np.argsort(requests.row)]
    assert (np.diff(owner_by_row) >= 0).all()


def test_a_rank_reads_little_beside_its_range():
    """Of two hundred batches of a hundred requests, nine in ten of a rank's requests are read in its own half."""
    requests = pool([[2] * 10_000, [2] * 10_000])
    batches = [requests.span(start, start + 100) for start in range(0, 20_000, 100)]
    rows = np.concatenate([batch.row[batch.owners(2) == 0] for batch in batches])
    assert len(rows) == 10_000
    assert (rows < 10_000).mean() > 0.9
    assert rows.max() < 14_000


@given(counts=COUNTS, seed=st.integers(0, 3))
def test_what_is_read_is_what_is_asked_for(counts, seed):
    """In the order it is stored in, whatever order it is trained in."""
    requests = pool(counts, seed=seed)
    some = requests.at(np.arange(0, len(requests), 2))
    assert read(some) == sorted(some.number.tolist())


@given(first=COUNTS, second=COUNTS, left=st.integers(0, 5))
def test_what_is_left_of_a_pool_opens_the_next(first, second, left):
    """Copied out of its blocks: the same requests, in the same order, with the same numbers of candidates."""
    whole = pool(first)
    rest = whole.span(max(0, len(whole) - left), len(whole))
    both = rest.copied().and_then(pool(second, before=len(whole)))
    assert both.number[: len(rest)].tolist() == rest.number.tolist()
    assert sorted(read(both)) == sorted(both.number.tolist())
    for index in range(len(both)):
        one = both.at(np.array([index]))
        assert read(one) == [one.number[0]]
        assert [len(rows.column("candidates")[0].as_py()) for rows in one.stored()] == one.count.tolist()
    assert sum(map(len, rest.copied().blocks)) == len(rest)
