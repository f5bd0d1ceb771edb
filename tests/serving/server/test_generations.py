from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from functools import partial

import pytest

from rec.errors import BundleError
from serving.server import generations
from serving.server.generations import generation_store
from tests.serving.server.processes import free_port


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store whose home is a folder of this test's."""
    monkeypatch.setattr(generations.tempfile, "gettempdir", lambda: str(tmp_path))
    with generation_store() as store:
        yield store


def test_what_is_served_is_a_copy(store, bundle, spoilt, opened):
    """Of the verified bytes, in a folder named by the digest; what happens to the original changes nothing."""
    generation = store.take(spoilt)
    assert (generation.name, generation.digest) == (opened.name, opened.digest)
    assert generation.path.name == opened.digest
    shutil.rmtree(spoilt)
    assert (generation.path / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
    assert store.take(bundle) is generation


def test_the_copy_is_not_to_be_written(store, bundle):
    """Neither its files nor its folders, and by nobody else to be read."""
    generation = store.take(bundle)
    modes = {path.stat().st_mode & 0o777 for path in (generation.path, *generation.path.rglob("*"))}
    assert modes == {0o400, 0o500}


@pytest.mark.parametrize("fault", ["changed", "link", "fifo", "none"])
def test_what_is_no_bundle_is_refused(store, spoilt, fault):
    """With the place it came from, and without a trace."""
    if fault == "changed":
        (spoilt / "spec.toml").write_text("")
    elif fault == "link":
        (spoilt / "more").symlink_to("/etc/passwd")
    elif fault == "fifo":
        os.mkfifo(spoilt / "more")
    else:
        shutil.rmtree(spoilt)
    with pytest.raises(BundleError, match=str(spoilt)):
        store.take(spoilt)
    assert [path.name for path in store.folder.iterdir()] == [".lock"]


def test_old_copies_go(store, bundle, tmp_path):
    """But for those that are named, and the newest few."""
    taken = []
    for index in range(5):
        copy = shutil.copytree(bundle, tmp_path / str(index))
        manifest = (copy / "manifest.json").read_text()
        (copy / "manifest.json").write_text(manifest + " " * index)
        taken.append(store.take(copy))
        store.keep({taken[0].digest})
    assert [store.known(generation.digest) is not None for generation in taken] == [True, False, False, True, True]
    assert [generation.path.exists() for generation in taken] == [True, False, False, True, True]


def test_what_others_put_there_stays(tmp_path, monkeypatch):
    """A link to a folder that looks like a server's is followed by nobody."""
    monkeypatch.setattr(generations.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    mine = tmp_path / "mine" / "inner"
    mine.mkdir(parents=True)
    mine.chmod(0o755)
    (mine.parent / ".lock").touch()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "multigate-serve-link").symlink_to(mine.parent)
    with generation_store():
        assert mine.stat().st_mode & 0o777 == 0o755


def test_a_manifest_of_any_kind_is_refused(store, spoilt):
    """Nested without end, or with a name that no answer and no label could hold."""
    manifest = json.loads((spoilt / "manifest.json").read_text())
    hostile = ["[" * 200_000, *(json.dumps({**manifest, "name": n}) for n in ("a\ud800", "a\n", "", "a" * 10**6))]
    for text in hostile:
        (spoilt / "manifest.json").write_text(text)
        with pytest.raises(BundleError, match=r"not JSON|expected a name") as caught:
            store.take(spoilt)
        assert len(str(caught.value)) < 1000


def test_a_full_disk_is_said_at_the_start(bundle, tmp_path):
    """With no room in TMPDIR: the folder and the way out, exit code 5, no signal, and nothing stays."""
    command = [sys.executable, "-m", "pipelines.cli", "serve", str(bundle), "--port", str(free_port())]
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (10_000, 10_000))
    surroundings = os.environ | {"TMPDIR": str(tmp_path)}
    server = subprocess.run(
        command, env=surroundings, preexec_fn=limit, capture_output=True, text=True, timeout=120, check=False
    )
    text = f"multigate: {tmp_path}: no room for a copy of the bundle (File too large); TMPDIR names another folder\n"
    assert (server.returncode, text in server.stderr) == (5, True), server.stderr
    assert list(tmp_path.glob("multigate-serve-*")) == []


def test_what_killed_servers_left_is_removed(tmp_path, monkeypatch, bundle):
    """A folder whose lock nobody holds; that of a server that lives stays."""
    monkeypatch.setattr(generations.tempfile, "gettempdir", lambda: str(tmp_path))
    dead = tmp_path / "multigate-serve-dead"
    dead.mkdir()
    (dead / ".lock").touch()
    with generation_store() as living:
        assert not dead.exists()
        with generation_store():
            assert living.take(bundle).path.exists()
    assert list(tmp_path.glob("multigate-serve-*")) == []


def test_who_tidies_temporary_folders_leaves_a_copy_that_is_served(store):
    """systemd-tmpfiles passes over a folder on which somebody has a lock."""
    descriptor = os.open(store.folder, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_a_hard_link_is_copied_and_then_nobody_elses(store, bundle, spoilt, tmp_path):
    """As `cp -l` leaves a version: what is written through the other name changes nothing that is served."""
    os.link(spoilt / "model.onnx", tmp_path / "other.onnx")
    taken = store.take(spoilt)
    (tmp_path / "other.onnx").write_bytes(b"changed")
    assert (taken.path / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
    assert (taken.path / "model.onnx").stat().st_nlink == 1
    with pytest.raises(BundleError, match=r"model\.onnx"):
        store.take(spoilt)
