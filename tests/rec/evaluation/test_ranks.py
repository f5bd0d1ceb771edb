"""Metrics over ranks are those of one process: ranks as threads, which pass arrays to each other."""

from __future__ import annotations

from threading import Barrier, Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.evaluation.accumulator import ROW, Accumulator
from rec.evaluation.passes import packed
from rec.evaluation.ranks import by_range
from rec.spec import Task
from tests.rec.evaluation.test_accumulator import amounts, columns, events, same


class Threads:
    """Ranks that share a list: each puts its own down, all wait, each reads."""

    def __init__(self, rank, shared):
        self.rank, self.size, self.shared = rank, shared["size"], shared

    def gathered(self, values):
        """By way of the shared list."""
        self.shared["barrier"].wait(30)
        self.shared["values"][self.rank] = values
        self.shared["barrier"].wait(30)
        return list(self.shared["values"])

    def exchanged(self, blocks, owner, columns):
        """All rows at once."""
        mine = np.concatenate([np.empty((0, columns), np.uint64), *blocks])
        for theirs in self.gathered(mine):
            yield theirs[owner(theirs) == self.rank]


def over(ranks, work):
    """What `work(ranks)` gives on each of so many threads."""
    shared = {"size": ranks, "values": [None] * ranks, "barrier": Barrier(ranks)}
    actual = [None] * ranks

    def run(rank):
        try:
            actual[rank] = work(Threads(rank, shared))
        except BaseException:
            shared["barrier"].abort()
            raise

    threads = [Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return actual


@settings(max_examples=60)
@given(
    st.one_of(
        events.map(lambda r: ("event", r)), amounts.map(lambda r: ("log", r)), amounts.map(lambda r: ("quantile", r))
    ),
    st.integers(1, 4),
    st.sampled_from([1, 3, 1000]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_figures_do_not_depend_on_ranks(kind_and_rows, size, held, whole, random):
    """Any rows on any ranks, some of which may have none; groups that come whole are each on one rank."""
    predict, rows = kind_and_rows
    task = Task(label="y", predict=predict, quantile=0.3)
    of_group = [random.randrange(size) for _ in range(4)]
    owner = np.array([of_group[row[2]] if whole else random.randrange(size) for row in rows])
    score, label, group = columns(rows)

    def filled(chosen):
        actual = Accumulator(task, weight="candidates", whole_groups=whole, memory=8 * held, sort_memory=held * ROW)
        actual.add(score[chosen], label[chosen], group[chosen])
        return actual

    expected = filled(np.ones(len(rows), bool)).summary()
    for actual in over(size, lambda ranks: filled(owner == ranks.rank).summary(ranks)):
        same(actual, expected)


@pytest.mark.parametrize("size", [2, 5])
def test_ranges_hold_about_equally_many_rows(size):
    """Within a tenth, of scores that are as skewed as those of rare events."""
    score = np.random.default_rng(1).lognormal(-6, 2, 200_000).astype(np.float32)
    rows = packed(score, np.zeros(len(score)))[:, None]
    owners = over(size, lambda ranks: by_range(ranks, [rows[ranks.rank :: size]], 0)(rows))
    for owner in owners:
        assert np.array_equal(owner, owners[0])
        assert np.bincount(owner) == pytest.approx(np.full(size, len(score) / size), rel=0.1)
        assert score[owner == 0].max() < score[owner == size - 1].min()
