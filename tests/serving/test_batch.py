from __future__ import annotations

import json
import os
import shutil

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.atomic import sha256, write_json
from rec.data import splits
from rec.errors import DataError
from rec.output_folder import locked
from rec.progress import Silent
from serving import batch
from serving.bundle import load
from serving.scored_parts import ScoringWorkers
from tests.serving.conftest import signed


@pytest.fixture
def many(data, spec, tmp_path):
    """The test split in three parts."""
    folder = tmp_path / "data"
    rows = next(splits.read(data, "test", spec))
    (folder / "test").mkdir(parents=True)
    third = len(rows) // 3
    for index in range(3):
        part = folder / "test" / f"part-{index:05d}.arrow"
        splits.write(part, [rows.slice(index * third, third)], rows.schema)
    return folder


def scored(bundle, data, out, **options):
    """Score on one thread."""
    return batch.score(bundle, data, out, workers=ScoringWorkers(), progress=Silent(), **options)


def test_every_candidate_is_scored_and_ranked(bundle, data, spec, opened, tmp_path):
    """One line per candidate, in the order of the data, with ids, position, every probability, score and rank."""
    result = scored(bundle, data, tmp_path / "out")
    table = pl.read_parquet(tmp_path / "out" / "*.parquet")
    rows = [row for block in splits.read(data, "test", spec) for row in block.to_pylist()]
    assert table["candidates.item_id"].to_list() == [c["item_id"] for row in rows for c in row["candidates"]]
    assert table["context.user_id"].to_list() == [row["context"]["user_id"] for row in rows for _ in row["candidates"]]
    assert table["position"].to_list() == [i for row in rows for i in range(len(row["candidates"]))]
    np.testing.assert_allclose(table["score"], table["tasks.click"].cast(float) + 5 * table["tasks.buy"].cast(float))
    for _, lines in table.group_by("request_id"):
        best = lines.sort(["score", "position"], descending=[True, False])
        assert best["rank"].to_list() == list(range(1, len(lines) + 1))
    assert (result["requests"], result["candidates"]) == (len(rows), len(table))


def test_the_manifest_describes_every_part(bundle, many, opened, tmp_path):
    """Digests of what went in and of what came out."""
    scored(bundle, many, tmp_path / "out")
    manifest = json.loads((tmp_path / "out/_manifest.json").read_text())
    assert (manifest["bundle"], manifest["split"], len(manifest["parts"])) == (opened.digest, "test", 3)
    entry = manifest["parts"]["part-00001.parquet"]
    assert entry["sha256"] == sha256(tmp_path / "out/part-00001.parquet")
    assert entry["input_sha256"] == sha256(many / "test/part-00001.arrow")


class Log(Silent):
    """Keeps the lines, and calls `see` at each stage that begins."""

    def __init__(self, see=lambda: None):
        """No line yet."""
        self.lines, self.see = [], see

    def start(self, *args):
        """A stage begins."""
        self.see()

    def say(self, line):
        """Kept."""
        self.lines.append(line)


@pytest.mark.parametrize("how", ["a part is missing", "forced"])
def test_success_is_there_only_while_the_scores_are_complete(bundle, many, tmp_path, how):
    """Written last, gone before anything else is when parts are made again, and back with the same bytes."""
    out, there = tmp_path / "out", []
    scored(bundle, many, out)
    assert (out / "_SUCCESS").read_bytes() == b""
    assert (out / "_SUCCESS").stat().st_mtime_ns >= (out / "_manifest.json").stat().st_mtime_ns
    before = pq.read_table(out)
    if how != "forced":
        (out / "part-00001.parquet").unlink()
    log = Log(lambda: there.append((out / "_SUCCESS").exists()))
    again = "always" if how == "forced" else "never"
    batch.score(bundle, many, out, workers=ScoringWorkers(), progress=log, overwrite=again)
    assert there == [False]
    assert (how == "forced") or log.lines[-1].endswith("1 of 3 parts are missing or changed, and are scored again")
    assert (out / "_SUCCESS").exists()
    assert pq.read_table(out).equals(before)


