"""Classes of other packages: what cannot be loaded is refused with its place, and nothing ends in a traceback."""

from __future__ import annotations

import pytest

from rec import models, objectives
from rec.errors import SpecError
from rec.spec import plugins

WIDTHS = {"context": 1, "candidate": 1, "tasks": {"a": None}}
MODULE = """
from torch import nn
from rec.modules.config import ModelConfig
from rec.spec import Strict

class Settings(ModelConfig):
    experts: int = 2

class Right(nn.Module):
    Config = Settings
    width = 3
    def __init__(self, config, *, context, candidate, tasks):
        super().__init__()
        self.experts = config.experts

class Bare(nn.Module):
    pass

class Loose(nn.Module):
    Config = dict

class Plain:
    Config = Settings
    def __init__(self, config, **widths):
        pass

class NoWidth(nn.Module):
    Config = Settings
    def __init__(self, config, **widths):
        super().__init__()

class Raising(Right):
    def __init__(self, config, **widths):
        raise ZeroDivisionError("no divisor")

class Silent(nn.Module):
    class Config(Strict):
        pass

right = Right
function = lambda: None
"""
WRONG = [
    ("theirs:Rihgt", "'theirs:Rihgt': module theirs has no class 'Rihgt'; did you mean 'Right'?"),
    ("theirs:function", "'theirs:function': module theirs has a function, not a class: 'function'"),
    ("thiers:Right", "'thiers:Right': no module 'thiers' is installed here"),
    ("theirs.below:Right", "'theirs.below:Right': no module 'theirs.below' is installed here"),
    ("raising:Right", "'raising:Right': importing raising raised ZeroDivisionError: division by zero"),
    ("lacking:Right", "'lacking:Right': importing lacking raised ModuleNotFoundError: No module named 'not_here'"),
    ("leaving:Right", "'leaving:Right': importing leaving raised SystemExit: 3"),
    ("broken:Right", "'broken:Right': importing broken raised SyntaxError: "),
    (":", "expected package.module:Class, got ':'"),
    ("a:b:c", "expected package.module:Class, got 'a:b:c'"),
    (".theirs:Right", "expected package.module:Class, got '.theirs:Right'"),
    ("theirs:Bare", "'theirs:Bare': expected a class with Config, its settings made from rec.modules.config."),
    ("theirs:Loose", "'theirs:Loose': expected Config to be made from rec.modules.config."),
    ("theirs:Silent", "'theirs:Silent': expected Config to be made from rec.modules.config."),
    ("theirs:Raising", "'theirs:Raising' cannot be built: ZeroDivisionError: no divisor"),
    ("theirs:Plain", "'theirs:Plain': expected a torch.nn.Module, got Plain"),
    ("theirs:NoWidth", "'theirs:NoWidth': expected an attribute width, the H of [T, N, H], got none"),
]


@pytest.fixture(autouse=True)
def theirs(tmp_path, monkeypatch):
    """A package of somebody else, beside some that cannot be imported."""
    (tmp_path / "theirs.py").write_text(MODULE)
    (tmp_path / "raising.py").write_text("1 / 0")
    (tmp_path / "lacking.py").write_text("import not_here")
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)")
    (tmp_path / "broken.py").write_text("class Right(")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def registered(folder, package, target, *, group="models", name="theirs"):
    """An installed package that registers a class."""
    described = folder / f"{package}-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[multigate.{group}]\n{name} = {target}\n")


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_what_cannot_be_used_is_refused_with_its_place(name, text):
    """The key of the spec, the class, and what is wrong with it."""
    with pytest.raises(SpecError) as caught:
        models.create({"name": name}, **WIDTHS)
    assert str(caught.value).startswith(f"model.name: {text}")


def test_a_class_by_its_path_has_settings_as_strict_as_ours():
    """The path of a key, and the nearest one."""
    assert models.create({"name": "theirs:Right", "experts": 5}, **WIDTHS).experts == 5
    with pytest.raises(SpecError, match=r"^model\.expers: unknown key; did you mean 'experts'\?"):
        models.create({"name": "theirs:Right", "expers": 5}, **WIDTHS)
    with pytest.raises(SpecError, match=r"^model\.experts: expected a valid integer, got 'many'"):
        models.create({"name": "theirs:Right", "experts": "many"}, **WIDTHS)


def test_a_registered_name_is_a_name_like_ours(theirs):
    """It is found, listed with its package, and suggested."""
    registered(theirs, "their-package", "theirs:Right")
    assert models.create({"name": "theirs"}, **WIDTHS).experts == 2
    assert models.REGISTRY.described()["theirs"] == "theirs:Right, of the package their-package"
    with pytest.raises(SpecError, match=r"model\.name: no model 'thiers': adatt, .*, theirs; did you mean 'theirs'\?"):
        models.create({"name": "thiers"}, **WIDTHS)


def test_a_name_of_ours_is_ours(theirs):
    """Whatever is installed beside it, a spec means what it meant; the other class has its path."""
    registered(theirs, "their-package", "theirs:Right", name="mmoe")
    assert models.config_of("mmoe").__module__ == "rec.models.mmoe"
    assert models.REGISTRY.described()["theirs:Right"] == "theirs:Right, of the package their-package"


def test_a_name_that_two_packages_register_is_refused(theirs):
    """Nobody can tell which is meant."""
    registered(theirs, "one-package", "theirs:Right")
    registered(theirs, "other-package", "theirs:Bare")
    with pytest.raises(SpecError, match=r"'theirs' is registered by one-package \(theirs:Right\) and other-package"):
        models.create({"name": "theirs"}, **WIDTHS)
    assert {"theirs:Right", "theirs:Bare"} <= set(models.REGISTRY.described())


def test_an_objective_without_losses_is_refused(theirs):
    """Before anything is trained with it."""
    registered(theirs, "their-package", "theirs:Silent", group="objectives")
    with pytest.raises(SpecError, match=r"^objective\.name: 'theirs:Silent': expected a method 'losses'"):
        objectives.configured({"name": "theirs"})


def test_nothing_is_imported_to_list_what_is_installed(theirs):
    """A package whose import raises is listed all the same."""
    registered(theirs, "their-package", "raising:Right")
    assert plugins.described("multigate.models", []) == {"theirs": "raising:Right, of the package their-package"}
