"""The sample of built tables: whole users, the same whoever made the tables, none of them too large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.checks import sample as sampled
from features.checks.sample import Sample
from features.hashing import hashed
from features.logs.logs import Logs
from features.pipeline import build
from features.pipeline.job import ROWS
from rec.data import splits
from rec.progress import Silent
from rec.spec import Spec, parse
from tests.features import tiny
from tests.features.checks.test_checks import SPEC, log


def build_tables(folder: Path, rows: pl.DataFrame, spec: Spec = SPEC, *, rows_in_a_slice: int = ROWS) -> Path:
    """DATA of some rows."""
    build.build(spec, Logs.whole(rows.lazy()), folder, progress=Silent(), how=build.BuildOptions(rows=rows_in_a_slice))
    return folder


def plain(sample: Sample) -> dict:
    """Everything in it."""
    columns = {**sample.context, **sample.candidates}
    return {"time": sample.time.tolist(), **{name: column.to_pylist() for name, column in columns.items()}}


def test_a_small_log_is_taken_whole(tmp_path):
    """Every request, in the order of the tables; owners and labels belong to their rows."""
    samples = sampled.take(SPEC, build_tables(tmp_path / "data", log()))
    assert sum(len(split.owner) for split in samples.values()) == 3000
    train = samples["train"]
    assert train.label("click").tolist() == [float(c) for c in train.candidates["click"].to_pylist()]
    assert np.all(np.diff(train.owner) >= 0)
    assert train.spread("context", np.arange(len(train.time))).tolist() == train.owner.tolist()


def test_a_large_log_gives_whole_users(tmp_path):
    """About as much as asked; of whoever is in it nothing is left out."""
    data = build_tables(tmp_path / "data", log(12_000, users=400))
    whole, some = sampled.take(SPEC, data)["train"], sampled.take(SPEC, data, size=1000)["train"]
    users = whole.context["user"].to_pylist()
    chosen = set(some.context["user"].to_pylist())
    assert 50 < len(chosen) < 150  # of 400
    assert 500 < len(some.owner) < 2000  # of 4000
    assert sum(users.count(user) for user in chosen) == len(some.time)


@pytest.mark.parametrize("block", [30, 8192])
def test_nobody_fills_a_sample_alone(tmp_path, monkeypatch, block):
    """Of somebody with half of the rows the first tenth of its size is taken, however many are read at once."""
    monkeypatch.setattr(splits, "BLOCK", block)
    drawn = int(np.flatnonzero(hashed(pl.Series(np.arange(10_000))) < 2**57)[0])
    half = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit(drawn)).otherwise("user")
    spec = tiny.spec()
    data = build_tables(tmp_path / "data", log(6000, users=300).with_columns(user=half), spec)
    everyone, some = sampled.take(spec, data)["train"], sampled.take(spec, data, size=1000)["train"]
    users, chosen = np.array(everyone.context["user"]), np.array(some.context["user"])
    taken = some.time[chosen == drawn].tolist()
    assert 90 <= len(taken) <= 100
    assert taken == everyone.time[users == drawn][: len(taken)].tolist()
    assert len(some.time) > len(taken)


def test_a_sample_does_not_depend_on_how_tables_were_made(tmp_path):
    """One slice or five."""
    single = build_tables(tmp_path / "one", log(), rows_in_a_slice=3000)
    five = build_tables(tmp_path / "five", log(), rows_in_a_slice=600)
    for size in (300, 100_000):
        first, second = (sampled.take(SPEC, data, size=size) for data in (single, five))
        assert {split: plain(sample) for split, sample in first.items()} == {
            split: plain(sample) for split, sample in second.items()
        }


def test_where_nobody_is_named_requests_are_drawn(tmp_path):
    """Somebody unknown is one request; a table of rows is of nobody."""
    rows = log().with_columns(user=pl.when(pl.int_range(pl.len()) == 0).then(1))
    spec = tiny.spec()
    some = sampled.take(spec, build_tables(tmp_path / "data", rows, spec), size=200)["train"]
    assert 50 < len(some.owner) < 400
    table = parse('name = "x"\nkeys.item = "item"\ncandidates.item.kind = "id"\ntasks.click.label = "clicked"')
    split = log().with_columns(split=pl.Series(["train", "validation", "test"] * 1000))
    some = sampled.take(table, build_tables(tmp_path / "table", split, table), size=200)["train"]
    assert 100 < len(some.owner) < 400


def test_splits_together_are_one_sample(tmp_path):
    """Owners go on where the split before ended."""
    samples = sampled.take(SPEC, build_tables(tmp_path / "data", log()))
    whole = sampled.together(samples)
    assert len(whole.time) == sum(len(split.time) for split in samples.values())
    assert whole.owner.max() == len(whole.time) - 1
    train = len(samples["train"].owner)
    assert whole.candidates["item"].to_pylist()[:train] == samples["train"].candidates["item"].to_pylist()


def test_numbers_are_read_as_the_model_reads_them(tmp_path):
    """Infinite is missing; a timestamp is days before the request."""
    spec = tiny.spec(candidates='listed = { kind = "number", make = "age" }\nprice = { kind = "number" }')
    day = pl.from_epoch("time") - pl.duration(days=2)
    price = pl.when(pl.int_range(pl.len()) % 2 == 0).then(float("inf")).otherwise(1.0)
    rows = log().with_columns(listed=day.cast(pl.Datetime("us")), price=price)
    train = sampled.take(spec, build_tables(tmp_path / "data", rows, spec))["train"]
    first = train.time[train.owner] == train.moments("candidates")
    assert first.all()
    assert train.numbers("candidates", "listed") == pytest.approx(2, abs=1e-3)
    assert set(np.unique(train.numbers("candidates", "price")[~np.isnan(train.numbers("candidates", "price"))])) == {
        1.0
    }


@pytest.mark.parametrize("sizes", [(100_000, 1000), (1500, 400, 50)])
def test_samples_of_several_sizes_are_those_of_each(tmp_path, sizes):
    """Read once, with somebody among them who has half of the rows."""
    spec = tiny.spec()
    drawn = int(np.flatnonzero(hashed(pl.Series(np.arange(10_000))) < 2**57)[0])
    half = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit(drawn)).otherwise("user")
    data = build_tables(tmp_path / "data", log(6000, users=300).with_columns(user=half), spec)
    for size, samples in zip(sizes, sampled.nested(spec, data, *sizes), strict=True):
        alone = sampled.take(spec, data, size=size)
        assert {s: plain(split) for s, split in samples.items()} == {s: plain(split) for s, split in alone.items()}
