"""What a run keeps when something goes wrong: the last good checkpoint, and how to go on."""

from __future__ import annotations

import json
import resource
import shutil

import pytest
import torch

from rec import spec as specs
from rec import world
from rec.errors import BundleError
from rec.progress import Silent
from rec.training import checkpoint, tensor_folder, trainer
from tests.rec.training.ranks import on_ranks

WIDE = "candidates.item_id.dim=64"  # a part of a table that is larger than LIMIT
LIMIT = 8192  # bytes of a file


def changed(spec, *overrides):
    """The tiny shop with other settings."""
    return specs.parse(specs.dump(spec), overrides=overrides)


def train(text, data, folder):
    """On as many ranks as there are."""
    trainer.train(specs.parse(text), data, folder, progress=Silent())


def train_on_a_full_disk(text, data, folder):
    """Rank 1 can write no large file, as if its disk were full."""
    if world.rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    try:
        train(text, data, folder)
    except (OSError, world.OtherRankError) as error:
        (folder.parent / f"rank-{world.rank()}.txt").write_text(f"{type(error).__name__}: {error}")


def contents(folder):
    """Every tensor as bytes."""
    return {name: x.numpy().tobytes() for name, x in tensor_folder.tensors(folder)}


@pytest.fixture(scope="module")
def two(spec, data, tmp_path_factory):
    """A run of one epoch on two ranks."""
    folder = tmp_path_factory.mktemp("two") / "run"
    on_ranks(2, train, specs.dump(changed(spec, "train.epochs=1", WIDE)), data, folder)
    return folder


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_run_of_two_ranks_goes_on_with_any_number(spec, data, two, tmp_path, size):
    """The loss of the steps to come is that of an unbroken run of one process, to the order of sums."""
    longer = changed(spec, "train.epochs=2", WIDE)
    mine = shutil.copytree(two, tmp_path / "run")
    if size == 1:
        train(specs.dump(longer), data, mine)
    else:
        on_ranks(size, train, specs.dump(longer), data, mine)
    trainer.train(longer, data, tmp_path / "alone", progress=Silent())
    histories = [json.loads((folder / "history.json").read_text()) for folder in (mine, tmp_path / "alone")]
    assert [entry["step"] for entry in histories[0]] == [entry["step"] for entry in histories[1]]
    for one, other in zip(*histories, strict=True):
        assert one["train"]["loss"] == pytest.approx(other["train"]["loss"], abs=2e-6)


def test_a_full_disk_names_rank_and_folder_and_keeps_what_was_saved(spec, data, two, tmp_path):
    """It goes on from there when there is room again."""
    longer, mine = changed(spec, "train.epochs=2", WIDE), shutil.copytree(two, tmp_path / "run")
    last = checkpoint.steps(mine)[-1]
    before = contents(last)
    on_ranks(2, train_on_a_full_disk, specs.dump(longer), data, mine)
    said = [(tmp_path / f"rank-{rank}.txt").read_text() for rank in (0, 1)]
    assert said[0] == "OtherRankError: rank 1 could not save a checkpoint"
    assert said[1].startswith(f"OSError: {mine / 'checkpoint'}: cannot save a checkpoint: rank-00001.safetensors: ")
    assert said[1].endswith("File too large (os error 27); those before it are kept")
    assert checkpoint.steps(mine) == [last]
    assert contents(last) == before
    on_ranks(2, train, specs.dump(longer), data, mine)
    assert checkpoint.steps(mine) != [last]
    assert not list(mine.rglob(".*.tmp"))


def test_a_checkpoint_that_lost_a_byte_names_the_one_before(spec, data, two, tmp_path):
    """The file, and what to remove; without an earlier one that it must begin again."""
    mine = shutil.copytree(two, tmp_path / "run")
    last = checkpoint.steps(mine)[-1]
    earlier = last.with_name("step-0000000003")
    shutil.copytree(last, earlier)
    path = last / "rank-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    longer = changed(spec, "train.epochs=2", WIDE)
    with pytest.raises(
        BundleError, match=rf"rank-00001\.safetensors has .* remove {last} to go on from {earlier.name}"
    ):
        trainer.train(longer, data, mine, progress=Silent())
    shutil.rmtree(earlier)
    with pytest.raises(BundleError, match=r"rank-00001\.safetensors has .*; train again with --force"):
        trainer.train(longer, data, mine, progress=Silent())


def test_what_a_killed_process_left_is_put_away(spec, data, two, tmp_path):
    """Copies vanish; a folder that was just being replaced comes back, and training goes on from it."""
    mine = shutil.copytree(two, tmp_path / "run")
    last = checkpoint.steps(mine)[-1]
    last.rename(last.with_name(f".{last.name}.old.tmp"))
    shutil.copytree(mine / "checkpoint" / "best", mine / "checkpoint" / ".best.old.tmp")
    (mine / "checkpoint" / ".step-0000000099.tmp").mkdir()
    (mine / ".history.json.77.tmp").write_text("[")
    tensor_folder.recover(mine / "checkpoint")
    assert sorted(file.name for file in (mine / "checkpoint").iterdir()) == ["best", last.name]
    (mine / "checkpoint" / ".step-0000000099.tmp").mkdir()
    trainer.train(changed(spec, "train.epochs=2", WIDE), data, mine, progress=Silent())
    assert not list(mine.rglob(".*.tmp"))
    assert [entry["epoch"] for entry in json.loads((mine / "history.json").read_text())] == [1, 2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_replace_nothing(tmp_path, bad):
    """The folder that is there stays, and the error names the tensor."""
    folder = tmp_path / "step-1"
    tensor_folder.write(folder, {"tables.item": torch.zeros(3, 2)}, {})
    broken = torch.zeros(3, 2)
    broken[1, 1] = bad
    with pytest.raises(BundleError, match=r"tables\.item is not finite, so nothing is saved"):
        tensor_folder.write(folder, {"tables.item": broken}, {})
    assert torch.equal(dict(tensor_folder.tensors(folder))["tables.item"], torch.zeros(3, 2))


def test_numbers_whose_sum_overflows_are_finite(tmp_path):
    """The sum is only the quick look."""
    tensor_folder.write(tmp_path / "x", {"a": torch.full((4,), 3e38)}, {})
