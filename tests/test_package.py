"""What `pip install` gives: dependencies as they are tested, no more files than are needed, and a demo that runs."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import multigate
from tests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
SHIPPED = ("rec", "features", "serving", "pipelines")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$", re.MULTILINE)
DATA = {"pipelines/report/page.html", "pipelines/cli/shop.toml"}


def direct(name: str) -> dict[str, str]:
    """The pins of a requirement set that stand above the comment on what those ask for."""
    text = re.split(
        r"^# [Ww]hat (?:those|it) asks? for", (ROOT / f"requirements/{name}.txt").read_text(), flags=re.MULTILINE
    )[0]
    return dict(PIN.findall(text))


def required(*groups: list[str]) -> dict[str, Requirement]:
    """Requirements of the metadata by name."""
    return {(parsed := Requirement(line)).name: parsed for group in groups for line in group}


SETS = {
    "common and cpu": (required(PROJECT["dependencies"], EXTRAS["cpu"]), {**direct("common"), **direct("cpu")}),
    "cuda": (required(PROJECT["dependencies"], EXTRAS["cuda"]), {**direct("common"), **direct("cuda")}),
    "gbdt": (required(EXTRAS["gbdt"]), direct("gbdt")),
    "ray": (required(EXTRAS["ray"]), direct("ray")),
    "sql": (required(EXTRAS["sql"]), direct("sql")),
    "watch": (required(EXTRAS["watch"]), direct("watch")),
    "mlflow": (required(EXTRAS["mlflow"]), direct("mlflow")),
    "dev": (required(EXTRAS["dev"]), direct("dev")),
}

# what our own files may import beside the dependencies of every machine
OPTIONAL = ("cpu", "gbdt", "ray", "sql", "watch", "mlflow")


@pytest.mark.parametrize("name", SETS)
def test_a_range_begins_at_the_pin(name):
    """What `make` installs is the lower bound of what `pip install` allows, and each has what the other has."""
    ranges, pins = SETS[name]
    stand_in = {"fbgemm-gpu"} if name == "common and cpu" else set()
    assert set(ranges) - stand_in == set(pins)
    for package, pin in pins.items():
        lower = [bound.version for bound in ranges[package].specifier if bound.operator == ">="]
        assert lower == [pin], package


def test_the_package_that_stands_in_for_fbgemm_is_the_one_asked_for():
    """The extra `cpu` names its exact version, `cuda` excludes it: both together are refused by pip."""
    stand_in = tomllib.loads((ROOT / "requirements/fbgemm-cpu/pyproject.toml").read_text())["project"]
    name, version = stand_in["name"], stand_in["version"]
    assert str(required(EXTRAS["cpu"])[name].specifier) == f"=={version}"
    assert not required(EXTRAS["cuda"])[name].specifier.contains(version)
    assert stand_in["dependencies"] == [f"fbgemm-gpu-cpu=={direct('cpu')['fbgemm-gpu-cpu']}"]


def test_what_is_imported_is_asked_for():
    """Every library that a shipped file imports stands in the metadata under its own name."""
    names = metadata.packages_distributions()
    declared = {canonicalize_name(name) for name in required(PROJECT["dependencies"], *(EXTRAS[e] for e in OPTIONAL))}
    undeclared = {
        module
        for file in [ROOT / "multigate.py", *(file for part in SHIPPED for file in (ROOT / part).rglob("*.py"))]
        for module in imported(file)
        if module not in sys.stdlib_module_names
        and module not in (*SHIPPED, "multigate", "benchmarks")
        and not {canonicalize_name(name) for name in names.get(module, ())} & declared
    }
    assert undeclared == set()


def imported(file: Path) -> set[str]:
    """The top-level modules a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in whole | parts}


def test_importing_multigate_is_quick():
    """Neither torch nor any other library is imported until a name needs it."""
    code = (
        "import sys, json; before = set(sys.modules); import multigate;"
        "print(json.dumps(sorted({n.split('.')[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["multigate", "rec"]


def test_every_public_name_is_there():
    """`__all__` promises nothing that cannot be had, and what is not in it is an AttributeError."""
    assert [name for name in multigate.__all__ if getattr(multigate, name, None) is None] == []
    assert set(multigate.__all__) <= set(dir(multigate))
    assert multigate.__version__ == PROJECT["version"]
    with pytest.raises(AttributeError, match=r"^module 'multigate' has no attribute 'trian'$"):
        _ = multigate.trian


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built in a copy of it without an index."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "checkout").mkdir()
    copied = (
        "multigate.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        *SHIPPED,
        "benchmarks",
        "tools",
        "tests",
        "specs",
    )
    for name in copied:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "checkout" / name)
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *build, str(folder / "checkout")], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """An empty environment with the wheel; other people's packages come from the environment the tests run in."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python")]
    subprocess.run([*pip, *install], env=without_checkout(), check=True)
    (own,) = folder.glob("lib/python*/site-packages")
    # a path inside a .pth is taken as it is: the .pth files in there, such as that of this checkout, are not read
    shared = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (own / "shared.pth").write_text("\n".join(shared) + "\n")
    return folder


def without_checkout() -> dict[str, str]:
    """Environment variables that do not lead Python to this checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(environment: Path, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A program of the environment in a folder, without any hint of the checkout."""
    program = [str(environment / "bin" / command[0]), *command[1:]]
    return subprocess.run(program, cwd=folder, env=without_checkout(), capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    """Every file of ours and what it reads; no benchmarks, tools or tests."""
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {file.relative_to(ROOT).as_posix() for part in SHIPPED for file in (ROOT / part).rglob("*.py")}
    assert files == sources | DATA | {"multigate.py"}


@pytest.mark.slow
def test_nothing_comes_from_the_checkout(environment, tmp_path):
    """Each of our packages is the wheel's, and none of what is not shipped can be imported."""
    names = [*SHIPPED, "multigate"]
    code = f"import {', '.join(names)}; print(*({', '.join(f'{name}.__file__' for name in names)}), sep='\\n')"
    done = run(environment, ["python", "-c", code], tmp_path)
    assert [file for file in done.stdout.split() if not Path(file).is_relative_to(environment)] == []
    assert len(done.stdout.split()) == len(names), done.stderr
    for hidden in ("benchmarks", "tools", "tests"):
        assert "ModuleNotFoundError" in run(environment, ["python", "-c", f"import {hidden}"], tmp_path).stderr


@pytest.mark.slow
def test_the_wheel_is_well_where_it_is_installed(environment, tmp_path):
    """The doctor finds every dependency of the wheel's metadata, without the files that pin them."""
    done = run(environment, ["multigate", "doctor", "--json"], tmp_path)
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert [finding for finding in findings.values() if not finding["passed"]] == []
    assert done.returncode == 0
    assert set(required(PROJECT["dependencies"])) < set(findings)


@pytest.mark.slow
def test_the_demo_runs_from_an_empty_folder(environment, tmp_path):
    """Logs to a ranked answer over HTTP, with nothing at hand but the wheel; a smaller shop, to be quick."""
    smaller = ["--set", "source.users=200", "--set", "train.epochs=1"]
    done = run(environment, ["multigate", "demo", "--out", "shop", *smaller], tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^POST http://127.0.0.1:\d+/v1/rank\n\{\"request_id\": \"demo\"", done.stdout, re.MULTILINE)
    assert re.search(r"^rank +item_id +click +buy", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("run     shop\nreport  shop/report.html\n")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]
    assert (tmp_path / "shop/report.html").is_file()
