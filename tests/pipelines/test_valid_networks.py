"""Networks that were found valid before are known, and whatever may have changed is not."""

from __future__ import annotations

import sys

import pytest

from pipelines import valid_networks, validate
from rec import spec as specs
from rec.errors import SpecError


@pytest.fixture
def spec_file(tmp_path, spec, monkeypatch):
    """The tiny shop, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "spec.toml"
    path.write_bytes(specs.dump(spec).encode())
    return path


def test_a_network_is_known_once_it_was_validated(spec_file, monkeypatch):
    """Then no process is started for it, nor is torch imported."""
    spec = specs.load(spec_file)
    assert not valid_networks.known(spec)
    validate.load(spec_file)
    assert valid_networks.known(spec)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(validate, "_validating", lambda *_: pytest.fail("a process was started"))
    with validate.beside(spec_file) as (_, check):
        check.confirm(wait=True)


def test_another_spec_another_torch_and_other_code_are_not_known(spec_file, monkeypatch, tmp_path):
    """A digest is of all of them."""
    spec = specs.load(spec_file)
    valid_networks.keep(spec)
    assert not valid_networks.known(specs.load(spec_file, ["context.city.dim=8"]))
    with monkeypatch.context() as patched:
        patched.setattr(valid_networks, "version", lambda _: "0.0")
        assert not valid_networks.known(spec)
    with monkeypatch.context() as patched:
        patched.setattr(valid_networks, "_files", lambda: [tmp_path / "spec.toml"])
        assert not valid_networks.known(spec)
    assert valid_networks.known(specs.load(spec_file, ["source.users=130"]))


def test_a_network_that_was_refused_is_refused_again(spec_file):
    """Only what is valid is kept."""
    for _ in range(2):
        with pytest.raises(SpecError, match=r"model\.experts: expected"):
            validate.load(spec_file, ["model.experts=0"])
    assert not valid_networks.known(specs.load(spec_file, ["model.experts=0"]))


def test_a_model_of_another_package_is_validated_every_time(spec_file):
    """It may have changed and have the same name."""
    spec = specs.load(spec_file, ["model.name=theirs.models:Wide"])
    valid_networks.keep(spec)
    assert not valid_networks.known(spec)


def test_many_are_forgotten_together(spec_file, tmp_path, monkeypatch):
    """The folder does not grow without end."""
    monkeypatch.setattr(valid_networks, "MOST", 3)
    for dim in range(4, 20, 4):
        valid_networks.keep(specs.load(spec_file, [f"context.city.dim={dim}"]))
    assert len(list((tmp_path / "cache" / "multigate" / "networks").iterdir())) == 1


def test_without_a_folder_to_write_to_nothing_is_known(spec_file, tmp_path, monkeypatch):
    """And nothing fails."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    validate.load(spec_file)
    assert not valid_networks.known(specs.load(spec_file))
