"""Processes that train together: what happens when one of them dies, hangs, or is not alone with its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks.kills import TrainCommand, compared, ranks, started
from rec import spec as specs
from rec.training import checkpoint, tensor_folder
from tests.rec.training import few_requests

pytestmark = pytest.mark.slow
KEPT = "every whole checkpoint is kept in MODEL, and the same command goes on after the last"
ENDLESS = (
    "train.batch=16",
    "train.epochs=99",
    "train.patience=99",
    "train.checkpoint.steps=2",
    "train.timeout=5s",
)


@pytest.fixture(scope="module")
def training(spec, data, tmp_path_factory):
    """A training of two ranks that takes a while."""
    path = tmp_path_factory.mktemp("training") / "spec.toml"
    path.write_text(specs.dump(spec))
    return TrainCommand(path, data, 2, ENDLESS)


@pytest.fixture(scope="module", autouse=True)
def hanging(training, tmp_path_factory):
    """A training one of whose ranks is stopped for good, and its ranks: that takes a while to be seen."""
    out = tmp_path_factory.mktemp("hanging") / "run"
    with started(training, out) as process:
        family = until_it_saved(process, out)
        family["rank 1"].send_signal(signal.SIGSTOP)
        yield process, family, out


def until_it_saved(process, out):
    """Wait for the first checkpoint; the ranks."""
    while not checkpoint.steps(out):
        assert process.poll() is None, words(out)
        time.sleep(0.02)
    return ranks(process)


def words(out):
    """What a training said."""
    return out.with_suffix(".log").read_text()


def test_when_a_rank_dies_the_others_are_stopped(training, tmp_path):
    """The message has the rank and the signal, nobody hangs, and what was saved is there."""
    out = tmp_path / "run"
    with started(training, out) as process:
        family = until_it_saved(process, out)
        family["rank 1"].kill()
        assert process.wait(60) == 1
        assert not any(rank.is_running() for rank in family.values())
    assert f"multigate: rank 1 was ended by SIGKILL; the other ranks were stopped; {KEPT}\n" in words(out)
    assert "our mistake" not in words(out)
    assert checkpoint.steps(out)


def test_when_the_launcher_is_killed_the_ranks_leave(training, tmp_path):
    """Nobody watches over them; what was saved is there, and the folder is free again."""
    out = tmp_path / "run"
    with started(training, out) as process:
        family = until_it_saved(process, out)
        process.kill()
        _, alive = psutil.wait_procs(family.values(), timeout=60)
        assert alive == []
    assert "our mistake" not in words(out)
    alone = TrainCommand(training.spec, training.data, 1, training.overrides)
    with started(alone, out) as process:
        until_it_saved(process, out)
        assert process.poll() is None, words(out)


def test_ranks_without_a_candidate_take_part(spec, training, tmp_path):
    """Batches of one or two requests on four ranks: most of them have none, and weights are those of one process."""
    whole, divided = tmp_path / "whole", tmp_path / "divided"
    few = few_requests.of(training.data, tmp_path / "data", spec, requests=120)
    settings = ("train.batch=8", "train.epochs=1")
    for procs, out in ((1, whole), (4, divided)):
        with started(TrainCommand(training.spec, few, procs, settings), out) as process:
            assert process.wait() == 0, words(out)
    expected, tables = dict(tensor_folder.tensors(checkpoint.steps(whole)[-1])), 0
    for name, tensor in tensor_folder.tensors(checkpoint.steps(divided)[-1]):
        if name.startswith(("dense.", "tables.")):
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
            tables += 1
    assert tables > 5


def test_two_trainings_do_not_share_a_folder(training, tmp_path):
    """The second ends at once with the pid of the first, and another spec does not take it over after that."""
    out = tmp_path / "run"
    with started(training, out) as process:
        until_it_saved(process, out)
        second = subprocess.run(training.words(out), capture_output=True, text=True, timeout=120, check=False)
        assert process.poll() is None
    assert second.returncode == 5
    assert second.stderr.count("multigate: ") == 1
    assert f"multigate: rank 0: {out}: `multigate train` (pid " in second.stderr
    assert "is writing it; wait until that has ended, or give another --out" in second.stderr
    other = [*training.words(out), "--set", "train.lr=0.5"]
    third = subprocess.run(other, capture_output=True, text=True, timeout=120, check=False)
    assert third.returncode == 5
    assert third.stderr.count("multigate: ") == 1
    assert "began for spec 'tiny-shop' (of another [train]); give another --out, or --force" in third.stderr
    assert checkpoint.steps(out)


def test_torchrun_gives_the_files_of_procs(training, tmp_path):
    """`torchrun -m pipelines.cli train` is `multigate train --procs`."""
    mine, other = tmp_path / "procs", tmp_path / "torchrun"
    short = TrainCommand(training.spec, training.data, 2, ("train.epochs=1",))
    command = short.words(other)
    command[:1] = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [word for word in command if word != "--procs"][:-3] + command[-2:]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with started(short, mine) as process:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert process.wait() == 0, words(mine)
    assert done.returncode == 0, done.stderr
    assert compared(mine, other) == []
    files = [sorted(file.relative_to(run).as_posix() for file in Path(run).rglob("*")) for run in (mine, other)]
    assert files[0] == files[1]


def test_a_rank_that_waits_too_long_says_for_what(hanging):
    """Another one is stopped: it ends after train.timeout, and the other is killed half a minute later."""
    process, family, out = hanging
    assert process.wait(90) == 5, words(out)
    assert not any(rank.is_running() for rank in family.values())
    assert "multigate: rank 0: waited for another rank longer than 5 s (train.timeout): it hangs" in words(out)
    assert "our mistake" not in words(out)