def test_a_folder_that_another_command_scores_into_is_left_to_it(bundle, many, tmp_path):
    """The second is refused with the pid of the first, and what is there stays as it is."""
    out = tmp_path / "out"
    scored(bundle, many, out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with (
        locked(out, "score"),
        pytest.raises(BlockingIOError, match=rf"`multigate score` \(pid {os.getpid()}\) is writing it"),
    ):
        scored(bundle, many, out, overwrite="always")
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_failed_run_leaves_no_success(bundle, many, tmp_path):
    """Nor does one that is done again keep that of before."""
    scored(bundle, many, tmp_path / "out")
    (many / "test/part-00001.arrow").write_bytes(b"broken")
    with pytest.raises(DataError, match="2 of 3 parts were scored"):
        scored(bundle, many, tmp_path / "out")
    assert not (tmp_path / "out/_SUCCESS").exists()


def test_a_killed_run_goes_on_where_it_stopped(bundle, many, tmp_path):
    """Whole parts are kept as they are, a half part is scored again, and the result is that of an unbroken run."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    scored(bundle, many, whole)
    scored(bundle, many, out)
    (out / "_manifest.json").unlink()
    done = json.loads((out / "_parts.json").read_text())
    del done["parts"]["part-00002.parquet"]
    write_json(out / "_parts.json", done)
    (out / "part-00002.parquet").rename(out / ".part-00002.parquet.77.tmp")
    (out / ".notes.77.tmp").touch()
    before = (out / "part-00000.parquet").stat().st_mtime_ns
    result = scored(bundle, many, out)
    assert (out / "part-00000.parquet").stat().st_mtime_ns == before
    assert result["scored"] < result["candidates"]
    assert pq.read_table(out).equals(pq.read_table(whole))
    assert (out / "_manifest.json").exists()
    assert [file.name for file in out.glob(".*.tmp")] == [".notes.77.tmp"]


def test_a_part_that_was_never_recorded_is_somebody_elses(bundle, many, tmp_path):
    """It is neither overwritten nor deleted, though it lies where a part is to be."""
    out = tmp_path / "out"
    scored(bundle, many, out)
    (out / "_manifest.json").unlink()
    done = json.loads((out / "_parts.json").read_text())
    del done["parts"]["part-00002.parquet"]
    write_json(out / "_parts.json", done)
    (out / "part-00002.parquet").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"part-00002\.parquet: no part that `multigate score` wrote here"):
        scored(bundle, many, out)
    assert (out / "part-00002.parquet").read_bytes() == b"mine"


def test_stale_parts_do_not_stay(bundle, many, tmp_path):
    """Of an input that cannot be read any more, and of one that is no more."""
    out = tmp_path / "out"
    scored(bundle, many, out)
    record = json.loads((out / "_parts.json").read_text())
    record["parts"]["part-00007.parquet"] = record["parts"]["part-00000.parquet"]
    write_json(out / "_parts.json", record)
    (out / "part-00007.parquet").write_bytes((out / "part-00000.parquet").read_bytes())
    (many / "test/part-00001.arrow").write_bytes(b"broken")
    with pytest.raises(DataError, match="2 of 3 parts were scored"):
        scored(bundle, many, out)
    assert sorted(file.name for file in out.glob("*.parquet")) == ["part-00000.parquet", "part-00002.parquet"]


@pytest.mark.parametrize("where", ["input", "output"])
def test_a_part_that_changed_is_scored_again(bundle, many, tmp_path, where):
    """Resume believes digests, not names."""
    out = tmp_path / "out"
    scored(bundle, many, out)
    if where == "output":
        (out / "part-00001.parquet").write_bytes(b"changed")
    else:
        shutil.copy(many / "test/part-00000.arrow", many / "test/part-00001.arrow")
    result = scored(bundle, many, out)
    assert 0 < result["scored"] < result["candidates"]
    assert pq.read_table(out / "part-00001.parquet").num_rows > 0


def test_resuming_with_another_bundle_is_refused(bundle, spoilt, many, tmp_path):
    """Scores of two models never share a folder."""
    scored(bundle, many, tmp_path / "out")
    with pytest.raises(FileExistsError, match=r"wrote for spec 'tiny-shop' \(of another bundle\); give another --out"):
        scored(signed(spoilt, created="later"), many, tmp_path / "out")


def test_a_file_that_no_manifest_names_is_never_deleted(bundle, many, tmp_path):
    """A folder of somebody else is refused; in one of ours --force removes what was scored, and nothing beside it."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "part-00009.parquet").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"holds part-00009\.parquet, which no verb of multigate wrote; --force"):
        scored(bundle, many, out, overwrite="always")
    (out / "part-00009.parquet").unlink()
    scored(bundle, many, out)
    (out / "part-00009.parquet").write_bytes(b"mine")
    result = scored(bundle, many, out, overwrite="always")
    assert result["scored"] == result["candidates"]
    assert (out / "part-00009.parquet").read_bytes() == b"mine"


def test_a_place_that_cannot_be_written_is_no_fault_of_the_data(bundle, many, tmp_path):
    """It stays an OSError, exit code 5; parts that were done are kept, and no half of one is left."""
    scored(bundle, many, tmp_path / "out")
    (tmp_path / "out/part-00001.parquet").unlink()
    (tmp_path / "out/part-00001.parquet/in-the-way").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        scored(bundle, many, tmp_path / "out")
    assert (tmp_path / "out/part-00000.parquet").is_file()
    assert not list((tmp_path / "out").glob(".*.tmp"))


def test_a_bad_part_is_named_and_the_others_are_kept(bundle, many, tmp_path):
    """No manifest is written, and when the part is mended only it is scored."""
    good = (many / "test/part-00001.arrow").read_bytes()
    (many / "test/part-00001.arrow").write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"part-00001\.arrow: not a whole session table(.|\n)*2 of 3 parts were scored"):
        scored(bundle, many, tmp_path / "out")
    assert not (tmp_path / "out/_manifest.json").exists()
    assert not (tmp_path / "out/part-00001.parquet").exists()
    (many / "test/part-00001.arrow").write_bytes(good)
    result = scored(bundle, many, tmp_path / "out")
    assert 0 < result["scored"] < result["candidates"]


