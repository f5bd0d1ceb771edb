"""Plans of sharding: what each rank holds and sends, for worlds that are not here, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rec import ranker
from rec import spec as specs
from rec.data import preprocessor, splits
from rec.errors import DataError, SpecError
from rec.spec import Sharding
from rec.training import plan_cost, planning

LARGE = 'candidates.item_id={kind="id", encode="hash", rows=500000000, dim=64}'


@pytest.fixture(scope="module")
def large(spec):
    """The tiny shop with a table of half a billion rows, which none here holds."""
    history = 'context.clicked={kind="ids", make="history", task="click", values="int", table="item_id", last=5}'
    names = [name for name, f in spec.context.items() if isinstance(f, specs.Ids)]
    text = specs.dump(spec)
    return specs.parse(text, overrides=[LARGE] + ([] if names else [history]))


def estimate(spec, data, size, name="h100", local=8):
    """The cost of the planner's plan."""
    return plan_cost.estimate(spec, data, planning.asked_for(size, name, local))


def test_a_plan_needs_session_tables(spec, tmp_path):
    """The sentence of training without them."""
    with pytest.raises(DataError, match=r"none: no session tables here; `multigate features SPEC --out .*none` makes"):
        estimate(spec, tmp_path / "none", 2)


@pytest.mark.parametrize("size", [2, 8, 64])
def test_every_table_has_a_place_and_none_is_too_large(large, data, size):
    """Weights and states of all ranks are those of all tables, copies counted as often as they are."""
    cost = estimate(large, data, size, "h200")
    assert {t.table for t in cost.tables} == set(large.tables())
    assert len(cost.memory) == size
    assert max(cost.memory) < planning.DEVICES["h200"].memory
    assert not any(cost.host)
    item = next(t for t in cost.tables if t.table == "item_id")
    assert item.bytes == 500_000_000 * 64 * 4
    dense = ranker.dense_weights(large, preprocessor.load(large, data / "fitted")) * 16
    states = sum(t.rows * 4 * (len(t.ranks) if t.kind == "data_parallel" else 1) for t in cost.tables)
    assert sum(cost.memory) == dense * size + sum(t.bytes for t in cost.tables) + states


def test_one_rank_sends_nothing(large, data):
    """And what more ranks send is bounded by what all look up."""
    alone = estimate(large, data, 1, "h200")
    assert (alone.traffic, alone.dense) == (0, 0)
    assert estimate(large, data, 8).traffic > 0


def test_small_tables_are_copied(spec, data):
    """Fewer rows than a rank looks up in a step: sending all of their gradients is less than sending rows."""
    wide = spec.model_copy(update={"train": spec.train.model_copy(update={"batch": 100_000})})
    assert {t.kind for t in estimate(wide, data, 2).tables} == {"data_parallel"}


def test_what_the_spec_asks_for_is_done(spec, data):
    """By table, and for all others."""
    sharding = Sharding(default="table_wise", tables={"item_id": "row_wise", "city": "data_parallel"})
    asked = spec.model_copy(update={"train": spec.train.model_copy(update={"sharding": sharding})})
    kinds = {t.table: t.kind for t in estimate(asked, data, 4).tables}
    assert (kinds.pop("item_id"), kinds.pop("city")) == ("row_wise", "data_parallel")
    assert set(kinds.values()) == {"table_wise"}


def test_what_fits_nowhere_is_refused(large, data):
    """It says on what."""
    huge = specs.parse(specs.dump(large), overrides=[LARGE.replace("500000000", "2000000000")])
    with pytest.raises(SpecError, match=r"train\.sharding: no plan fits 1 x h100"):
        estimate(huge, data, 1)


def test_what_does_not_fit_a_device_lies_in_its_hosts_memory(large, data):
    """Where the planner finds room there, and it says so."""
    cost = plan_cost.estimate(large, data, planning.asked_for(1, "h100", 1))
    assert [t.table for t in cost.tables if t.on_host] == ["item_id"]
    assert max(cost.memory) < planning.DEVICES["h100"].memory < max(cost.host)


def test_of_equally_quick_plans_it_is_always_the_same(large, data, tmp_path):
    """On one machine a table by rows is `row_wise`, also where Python walks through sets in another order."""
    path = tmp_path / "spec.toml"
    path.write_text(specs.dump(large))
    command = [sys.executable, "-W", "ignore", "-m", "pipelines.cli", "train", str(path), "--data", str(data), "--plan"]
    done = subprocess.run(
        [*command, "--world", "2", "--device", "h100"],
        env={**os.environ, "PYTHONHASHSEED": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    kinds = {words[0]: words[3] for words in map(str.split, done.stdout.splitlines()) if len(words) > 3}
    assert kinds["item_id"] == "row_wise", done.stdout


def test_an_unknown_device_is_refused(spec, data):
    """With the nearest."""
    with pytest.raises(SpecError, match=r"--device: 'h10' is not known: cpu, a100, h100, h200; did you mean 'h100'\?"):
        estimate(spec, data, 2, "h10")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ['train.sharding.tables={item="row_wise"}'],
            r"train\.sharding\.tables\.item: there is no such embedding table",
        ),
        (
            ["train.sharding.default=column_wise"],
            r"train\.sharding\.default: 'column_wise' does not go with .*rowwise_adagrad",
        ),
        (
            ['train.sharding.tables={city="column_wise"}'],
            r"train\.sharding\.tables\.city: 'column_wise' does not go with",
        ),
        (["train.sharding.default=by_rows"], r"train\.sharding\.default"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused_with_the_spec(spec, changes, message):
    """Before any data is read."""
    with pytest.raises(SpecError, match=message):
        specs.parse(specs.dump(spec), overrides=changes)


def test_lookups_of_a_step_follow_the_data(spec, data):
    """Requests and candidates of a batch in the ratio of the training split."""
    requests, candidates = planning.per_step(spec, data)
    assert candidates == spec.train.batch
    rows = list(splits.read(data, "train", spec))
    mean = sum(len(b["candidates"].values) for b in rows) / sum(map(len, rows))
    assert requests == pytest.approx(candidates / mean)
