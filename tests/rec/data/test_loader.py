"""The loader: one order for any number of ranks, every request once, no tiny batch, nothing read in vain."""

from __future__ import annotations

import threading
import time
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.data import loader, preprocessor, splits
from rec.data.loader import Share
from rec.data.prefetch import ahead
from rec.data.session_table import to_batch


@pytest.fixture(scope="module")
def tight(spec):
    """Small pools and batches, so that there are many of both."""
    return spec.model_copy(update={"train": spec.train.model_copy(update={"shuffle": 60, "batch": 50})})


@pytest.fixture(scope="module")
def many(tight, data, tmp_path_factory):
    """The tiny shop's training split in blocks of 17 requests: pools end inside parts and blocks."""
    rows = list(splits.read(data, "train", tight))
    out = tmp_path_factory.mktemp("many")
    (out / "train").mkdir()
    for number, block in enumerate(rows):
        pieces = [block.slice(start, 17) for start in range(0, len(block), 17)]
        for part, some in enumerate((pieces[::2], pieces[1::2])):
            splits.write(out / "train" / f"part-{number:03d}{part}.arrow", some, block.schema)
    return out


@pytest.fixture(scope="module")
def encoders(tight, data):
    """The vocabularies."""
    return preprocessor.load(tight, data / "fitted").encoders


def epoch(many, tight, encoders, *, of=1, number=1, skip=0):
    """Every batch of an epoch: the parts of all ranks, and what each says of the whole."""
    ranks = [
        list(loader.shuffled(many, tight, encoders, epoch=number, share=Share(rank, of), skip=skip))
        for rank in range(of)
    ]
    return list(zip(*ranks, strict=True))


def prints(batch):
    """What tells a request from others, sorted: its context, and its candidates' numbers."""
    price = batch.candidates["price"]
    return sorted(
        (
            int(batch.context["user_id"][b]),
            float(batch.context["seen_before"][b]) if "seen_before" in batch.context else 0.0,
            tuple(price[batch.owner == b].tolist()),
        )
        for b in range(batch.size)
    )


def whole(parts):
    """The requests of all ranks of a batch."""
    return sorted(chain.from_iterable(prints(part.mine) for part in parts))


@pytest.mark.parametrize("of", [2, 3, 7])
def test_batches_do_not_depend_on_the_number_of_ranks(many, tight, encoders, of):
    """The same requests in the same batches, each on one rank; all ranks know how much the whole batch has."""
    alone, several = epoch(many, tight, encoders), epoch(many, tight, encoders, of=of)
    assert len(alone) == len(several) > 10
    for (one,), parts in zip(alone, several, strict=True):
        assert prints(one.mine) == whole(parts)
        assert {(p.requests, p.candidates) for p in parts} == {(one.mine.size, len(one.mine))}
        assert sum(len(part.mine) for part in parts) == one.candidates


@pytest.mark.parametrize("of", [2, 3, 7])
def test_ranks_have_equally_many_candidates(many, tight, encoders, of):
    """Of every batch, those that open a pool and the last ones too: no step waits for a rank with far more."""
    for parts in epoch(many, tight, encoders, of=of):
        longest = max(np.bincount(part.mine.owner).max(initial=0) for part in parts)
        sizes = np.array([len(part.mine) for part in parts])
        assert np.abs(sizes - parts[0].candidates / of).max() <= longest


def test_ranks_read_a_part_each(many, tight, encoders, monkeypatch):
    """Nothing is encoded twice, on one rank or on two."""
    encoded = []
    real = loader.to_batch
    monkeypatch.setattr(loader, "to_batch", lambda rows, *rest: (encoded.append(len(rows)), real(rows, *rest))[1])
    total = sum(parts[0].requests for parts in epoch(many, tight, encoders, of=3))
    assert sum(encoded) == total


