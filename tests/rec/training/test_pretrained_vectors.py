"""Tables that start from vectors of a file: known ids have them, others are fresh, what does not fit is refused."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rec import spec as specs
from rec.data import preprocessor
from rec.errors import DataError, SpecError
from rec.progress import Silent
from rec.spec import sections
from rec.training import beginning, checkpoint, tensor_folder, trainer
from rec.training.beginning import Beginning
from rec.training.state import Run
from rec.training.step import new_fit
from tests.rec.training.ranks import on_ranks


@pytest.fixture
def vectored(spec):
    """The tiny shop whose items have vectors."""
    return specs.parse(specs.dump(spec), overrides=["candidates.item_id.pretrained=vectors.parquet"])


def vectors(items, width=4):
    """A vector for each item, a fixed-size list."""
    flat = np.arange(len(items) * width, dtype=np.float32) / 100
    return pa.table({"item": pa.array(items), "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat), width)})


def begun(spec, data, folder):
    """A run before its first step, started from the vectors in a folder."""
    learnt = preprocessor.load(spec, data / "fitted")
    (folder / "run").mkdir()
    run = Run(spec, learnt, data, folder / "run", new_fit(spec, learnt), Silent())
    beginning.fill(run, Beginning(base=folder))
    return run


@pytest.mark.parametrize("form", ["parquet", "arrow", "lists"])
def test_known_ids_start_from_their_vectors_and_others_are_fresh(vectored, data, tmp_path, form):
    """Of a Parquet file and of an Arrow file, fixed-size lists and lists; how many is said."""
    items = preprocessor.load(vectored, data / "fitted").encoders["item_id"].values.to_pylist()
    table = vectors([9001, *items[5:]])
    if form == "lists":
        table = table.set_column(1, "vector", table["vector"].cast(pa.list_(pa.float64())))
    if form == "arrow":
        vectored = specs.parse(specs.dump(vectored), overrides=["candidates.item_id.pretrained=vectors.arrow"])
        with pa.OSFile(str(tmp_path / "vectors.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, tmp_path / "vectors.parquet", row_group_size=7)
    run = begun(vectored, data, tmp_path)
    weight = run.fit.ranker.tables()["item_id"]
    fresh = new_fit(vectored, run.learnt).ranker.tables()["item_id"]
    expected = torch.tensor(table["vector"].to_pylist()[1:], dtype=torch.float32)
    assert torch.equal(weight[6:], expected)
    assert torch.equal(weight[:6], fresh[:6])
    report = json.loads((tmp_path / "run" / "warm_start.json").read_text())
    (line,) = report["lines"]
    assert line.startswith(f"table item_id: {len(items) - 5} of {len(items)} ids have a vector in vectors.")
    assert line.endswith("1 vectors there are of no id here")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (vectors([1, 2], width=8), "vector: expected vectors of 4 numbers, the feature's dim, got one of 8"),
        (vectors([9001, 9002]), "item: none of its 2 ids is in the vocabulary of 60"),
        (vectors([1, 2, 1]), "item: 1 is there twice"),
        (vectors(["a", "b"]), "item"),
        (
            vectors([1, 2]).append_column("more", pa.array([1, 2])),
            "expected a column of ids and one of lists of numbers",
        ),
        (
            pa.table({"item": [1, 2], "vector": [[0.0, 1.0, 2.0, float("nan")], [0.0] * 4]}),
            "vector: a vector has a number that is missing or not finite",
        ),
        (pa.table({"item": [1, 2], "vector": [None, [0.0] * 4]}), r"vector: a vector is missing \(null\)"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(vectored, data, tmp_path, table, message):
    """With its name, the column, and what is wrong."""
    pq.write_table(table, tmp_path / "vectors.parquet")
    with pytest.raises(DataError, match=rf"vectors\.parquet: .*{message}"):
        begun(vectored, data, tmp_path)


def test_a_file_that_is_not_there_is_refused_before_anything_is_written(vectored, data, tmp_path):
    """And one that is no Parquet when it is read."""
    with pytest.raises(DataError, match=r"item_id\.pretrained: no such file: .*vectors\.parquet"):
        trainer.train(vectored, data, tmp_path / "run", progress=Silent(), start=Beginning(base=tmp_path))
    assert not (tmp_path / "run").exists()
    (tmp_path / "vectors.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"neither a Parquet \(\.parquet\) nor an Arrow file"):
        begun(vectored, data, tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("candidates.item_id.encode=hash", r"item_id\.pretrained: only for encode = 'vocabulary'"),
        ("context.clicked.pretrained=x", r"clicked\.pretrained: set by the feature 'item_id'"),
        ("context.hour.pretrained=x", r"hour\.pretrained: only for encode = 'vocabulary'"),
        (
            'context.c={kind="id", make="cross", of=["city", "user_id"], pretrained="x"}',
            r"c\.pretrained: a cross is made",
        ),
    ],
)
def test_only_a_table_of_known_ids_has_vectors(vectored, override, message):
    """Not a hash, a cross, a clock, or a table of another feature."""
    with pytest.raises(SpecError, match=message):
        specs.parse(specs.dump(vectored), overrides=[override])


def test_session_tables_do_not_depend_on_vectors_and_a_model_does(vectored, spec, data, tmp_path):
    """Tables made before stay; another file is another model."""
    assert sections.of_tables(vectored) == sections.of_tables(spec)
    items = preprocessor.load(vectored, data / "fitted").encoders["item_id"].values.to_pylist()
    pq.write_table(vectors(items), tmp_path / "vectors.parquet")
    start = Beginning(base=tmp_path)
    trainer.train(vectored, data, tmp_path / "run", progress=Silent(), start=start)
    pq.write_table(vectors(items[1:]), tmp_path / "vectors.parquet")
    with pytest.raises(FileExistsError, match=r"\(of another pretrained vectors\)"):
        trainer.train(vectored, data, tmp_path / "run", progress=Silent(), start=start)


def train_on_ranks(text, data, folder, base):
    """A model that starts from vectors, on as many ranks as there are."""
    trainer.train(specs.parse(text), data, folder, progress=Silent(), start=Beginning(base=base))


def test_several_processes_start_from_the_same_vectors(vectored, data, tmp_path):
    """Each fills the rows it holds."""
    items = preprocessor.load(vectored, data / "fitted").encoders["item_id"].values.to_pylist()
    pq.write_table(vectors(items), tmp_path / "vectors.parquet")
    spec = specs.parse(specs.dump(vectored), overrides=["train.epochs=1", "train.sharding.default=row_wise"])
    trainer.train(spec, data, tmp_path / "one", progress=Silent(), start=Beginning(base=tmp_path))
    on_ranks(2, train_on_ranks, specs.dump(spec), data, tmp_path / "two", tmp_path)
    one, two = (dict(tensor_folder.tensors(checkpoint.steps(tmp_path / name)[-1])) for name in ("one", "two"))
    torch.testing.assert_close(two["tables.item_id"], one["tables.item_id"], rtol=1e-4, atol=1e-5)
