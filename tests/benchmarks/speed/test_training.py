"""Epochs beside other libraries, steps beside their floor, the loader beside a step, all of them small."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import CHECKOUT, gpu
from benchmarks.quality.page import filled
from benchmarks.speed import synthetic
from benchmarks.speed.training import bench, epochs, files, products, steps
from rec.data import preprocessor, splits
from rec.data.session_table import to_batch
from rec.errors import BundleError
from rec.progress import Silent
from rec.request import concat


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty requests of four candidates."""
    out = tmp_path_factory.mktemp("bench") / "data"
    files.write(synthetic.spec(50, batch=80), out, rows=50, candidates=240, held_out=40, per_request=4)
    return out


def test_flat_rows_are_the_candidates_of_the_session_tables(data):
    """Rows of tables and labels, in the same order."""
    described = synthetic.spec(50)
    encoders = preprocessor.load(described, data / "fitted").encoders
    batch = concat([to_batch(rows, described, encoders) for rows in splits.read(data, "train", described)])
    flat = pq.read_table(data / "train.parquet")
    assert len(batch) == flat.num_rows == 240
    for name, ids in batch.context.items():
        np.testing.assert_array_equal(ids[batch.owner], flat[name].to_numpy())
    for name, ids in {**batch.candidates, **batch.labels}.items():
        np.testing.assert_array_equal(ids, flat[name].to_numpy())


def test_an_epoch_is_timed_and_judged():
    """Every precision of this CPU, without other libraries."""
    rows = epochs.epochs([50], [4], peers=None, candidates=(400, 400), threads=1, progress=Silent())
    assert [row.system for row in rows] == list(steps.precisions())
    assert all(0 < row.auc_click < 1 and row.per_core_second > 0 and row.of_best_peer is None for row in rows)


def test_an_interpreter_without_the_libraries_is_said():
    """With the end of what it said."""
    with pytest.raises(BundleError, match=r"(?s)peers.py .* ended with 1:.*No module named 'torch_rechub'"):
        epochs.epochs([50], [4], peers=sys.executable, candidates=(400, 400), threads=1, progress=Silent())


def test_steps_and_loader_are_measured_and_fill_the_page():
    """Every table of the page has its figures."""
    floors = steps.floors([(80, 4)], repeats=1, progress=Silent())
    loaders = steps.loaders([4], candidates=400, batch=80, repeats=1, progress=Silent())
    assert floors[0].fp32_of_floor > 0
    assert floors[0].fp32_of_products > 0
    assert loaders[0].loader > 0
    result = {
        "floors": floors,
        "loaders": loaders,
        "epochs": [epochs.Epoch(50, 4, "bf16", 1e4, 2e4, 3.0, 0.7, 0.7, 0.7)],
        "processes": [epochs.ProcessSpeed(2, 2.0, 1.0, 1.05)],
    }
    text = (CHECKOUT / "docs/measured/training.md").read_text()
    assert "| 50 | 4 | bf16 | 20,000 | 3.0 |" in filled(text, bench.page(result).tables, "training.md")


def test_the_products_of_a_step_are_those_of_both_passes():
    """Of a layer: its own product and two gradients, the shapes turned around."""
    left, right = torch.randn(6, 4, requires_grad=True), torch.randn(4, 2, requires_grad=True)
    seen = products.of(lambda: torch.mm(left, right).sum().backward())
    sizes = Counter({((6, 4), (4, 2)): 1, ((4, 6), (6, 2)): 1, ((6, 2), (2, 4)): 1})
    assert Counter({tuple(x.sizes for x in arguments): n for (_, arguments), n in seen.items()}) == sizes
    assert products.alone(seen, lambda work: 1.0 if work() is not None else 0.0) == 3.0


@pytest.mark.slow
def test_processes_that_train_together_are_timed():
    """The trainer itself, one process and two."""
    rows = epochs.processes([1, 2], candidates=400, progress=Silent())
    assert [row.processes for row in rows] == [1, 2]
    assert rows[0].faster == 1.0
    assert rows[0].largest_share == 1.0 <= rows[1].largest_share <= 2.0


def test_the_script_for_a_gpu_runs_small_on_a_cpu(capsys):
    """A line for every number of candidates per request, shape, precision, and way to copy."""
    gpu.main(["--small", "--models", "adatt"])
    title, _, names, *lines = capsys.readouterr().out.splitlines()
    assert "TFLOP/s" in title
    assert names.split()[:4] == ["model", "gigabytes", "per_request", "shape"]
    assert len({tuple(line.split()[2:6]) for line in lines}) == len(lines) == 16
