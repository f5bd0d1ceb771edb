"""Tables that start anew in every epoch: by seed and epoch, with empty optimizer states, resumed to the bit."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rec import spec as specs
from rec.data import preprocessor, splits
from rec.data.loader import tensors
from rec.data.session_table import to_batch
from rec.errors import SpecError
from rec.modules.embedding_tables import draw
from rec.progress import Silent
from rec.training import checkpoint, redraw, tensor_folder, trainer
from rec.training.beginning import FRESH, Beginning
from rec.training.state import Run
from rec.training.step import new_fit, step
from tests.rec.training.ranks import on_ranks


def redrawn(spec, *overrides):
    """The tiny shop whose tables are drawn anew."""
    return specs.parse(specs.dump(spec), overrides=['train.tables="redraw"', "train.patience=9", *overrides])


def begun(spec, data, folder, *, epoch, start=FRESH):
    """A run at the beginning of an epoch, after a step of the one before."""
    learnt = preprocessor.load(spec, data / "fitted")
    run = Run(spec, learnt, data, folder, new_fit(spec, learnt), Silent())
    rows = next(splits.read(data, "train", spec))
    step(run.fit, spec, tensors(to_batch(rows, spec, learnt.encoders), run.fit.device))
    run.epoch = epoch
    redraw.begin_epoch(run, start)
    return run


def saved(folder):
    """Every tensor of the newest checkpoint."""
    return dict(tensor_folder.tensors(checkpoint.steps(folder)[-1]))


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad", "sgd"])
def test_an_epoch_begins_with_rows_of_its_own_and_empty_accumulators(spec, data, tmp_path, optimizer):
    """Other rows in each epoch, the same ones for one seed; row 0, the unknown, is 0; dense weights stay."""
    spec = redrawn(spec, f"train.table_optimizer={optimizer}")
    first, again, other = (begun(spec, data, tmp_path, epoch=epoch) for epoch in (2, 2, 3))
    for part, same, later in zip(
        *(run.fit.ranker.stored_tables().parts() for run in (first, again, other)), strict=True
    ):
        assert torch.equal(part.weight, same.weight)
        assert not torch.equal(part.weight[1:], later.weight[1:])
        assert (part.weight[0] == 0).all()
        assert 0.005 < part.weight[1:].std() < 0.015
        assert all((state == 0).all() for state in part.states.values())
        fresh = part.weight.clone()
        draw(part, spec.seed)
        assert not torch.equal(fresh[1:], part.weight[1:])
    untouched = begun(redrawn(spec, 'train.tables="keep"'), data, tmp_path, epoch=2).fit.ranker.dense()
    assert all(torch.equal(weight, untouched[name]) for name, weight in first.fit.ranker.dense().items())


def test_the_first_epoch_and_a_batch_in_the_middle_have_the_tables_they_had(spec, data, tmp_path):
    """The first epoch is that of a run that keeps its tables."""
    kept, run = (begun(s, data, tmp_path, epoch=1) for s in (spec, redrawn(spec)))
    for name, table in kept.fit.ranker.tables().items():
        assert torch.equal(table, run.fit.ranker.tables()[name])
    run.epoch, run.batch = 2, 3
    redraw.begin_epoch(run, FRESH)
    for name, table in kept.fit.ranker.tables().items():
        assert torch.equal(table, run.fit.ranker.tables()[name])


class Interrupt(Silent):
    """A user who presses Ctrl-C in the second epoch, before its first request or after some."""

    def __init__(self, after):
        self.left, self.inside = after, False

    def start(self, what, total=None, unit=""):
        self.inside = what == "epoch 2"
        if self.inside and not self.left:
            raise KeyboardInterrupt

    def advance(self, units, **figures):
        self.left -= self.inside
        if self.inside and not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [0, 2])
def test_an_interrupted_run_goes_on_to_the_same_bits(spec, data, tmp_path, after):
    """At the epoch's first batch, and in the middle of it, where tables are not drawn again."""
    whole = redrawn(spec, "train.epochs=3", "train.batch=64", "train.checkpoint.steps=1")
    trainer.train(whole, data, tmp_path / "whole", progress=Silent())
    with pytest.raises(KeyboardInterrupt):
        trainer.train(whole, data, tmp_path / "broken", progress=Interrupt(after))
    trainer.train(whole, data, tmp_path / "broken", progress=Silent())
    mine, other = saved(tmp_path / "whole"), saved(tmp_path / "broken")
    assert {k: v.numpy().tobytes() for k, v in mine.items()} == {k: v.numpy().tobytes() for k, v in other.items()}


def train_on_ranks(text, data, folder):
    """On as many ranks as there are."""
    trainer.train(specs.parse(text), data, folder, progress=Silent())


def test_two_ranks_learn_what_one_process_learns(spec, data, tmp_path):
    """A table that is divided by rows, one that each has a copy of, others where they fit."""
    divided = ['train.sharding.tables={ item_id = "row_wise", city = "data_parallel" }', "train.epochs=2"]
    spec = redrawn(spec, *divided)
    trainer.train(spec, data, tmp_path / "alone", progress=Silent())
    on_ranks(2, train_on_ranks, specs.dump(spec), data, tmp_path / "two")
    mine, other = saved(tmp_path / "alone"), saved(tmp_path / "two")
    for name in mine:
        if name.startswith(("tables.", "table_states.")):
            torch.testing.assert_close(other[name], mine[name], rtol=1e-4, atol=1e-5, msg=name)


def test_rows_with_pretrained_vectors_start_from_them_in_every_epoch(spec, data, tmp_path):
    """What a file says of an id is no weight that was learnt."""
    items = preprocessor.load(spec, data / "fitted").encoders["item_id"].values.to_pylist()
    vectors = np.arange(len(items) * 4, dtype=np.float32) / 100
    table = pa.table({"item": pa.array(items), "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors), 4)})
    pq.write_table(table, tmp_path / "vectors.parquet")
    spec = redrawn(spec, "candidates.item_id.pretrained=vectors.parquet")
    run = begun(spec, data, tmp_path, epoch=2, start=Beginning(base=tmp_path))
    np.testing.assert_array_equal(run.fit.ranker.tables()["item_id"][1:].numpy(), vectors.reshape(-1, 4))


def test_what_makes_no_sense_with_it_is_refused(spec, data, run, tmp_path):
    """One pass over the days, a count of steps that rows share, rows of a trained run."""
    with pytest.raises(SpecError, match=r"train\.tables: 'redraw' is for several epochs"):
        redrawn(spec, "train.mode=progressive")
    with pytest.raises(SpecError, match=r"train\.tables: 'redraw' does not go with train\.table_optimizer 'adam'"):
        redrawn(spec, "train.table_optimizer=adam")
    with pytest.raises(SpecError, match=r"train\.tables: 'redraw' draws every row anew .* \(--from\) too"):
        trainer.train(redrawn(spec), data, tmp_path / "run", progress=Silent(), start=Beginning(run))
    assert not (tmp_path / "run").exists()
