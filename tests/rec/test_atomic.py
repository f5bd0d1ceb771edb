"""Files and folders are whole or absent."""

from __future__ import annotations

import pytest

from rec import atomic
from rec.errors import BundleError


def test_a_folder_whose_making_fails_leaves_the_old_one(tmp_path):
    """And no rubbish beside it."""
    with atomic.whole_folder(tmp_path / "x") as beside:
        (beside / "a").write_text("old")

    def fail(beside):
        (beside / "a").write_text("new")
        raise RuntimeError

    with pytest.raises(RuntimeError), atomic.whole_folder(tmp_path / "x") as beside:
        fail(beside)
    assert (tmp_path / "x" / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_folder_is_replaced_whole(tmp_path):
    """Files of the old one do not shine through; what a killed writer left is swept."""
    (tmp_path / ".x.123.tmp").mkdir()
    for name in ("a", "b"):
        with atomic.whole_folder(tmp_path / "x") as beside:
            (beside / name).write_text("")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["b", "x"]


def test_the_old_folder_is_put_back_where_a_writer_was_killed_between_two_renames(tmp_path):
    """And what a neighbour of a longer name is writing is let alone."""
    for name in (".x.123.tmp", ".x.123.old.tmp", ".x.y.124.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    atomic.sweep(tmp_path / "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.y.124.tmp", "x"]
    assert (tmp_path / "x" / "a").read_text() == ".x.123.old.tmp"


def test_every_kind_of_change_to_an_inventory_is_named(tmp_path):
    """Changed, cut, missing, added, or a link in the place of a file."""
    (tmp_path / "a").write_text("12")
    listed = atomic.inventory(tmp_path)
    atomic.verify(tmp_path, listed)
    (tmp_path / "a").write_text("13")
    with pytest.raises(BundleError, match="a was changed: its sha256 is not the manifest's"):
        atomic.verify(tmp_path, listed)
    (tmp_path / "a").write_text("1")
    with pytest.raises(BundleError, match="a has 1 bytes, the manifest says 2"):
        atomic.verify(tmp_path, listed)
    (tmp_path / "a").unlink()
    with pytest.raises(BundleError, match="a is listed in the manifest but is not there"):
        atomic.verify(tmp_path, listed)
    (tmp_path / "c").write_text("12")
    (tmp_path / "a").symlink_to(tmp_path / "c")
    with pytest.raises(BundleError, match="a is listed in the manifest but is not there"):
        atomic.verify(tmp_path, listed)
    (tmp_path / "a").unlink()
    (tmp_path / "a").write_text("12")
    with pytest.raises(BundleError, match="c is not listed in the manifest"):
        atomic.verify(tmp_path, listed)


def test_json_that_is_absent_or_broken_is_a_bundle_error(tmp_path):
    """With the file's name."""
    with pytest.raises(BundleError, match=r"x\.json: missing"):
        atomic.read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(BundleError, match=r"x\.json: not JSON"):
        atomic.read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(BundleError, match=r"x\.json: not what was written there: expected a dict, got \[1\]"):
        atomic.read_json(tmp_path / "x.json", dict)
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(BundleError, match=r"x\.json: not JSON"):
        atomic.read_json(tmp_path / "x.json")