def test_no_split_is_an_error(bundle, tmp_path):
    """The message says what makes one."""
    with pytest.raises(DataError, match="no session tables here"):
        scored(bundle, tmp_path, tmp_path / "out")


@given(st.integers(1, 60))
def test_blocks_hold_all_requests_once_and_few_candidates(data, spec, most):
    """In order, with at most so many candidates unless one request alone has more."""
    rows = next(splits.read(data, "test", spec)).slice(3, 40)
    cut = list(batch.blocks(rows, most))
    assert [r for block in cut for r in block.column("request_id").to_pylist()] == rows.column("request_id").to_pylist()
    for block in cut:
        count = sum(map(len, block.column("candidates").to_pylist()))
        assert len(block) == 1 or count <= most


@pytest.mark.parametrize("seed", range(20))
def test_a_corrupted_part_is_refused_or_whole(bundle, many, tmp_path, seed):
    """Eight bytes anywhere: the part is refused with its name, or its rows are valid and scored."""
    path = many / "test/part-00001.arrow"
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    place = int(random.integers(8, len(data) - 16))
    data[place : place + 8] = random.bytes(8)
    path.write_bytes(data)
    try:
        scored(bundle, many, tmp_path / "out")
    except DataError as refused:
        message = str(refused)
    else:
        for block in splits.read_part(path, load(bundle).spec):
            block.validate(full=True)
        message = path.name
    assert path.name in message
