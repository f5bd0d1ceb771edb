"""What may be written into a folder: the states it can be in, what is removed with `overwrite`, and the sentences."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from rec.atomic import RECORD
from rec.errors import DataError
from rec.output_folder import LOCK, Origin, locked, opened, outliving, replaced
from rec.progress import Silent

ORIGIN = Origin("train", "shop", {"[model]": "a", "session tables": "b", "training version": 1}, ("model", "log.txt"))


class Told(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def filled(out, origin=ORIGIN, *, overwrite="never", ends=True, progress=None):
    """The state a folder was in, before a model was written into it."""
    with opened(out, origin, overwrite=overwrite, progress=progress or Silent()) as state:
        if state != "finished":
            (out / "model").mkdir(exist_ok=True)
            (out / "model" / "weights").write_text(origin.made_of["[model]"])
        if not ends:
            raise KeyboardInterrupt
    return state


def changed(**parts):
    """The same, of another model."""
    return Origin(ORIGIN.verb, ORIGIN.spec, {**ORIGIN.made_of, "[model]": "c", **parts}, ORIGIN.entries)


def test_a_folder_is_new_then_interrupted_then_finished(tmp_path):
    """The same origin goes on where it stopped, and is done once."""
    out, progress = tmp_path / "out", Told()
    with pytest.raises(KeyboardInterrupt):
        filled(out, ends=False)
    assert filled(out, progress=progress) == "interrupted"
    assert filled(out, progress=progress) == "finished"
    assert progress.lines == [
        f"{out}: going on with what `multigate train` began for spec 'shop'",
        f"{out}: what `multigate train` wrote for spec 'shop' is here already",
    ]


def test_work_that_wrote_nothing_leaves_no_folder(tmp_path):
    """An error at once is as if nothing had been tried; a folder that was there before stays."""
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        with pytest.raises(ZeroDivisionError), opened(tmp_path / name, ORIGIN, overwrite="never", progress=Silent()):
            1 / 0  # noqa: B018
    assert [(path.name, list(path.iterdir())) for path in tmp_path.iterdir()] == [("there", [])]


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        (changed(), "of another [model]"),
        (changed(**{"training version": 2}), "of another [model], training version 1"),
        (Origin("export", "shop", ORIGIN.made_of, ("model.onnx",)), "not what `multigate export` writes"),
    ],
)
def test_another_origin_is_refused_and_nothing_is_touched(tmp_path, origin, why):
    """The sentence names the folder, the verb and the spec that wrote it, what differs, and the way out."""
    filled(tmp_path / "out")
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    with pytest.raises(FileExistsError) as error:
        filled(tmp_path / "out", origin)
    assert str(error.value) == (
        f"{tmp_path / 'out'}: holds what `multigate train` wrote for spec 'shop' ({why}); give another --out, or"
        " --force to make it again"
    )
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("overwrite", ["stale", "always"])
def test_overwriting_says_what_it_removes_and_removes_only_that(tmp_path, overwrite):
    """Names of the record go, said before; what a person put there stays, and so does a link's target."""
    out, progress = tmp_path / "out", Told()
    filled(out)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "precious").touch()
    (out / "log.txt").symlink_to(tmp_path / "target")
    (out / "notes.txt").write_text("mine")
    (out / ".model.123.tmp").mkdir()
    assert filled(out, changed(), overwrite=overwrite, progress=progress) == "new"
    assert progress.lines == [f"{out}: removing what `multigate train` wrote for spec 'shop' (of another [model])"]
    assert sorted(file.name for file in out.iterdir()) == [RECORD, "model", "notes.txt"]
    assert (out / "model" / "weights").read_text() == "c"
    assert (tmp_path / "target" / "precious").exists()


def test_only_what_is_stale_is_overwritten_when_that_is_asked(tmp_path):
    """`run --force` keeps a finished step; `train --force` begins again."""
    filled(tmp_path / "out")
    assert filled(tmp_path / "out", overwrite="stale") == "finished"
    assert filled(tmp_path / "out", overwrite="always") == "new"


@pytest.mark.parametrize("overwrite", ["never", "stale", "always"])
def test_what_is_not_ours_is_refused_whatever_is_said(tmp_path, overwrite):
    """A home folder, a file, a record of somebody else: no option writes there."""
    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / name).touch()
    with pytest.raises(
        FileExistsError, match="holds a, b, c and 2 more, which no verb of multigate wrote; --force does"
    ):
        filled(tmp_path, overwrite=overwrite)
    with pytest.raises(FileExistsError, match="a file is in the place of a folder; give another --out"):
        filled(tmp_path / "a", overwrite=overwrite)
    for text in ("{", "[]", '{"format": 1}', json.dumps({**ORIGIN.record(finished=True), "format": 2})):
        (tmp_path / RECORD).write_text(text)
        with pytest.raises(FileExistsError, match="not a record that this version wrote"):
            filled(tmp_path, overwrite=overwrite)
    assert len(list(tmp_path.iterdir())) == 6


def test_a_record_names_nothing_outside_its_folder(tmp_path):
    """A record that was tampered with removes nothing elsewhere."""
    filled(tmp_path / "out")
    (tmp_path / "precious").touch()
    record = {**ORIGIN.record(finished=True), "entries": ["../precious", str(tmp_path / "precious"), "model"]}
    (tmp_path / "out" / RECORD).write_text(json.dumps(record))
    filled(tmp_path / "out", changed(), overwrite="always")
    assert (tmp_path / "precious").exists()


