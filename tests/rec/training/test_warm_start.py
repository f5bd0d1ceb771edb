"""Warm start: what two runs have in common is copied, id by id, and what they do not have is said."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch

from rec import spec as specs
from rec.data import preprocessor
from rec.data.encoders import Buckets, Vocabulary
from rec.data.preprocessor import Preprocessor
from rec.errors import BundleError
from rec.progress import Silent
from rec.training import beginning, checkpoint, row_map, saved_rows, tensor_folder, trainer
from rec.training.beginning import Beginning
from rec.training.row_map import Fitted
from rec.training.saved_rows import Saved
from rec.training.state import Run
from rec.training.step import new_fit
from tests.rec.training.ranks import on_ranks


def changed(spec, *overrides):
    """The tiny shop with other settings."""
    return specs.parse(specs.dump(spec), overrides=overrides)


def begun(spec, learnt, data, folder, start):
    """A run before its first step, and what warm_start.json says of it."""
    folder.mkdir()
    run = Run(spec, learnt, data, folder, new_fit(spec, learnt), Silent())
    beginning.fill(run, start)
    return run, json.loads((folder / "warm_start.json").read_text())


def saved(folder):
    """Every tensor of a checkpoint."""
    return dict(tensor_folder.tensors(folder))


def with_items(learnt, values):
    """A preprocessor with another vocabulary of items."""
    return Preprocessor(
        {**learnt.encoders, "item_id": Vocabulary(pa.array(values))}, learnt.scales, learnt.rates, learnt.label_bins
    )


def test_a_run_of_the_same_spec_and_tables_is_copied_whole(spec, data, run, tmp_path):
    """Weights, accumulators of tables and AdamW's moments, bit for bit."""
    learnt = preprocessor.load(spec, data / "fitted")
    mine, report = begun(spec, learnt, data, tmp_path / "new", Beginning(run))
    best, last = saved(run / "checkpoint" / "best"), saved(checkpoint.steps(run)[-1])
    live = checkpoint.whole(mine.fit.ranker, mine.fit.optimizer, {})
    for name, tensor in live.items():
        there = last if name.startswith(("table_states.", "adamw.")) else best
        assert torch.equal(tensor, there[name]), name
    assert {name for name in last if not name.startswith("sums.")} == set(live)
    assert report["dense"]["fresh"] == {}
    assert all(table["new"] == table["gone"] == 0 for table in report["tables"].values())


def test_ids_that_both_know_are_copied_and_others_are_fresh_or_gone(spec, data, run, tmp_path):
    """A vocabulary in another order, without two of its items and with three new ones."""
    old = preprocessor.load(spec, data / "fitted")
    items = old.encoders["item_id"].values.to_pylist()
    learnt = with_items(old, [9001, *reversed(items[2:]), 9002, 9003])
    fresh = new_fit(spec, learnt).ranker.tables()["item_id"]
    mine, report = begun(spec, learnt, data, tmp_path / "new", Beginning(run))
    table, there = mine.fit.ranker.tables()["item_id"], saved(run / "checkpoint" / "best")["tables.item_id"]
    sums = mine.fit.ranker.stored_tables().state()["table_states.item_id.momentum1"]
    rows = len(items) + 2
    for item in items[2:]:
        row, before = (int(e.encoders["item_id"](pa.array([item]))[0]) for e in (learnt, old))
        assert torch.equal(table[row], there[before])
    assert torch.equal(table[[1, rows - 1, rows - 2]], fresh[[1, rows - 1, rows - 2]])
    assert (sums[[1, rows - 1, rows - 2]] == 0).all()
    assert (sums[2:-2] > 0).any()
    about = report["tables"]["item_id"]
    assert (about["copied"], about["new"], about["gone"]) == (len(items) - 1, 3, 2)
    line = f"table item_id: {len(items) - 1} of {rows} rows copied by id, 3 new, 2 gone, with the optimizer's states"
    assert any(said.startswith(line) for said in report["lines"])


def test_what_has_another_shape_is_fresh_and_what_is_not_there_is_left_out(spec, data, run, tmp_path):
    """A wider table, an expert more, another encoding, and no history: each is listed with its reason."""
    other = changed(spec, "candidates.item_id.dim=8", "model.experts=3", "context.city=false", "train.ema=0.9")
    learnt = preprocessor.load(spec, data / "fitted")
    mine, report = begun(other, learnt, data, tmp_path / "new", Beginning(run))
    assert report["tables"]["item_id"]["fresh"] == "width 8, 4 there"
    assert report["tables"]["city"]["left_out"] == "no such table here"
    assert report["tables"]["user_id"]["copied"] == len(learnt.encoders["user_id"].values) + 1
    assert "model.experts.first.linear.bias" in report["dense"]["fresh"]
    assert "objective.heads.towers.last.weight" in report["dense"]["copied"]
    assert report["inputs"] == ["context"]
    assert any("reads other inputs" in line for line in report["lines"])
    name = "objective.heads.towers.last.weight"
    assert torch.equal(mine.fit.averages[name], mine.fit.ranker.dense()[name])