def test_an_epoch_has_every_request_once(many, tight, encoders, spec):
    """In another order each epoch, the same for the same seed."""
    first, again, second = (epoch(many, tight, encoders, number=number) for number in (1, 1, 2))
    table = [r for rows in splits.read(many, "train", spec) for r in prints(to_batch(rows, tight, encoders))]
    for batches in (first, second):
        assert sorted(chain.from_iterable(map(whole, batches))) == sorted(table)
    assert [whole(b) for b in first] == [whole(b) for b in again] != [whole(b) for b in second]


def test_no_batch_is_tiny(many, tight, encoders):
    """What is left of a pool opens the next, and the last batches are alike."""
    sizes = np.array([parts[0].candidates for parts in epoch(many, tight, encoders)])
    longest = max(np.bincount(parts[0].mine.owner).max() for parts in epoch(many, tight, encoders))
    assert sizes.max() < tight.train.batch * 1.5 + longest
    assert sizes.min() > tight.train.batch / 2


@pytest.mark.parametrize("skip", [0, 1, 5, 9])
@pytest.mark.parametrize("of", [1, 2])
def test_a_position_is_a_number_of_batches(many, tight, encoders, skip, of):
    """A run that goes on sees what an unbroken one has left, bit for bit."""
    rest, unbroken = epoch(many, tight, encoders, of=of, skip=skip), epoch(many, tight, encoders, of=of)[skip:]
    for mine, other in zip(rest, unbroken, strict=True):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_array_equal(a.mine.owner, b.mine.owner)
            for name, value in a.mine.candidates.items():
                np.testing.assert_array_equal(value, b.mine.candidates[name])


def test_pools_that_are_passed_over_are_not_encoded(many, tight, encoders, monkeypatch):
    """Only their numbers of candidates are read."""
    encoded = []
    real = loader.to_batch
    monkeypatch.setattr(loader, "to_batch", lambda rows, *rest: (encoded.append(len(rows)), real(rows, *rest))[1])
    list(loader.shuffled(many, tight, encoders, epoch=1))
    everything = sum(encoded)
    encoded.clear()
    total = len(epoch(many, tight, encoders))
    encoded.clear()
    list(loader.shuffled(many, tight, encoders, epoch=1, skip=total - 1))
    assert 0 < sum(encoded) < everything / 2


@settings(max_examples=200, deadline=None)
@given(
    count=st.lists(st.integers(0, 9), min_size=1, max_size=60).map(np.array),
    candidates=st.integers(1, 40),
    last=st.booleans(),
)
def test_edges_cut_what_there_is(count, candidates, last):
    """Increasing edges, no batch without candidates; what is left is less than a batch, and nothing of the last."""
    cuts = loader.edges_of(count, candidates, last=last)
    sizes = np.diff(np.concatenate([[0], np.cumsum(count)])[cuts])
    assert cuts[0] == 0
    assert cuts == sorted(set(cuts))
    assert (sizes > 0).all()
    rest = count[cuts[-1] :].sum()
    assert rest == 0 if last else rest < candidates
    if not last:
        assert (sizes >= candidates).all()
        assert (sizes < candidates + count.max()).all()


def test_work_is_done_ahead_of_its_use():
    """Up to so many items, in a thread, in order."""
    made = []

    def items():
        for number in range(10):
            made.append(number)
            yield number

    source = ahead(items(), 3)
    assert next(source) == 0
    for _ in range(200):
        if len(made) == 4:
            break
        time.sleep(0.01)
    assert made == [0, 1, 2, 3]
    assert list(source) == list(range(1, 10))


def test_what_the_thread_raises_is_raised_in_its_place():
    """After the items before it."""

    def items():
        yield 1
        raise OSError("the disk is gone")

    source = ahead(items(), 2)
    assert next(source) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(source)


def test_leaving_early_ends_the_thread():
    """And what it reads is closed."""
    closed, before = [], threading.active_count()

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    source = ahead(items(), 2)
    next(source)
    source.close()
    assert closed == [True]
    assert threading.active_count() == before
