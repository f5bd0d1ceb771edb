"""Rows that do not fit in memory come back whole, and in order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rec.evaluation.external_sort import SortedRuns, Spool

keys = st.sampled_from([0, 1, 2, 5, 2**63, 2**64 - 1])
tables = st.integers(1, 2).flatmap(lambda columns: st.lists(st.lists(keys, min_size=columns, max_size=columns)))
few = st.integers(1, 9)


def block(rows):
    """Rows as an array [n, columns]."""
    return np.array(rows, np.uint64).reshape(len(rows), len(rows[0]) if rows else 1)


@given(tables, few, few)
def test_sorted_runs_give_every_row_in_order(rows, most, parts):
    """Against sorting a list, with as few as one row in memory; no chunk is larger than what may be held."""
    columns = len(rows[0]) if rows else 1
    runs = SortedRuns(columns, most=most)
    for start in range(0, len(rows), parts):
        runs.add(block(rows[start : start + parts]))
    for _ in range(2):
        chunks = [chunk.tolist() for chunk in runs.chunks()]
        assert [row for chunk in chunks for row in chunk] == sorted(rows)
        # of each run at least one row is held
        assert all(0 < len(chunk) <= max(most, -(-len(rows) // most)) for chunk in chunks)
    assert runs.rows == len(rows)


@given(tables, few, st.sampled_from([1, 40, 10_000]))
def test_a_spool_gives_rows_as_they_came(rows, most, memory):
    """In memory or in a file; it goes on after it was read."""
    columns = len(rows[0]) if rows else 1
    spool = Spool(columns, memory=memory)
    for row in rows:
        spool.add(block([row]))
        assert [row for part in spool.blocks(most) for row in part.tolist()] == rows[: spool.rows]
    assert spool.rows == len(rows)


def test_a_merge_of_runs_that_do_not_overlap_is_whole():
    """Rows that arrive in order: one run after the other is used up."""
    runs = SortedRuns(1, most=100)
    for start in range(0, 1050, 35):
        runs.add(np.arange(start, start + 35, dtype=np.uint64)[:, None])
    assert np.array_equal(np.concatenate(list(runs.chunks()))[:, 0], np.arange(1050))
