from __future__ import annotations

import errno
import json
import shutil

import pytest

from rec.errors import BundleError
from serving.server import generations
from serving.server.labels import Labelled
from serving.server.models_folder import models_folder


@pytest.fixture
def models(bundle, tmp_path):
    """A folder of two versions, of which a is stable."""
    for name in "ab":
        copy = shutil.copytree(bundle, tmp_path / "models" / name)
        (copy / "manifest.json").write_text((copy / "manifest.json").read_text() + " " * (name == "b"))
    (tmp_path / "models" / "labels.json").write_text('{"stable": {"version": "a"}}')
    return tmp_path / "models"


def copies(models):
    """The names of all copies."""
    return {path.name for path in (models / ".copies").iterdir() if path.name != ".lock"}


def served(folder, label="stable"):
    """A label's generation, pinned."""
    generation = folder.generation(folder.labels.get(label))
    folder.pin(label, generation)
    return generation


def test_what_was_served_is_served_after_a_restart(models):
    """From the same bytes, whatever has become of the version meanwhile: changed, or deleted."""
    with models_folder(models) as folder:
        before = served(folder)
        assert (before.version, before.path.parent.name) == ("a", ".copies")
    shutil.rmtree(models / "a")
    with models_folder(models) as folder:
        after = served(folder)
        assert after == before
        assert folder.versions() == ["b"]
        (after.path / "spec.toml").chmod(0o600)
        (after.path / "spec.toml").write_text("")
    with models_folder(models) as folder, pytest.raises(BundleError, match="no version 'a'"):
        served(folder)  # the copy was spoilt too
    assert copies(models) == set()


def test_a_version_that_has_changed_since_it_got_its_label_is_not_served_in_silence(models):
    """Where the copy is gone as well."""
    with models_folder(models) as folder:
        served(folder)
    (models / "a" / "manifest.json").write_text((models / "a" / "manifest.json").read_text() + "  ")
    generations._remove(models / ".copies")
    with models_folder(models) as folder, pytest.raises(BundleError, match="a has changed since it got its label"):
        served(folder)


def test_only_copies_that_can_be_served_again_stay(models):
    """Labelled now, or before the last changes; what a killed server was copying goes as it starts."""
    with models_folder(models) as folder:
        stable, other = served(folder), folder.take("b")
        assert copies(models) == {stable.digest, other.digest}
        folder.clean(set())
        assert copies(models) == {stable.digest}
        shadow = Labelled(version="b", digest=folder.take("b").digest)
        folder.write(folder.labels.changed("shadow", shadow))
        folder.write(folder.labels.changed("shadow", None))
        folder.clean(set())
        assert copies(models) == {stable.digest, other.digest}
    (models / ".copies" / "copying-12").mkdir()
    with models_folder(models):
        assert copies(models) == {stable.digest, other.digest}


def test_a_full_disk_leaves_no_half_copy(models, monkeypatch):
    """The error is the system's; what was there stays."""

    def full(_source, _target):
        raise OSError(errno.ENOSPC, "No space left on device")

    with models_folder(models) as folder:
        stable = served(folder)
        monkeypatch.setattr(generations, "_copy_file", full)
        with pytest.raises(OSError, match="No space left"):
            folder.take("b")
    assert copies(models) == {stable.digest}


def test_a_digest_is_noted_for_its_own_version_alone(models):
    """Not for the one that has the label since."""
    with models_folder(models) as folder:
        stable = folder.generation(folder.labels.stable)
        promoted = Labelled(version="b", digest=folder.take("b").digest)
        folder.write(folder.labels.changed("stable", promoted))
        folder.pin("stable", stable)
        assert folder.labels.stable == promoted


def test_a_folder_has_one_server(models):
    """Another is refused, until the first has gone; a file that somebody else has written is not overwritten."""
    with models_folder(models) as folder:
        with pytest.raises(BundleError, match="another server has this folder"), models_folder(models):
            pass
        (models / "labels.json").write_text("{}")
        with pytest.raises(BundleError, match=r"labels\.json: was changed by somebody else"):
            folder.write(folder.labels.changed("shadow", Labelled(version="b")))


def test_one_version_alone_is_stable(models):
    """Of several, somebody has to choose; a version is known by its manifest."""
    (models / "labels.json").unlink()
    (models / "notes").mkdir()
    with pytest.raises(BundleError, match=r'"stable".*there is: a, b'), models_folder(models):
        pass
    shutil.rmtree(models / "b")
    with models_folder(models) as folder:
        served(folder)
        salt = folder.labels.salt
    assert json.loads((models / "labels.json").read_text())["stable"]["version"] == "a"
    with models_folder(models) as folder:
        assert folder.labels.salt == salt
    with pytest.raises(BundleError, match="no such folder of models"), models_folder(models / "none"):
        pass


def test_what_is_not_a_servers_is_never_removed(models):
    """A folder that somebody put beside the copies stays, and a link in the place of theirs is refused."""
    with models_folder(models) as folder:
        stable = served(folder)
    (models / ".copies" / "mine").mkdir()
    with models_folder(models):
        assert copies(models) == {stable.digest, "mine"}
    (models / ".copies").rename(models.parent / "elsewhere")
    (models / ".copies").symlink_to(models.parent / "elsewhere")
    with pytest.raises(BundleError, match="expected a folder that only servers write"), models_folder(models):
        pass
    assert {path.name for path in (models.parent / "elsewhere").iterdir()} == {".lock", stable.digest, "mine"}