def test_what_is_replaced_as_a_whole_stays_until_then(tmp_path):
    """With its record; what a person put there is carried over."""
    out, progress = tmp_path / "out", Told()
    filled(out)
    (out / "notes.txt").write_text("mine")
    for ends in (False, True):
        with suppress(KeyboardInterrupt), replaced(out, changed(), overwrite="always", progress=progress) as beside:
            assert beside is not None
            (beside / "log.txt").write_text("new")
            assert (out / "model" / "weights").read_text() == "a"
            assert json.loads((out / RECORD).read_text()) == ORIGIN.record(finished=True, files=["model/weights"])
            if not ends:
                raise KeyboardInterrupt
        assert ("log.txt" in names(out)) == ends
    assert names(out) == [RECORD, "log.txt", "notes.txt"]
    with replaced(out, changed(), overwrite="never", progress=progress) as beside:
        assert beside is None
    assert progress.lines[0] == (
        f"{out}: making again what `multigate train` wrote for spec 'shop' (of another [model]), which stays until the"
        " new one is whole"
    )


def test_an_earlier_result_stands_where_its_successor_fails(tmp_path):
    """Of a verb whose unfinished work is a hidden entry: an error leaves the record, too; Ctrl-C leaves the work."""
    out, origin = tmp_path / "out", replace(ORIGIN, entries=(*ORIGIN.entries, ".work"))
    filled(out, origin)

    def broken(error, *works):
        with suppress(error), opened(out, origin, overwrite="always", progress=Silent()):
            for work in works:
                (out / work).mkdir()
            raise error
        return json.loads((out / RECORD).read_text())["finished"]

    assert broken(DataError)
    assert not broken(KeyboardInterrupt, ".work")
    assert (out / "model" / "weights").exists()


def names(folder):
    """What is in a folder."""
    return sorted(file.name for file in folder.iterdir())


def test_one_process_writes_a_folder(tmp_path):
    """Another one is refused, with the name of the first; afterwards no lock is left."""
    with locked(tmp_path / "out", "train"), pytest.raises(BlockingIOError) as error:
        filled(tmp_path / "out", overwrite="always")
    assert str(error.value) == (
        f"{tmp_path / 'out'}: `multigate train` (pid {os.getpid()}) is writing it; wait until that has ended, or give"
        " another --out"
    )
    assert names(tmp_path) == []
    assert filled(tmp_path / "out") == "new"
    assert names(tmp_path) == ["out"]


def test_where_nothing_may_be_written_beside_the_lock_is_inside(tmp_path, monkeypatch):
    """A volume of a container, say: the lock is no part of what it holds."""
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with opened(tmp_path / "out", ORIGIN, overwrite="never", progress=Silent()):
        assert names(tmp_path / "out") == [RECORD, LOCK]
    assert names(tmp_path / "out") == [RECORD]


def test_what_outlives_a_replacement(tmp_path):
    """The record and what a person put there."""
    filled(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").touch()
    assert sorted(outliving(tmp_path / "out", ORIGIN)) == [RECORD, "notes.txt"]


def test_what_a_verb_reads_never_holds_its_output_folder(tmp_path):
    """A later look at the input would find what does not belong there; nothing is made."""
    filled(tmp_path / "tables")
    origin, out = (
        Origin("score", "shop", {}, ("part.parquet",), (tmp_path / "tables",)),
        tmp_path / "tables/deep/scores",
    )
    for writes in (opened, replaced):
        with pytest.raises(FileExistsError) as error, writes(out, origin, overwrite="always", progress=Silent()):
            raise AssertionError("it was opened")
        assert str(error.value) == f"{out}: lies in what this command reads ({tmp_path / 'tables'}); give another --out"
    assert names(tmp_path / "tables") == [RECORD, "model"]


@pytest.mark.parametrize("out", ["tables", "linked", "."])
def test_what_a_verb_reads_is_never_its_output_folder(tmp_path, monkeypatch, out):
    """With `overwrite` too: it would remove its own input before it read it, by a link or a folder above as well."""
    monkeypatch.chdir(tmp_path)
    tables = tmp_path / "tables"
    filled(tables)
    (tmp_path / "linked").symlink_to("tables")
    origin = Origin("score", "shop", {}, ("part.parquet",), (tables,))
    with pytest.raises(FileExistsError) as error, opened(Path(out), origin, overwrite="always", progress=Silent()):
        raise AssertionError("it was opened")
    assert str(error.value) == f"{out}: holds what this command reads ({tables}); give another --out"
    assert (tables / "model" / "weights").exists()


def test_a_finished_folder_of_which_a_file_is_gone_is_not_here_already(tmp_path):
    """It is named, and made again where that is allowed."""
    out, progress = tmp_path / "out", Told()
    filled(out)
    (out / "model" / "weights").unlink()
    with pytest.raises(FileExistsError) as error:
        filled(out)
    assert str(error.value) == (
        f"{out}: holds what `multigate train` wrote for spec 'shop' (of which model/weights is missing); give another"
        " --out, or --force to make it again"
    )
    assert filled(out, overwrite="stale", progress=progress) == "new"
    assert (out / "model" / "weights").read_text() == "a"


@pytest.mark.parametrize("out", ["file/out", "x" * 300])
def test_an_output_that_cannot_be_names_itself(tmp_path, out):
    """Not the lock beside it, which nobody gave."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written: ") as error, locked(tmp_path / out, "train"):
        raise AssertionError("it was locked")
    assert error.value.filename == str(tmp_path / out)


def test_the_root_of_all_folders_is_locked_inside():
    """It has no name to put a lock beside."""
    refused = pytest.raises(FileExistsError, match="no verb of multigate wrote")
    with refused, opened(Path("/"), ORIGIN, overwrite="always", progress=Silent()):
        raise AssertionError("it was opened")