def test_statistics_of_the_tables_are_those_of_the_new_ones(spec, data, run, tmp_path):
    """Scales and base rates come from DATA, and are said to."""
    old = preprocessor.load(spec, data / "fitted")
    rates = {name: rate / 2 for name, rate in old.rates.items()}
    mine, report = begun(spec, Preprocessor(old.encoders, old.scales, rates), data, tmp_path / "new", Beginning(run))
    prior = mine.fit.ranker.dense_state()["objective.heads.prior"]
    torch.testing.assert_close(prior, torch.tensor(list(rates.values())).logit())
    assert "objective.heads.prior" in report["dense"]["of_data"]
    assert any("are those of the new session tables" in line for line in report["lines"])


def test_states_of_another_optimizer_are_not_copied(spec, data, run, tmp_path):
    """An accumulator per row is none per weight."""
    learnt = preprocessor.load(spec, data / "fitted")
    other = changed(spec, "train.table_optimizer=adagrad")
    mine, report = begun(other, learnt, data, tmp_path / "new", Beginning(run))
    assert report["tables"]["item_id"]["states"] == []
    assert (mine.fit.ranker.stored_tables().state()["table_states.item_id.momentum1"] == 0).all()


def test_without_a_whole_checkpoint_optimizers_begin_anew(spec, data, run, tmp_path):
    """The best weights alone are enough to start from."""
    source = shutil.copytree(run, tmp_path / "source")
    shutil.rmtree(checkpoint.steps(source)[-1])
    learnt = preprocessor.load(spec, data / "fitted")
    mine, report = begun(spec, learnt, data, tmp_path / "new", Beginning(source))
    assert report["dense"]["moments"] == 0
    assert not mine.fit.optimizer.state
    assert any("without optimizer states" in line for line in report["lines"])


def test_tables_are_compared_by_what_decides_their_rows(spec, data):
    """Hashes of other sizes, crosses of other features, ids of another type."""
    learnt = preprocessor.load(spec, data / "fitted")
    mine = Fitted(spec, learnt)
    hashed = Fitted(changed(spec, 'candidates.item_id={kind="id", encode="hash", rows=50, dim=4}'), learnt)
    fewer = Fitted(changed(spec, 'candidates.item_id={kind="id", encode="hash", rows=40, dim=4}'), learnt)
    assert row_map.difference("item_id", mine, mine) == ""
    assert row_map.difference("item_id", hashed, hashed) == ""
    assert row_map.difference("item_id", hashed, mine) == "hash of ints in 50 rows, vocabulary of ints there"
    assert row_map.difference("item_id", hashed, fewer) == "hash of ints in 50 rows, hash of ints in 40 rows there"
    assert row_map.difference("city", mine, Fitted(changed(spec, "context.city=false"), learnt)) == (
        "no such table there"
    )


def test_buckets_are_matched_by_their_lower_edges():
    """Rows 0 and 1 are missing and below all edges; any range of rows gives the same."""
    price = 'p = { kind = "number", scale = "quantile" }'
    spec = specs.parse(f'name = "x"\n[split]\ncolumn = "s"\n[candidates]\n{price}\n[tasks.c]\nlabel = "c"')
    here, there = (Fitted(spec, Preprocessor({"p": Buckets(edges)}, {}, {})) for edges in ([0.5, 2.0, 3.0], [0.0, 2.5]))
    assert row_map.rows("p", here, there, 0, 5).tolist() == [0, 1, 2, 2, 3]
    for start in range(6):
        for stop in range(start, 6):
            expected = [0, 1, 2, 2, 3][start:stop]
            assert row_map.rows("p", here, there, start, stop).tolist() == expected
    assert vars(row_map.overlap("p", here, there, (5, 4))) == {"copied": 5, "new": 0, "gone": 0}


def test_rows_are_read_from_parts_divided_in_any_way(tmp_path):
    """By rows and by columns at once, as several ranks wrote them."""
    whole = torch.arange(60.0).view(10, 6)
    beside = tensor_folder.fresh(tmp_path / "x")
    chunks, parts = [], {}
    for row, rows in ((0, 4), (4, 6)):
        for column in (0, 3):
            parts[tensor_folder.key("t", [row, column])] = whole[row : row + rows, column : column + 3]
            chunks.append({"offsets": [row, column], "sizes": [rows, 3], "file": "rank-00000.safetensors"})
    entry = {"dtype": "float32", "size": [10, 6], "chunks": chunks}
    tensor_folder.finish(tmp_path / "x", {"t": entry}, [tensor_folder.write_part(beside, 0, parts)], {})
    of = Saved(tmp_path / "x", "t", entry)
    assert torch.equal(saved_rows.read(of, (2, 9), (1, 5)), whole[2:9, 1:5])
    live = torch.zeros(4, 2)
    saved_rows.copy(of, np.array([9, -1, 0, 9]), live, columns=(2, 4))
    assert torch.equal(live, torch.stack([whole[9, 2:4], torch.zeros(2), whole[0, 2:4], whole[9, 2:4]]))


def test_a_bundle_is_refused_and_says_what_to_give(spec, data, bundle, run, tmp_path):
    """Its graph has weights folded into others."""
    with pytest.raises(BundleError, match="give the trained model it was exported from") as refused:
        trainer.train(spec, data, tmp_path / "new", progress=Silent(), start=Beginning(bundle))
    assert checkpoint.digest(run)[:16] in str(refused.value)
    with pytest.raises(BundleError, match="no trained model here"):
        trainer.train(spec, data, tmp_path / "new", progress=Silent(), start=Beginning(data))
    assert not (tmp_path / "new").exists()


def test_a_changed_run_is_not_started_from(spec, data, run, tmp_path):
    """One byte of its checkpoint is enough."""
    source = shutil.copytree(run, tmp_path / "source")
    path = checkpoint.steps(source)[-1] / "rank-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=r"rank-00000\.safetensors was changed"):
        trainer.train(spec, data, tmp_path / "new", progress=Silent(), start=Beginning(source))


def test_resuming_with_another_start_is_refused(spec, data, run, tmp_path):
    """What a model was started from is part of what it was made of."""
    trainer.train(spec, data, tmp_path / "new", progress=Silent(), start=Beginning(run))
    trainer.train(spec, data, tmp_path / "new", progress=Silent(), start=Beginning(run))
    with pytest.raises(FileExistsError, match=r"\(of another --from\)"):
        trainer.train(spec, data, tmp_path / "new", progress=Silent())
    with pytest.raises(FileExistsError, match="holds what this command reads"):
        trainer.train(spec, data, tmp_path / "new", progress=Silent(), start=Beginning(tmp_path / "new"))


def test_a_warm_start_is_ahead_of_a_fresh_one(spec, data, tmp_path):
    """After one epoch, the loss of a model that had eight before."""
    trainer.train(
        changed(spec, "train.epochs=8", "train.patience=9", "train.lr=0.01"), data, tmp_path / "old", progress=Silent()
    )
    one = changed(spec, "train.epochs=1", "train.lr=0.01")
    losses = []
    for name, start in (("cold", Beginning()), ("warm", Beginning(tmp_path / "old"))):
        trainer.train(one, data, tmp_path / name, progress=Silent(), start=start)
        losses.append(json.loads((tmp_path / name / "history.json").read_text())[-1]["train"]["loss"]["click"])
    assert losses[1] < losses[0] - 0.02


SHARDED = (
    "train.sharding.default=row_wise",
    'train.sharding.tables={user_id="data_parallel", city="table_wise"}',
)


def train_on_ranks(text, data, folder, source):
    """A model that starts from another, on as many ranks as there are."""
    trainer.train(specs.parse(text), data, folder, progress=Silent(), start=Beginning(source))


@pytest.mark.parametrize("sharding", [SHARDED, ("train.sharding.default=column_wise", "train.table_optimizer=adagrad")])
def test_several_processes_start_from_what_one_starts_from(spec, data, tmp_path, sharding):
    """Each fills the rows and columns it holds; the weights after training are those of one process."""
    wide = specs.parse(specs.dump(spec).replace("dim = 4", "dim = 8"), overrides=["train.epochs=1", *sharding])
    trainer.train(wide, data, tmp_path / "old", progress=Silent())
    # the second run is to start from a sharded one too
    on_ranks(2, train_on_ranks, specs.dump(wide), data, tmp_path / "two", tmp_path / "old")
    trainer.train(wide, data, tmp_path / "one", progress=Silent(), start=Beginning(tmp_path / "old"))
    trainer.train(wide, data, tmp_path / "next", progress=Silent(), start=Beginning(tmp_path / "two"))
    one, two = (saved(checkpoint.steps(tmp_path / name)[-1]) for name in ("one", "two"))
    for name, tensor in one.items():
        if not name.startswith("sums."):
            torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    lines = [json.loads((tmp_path / name / "warm_start.json").read_text())["tables"] for name in ("one", "two")]
    assert lines[0] == lines[1]
