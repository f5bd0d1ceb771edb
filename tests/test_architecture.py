"""docs/architecture.md is true: every file has its room, imports point down, nothing runs in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

import pytest

from tests import ROOT
from tests.test_house import SOURCES, imports

PLAN = [
    re.findall(r"`([^`]+)`", row.group(1))
    for row in re.finditer(r"^\| (`[^|]+) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
]


def floor(module: str, plan: list[list[str]] = PLAN) -> int | None:
    """The row of the plan a module belongs to: the longest folder or file in it that holds the module."""
    path = module.replace(".", "/") + ".py"
    rooms = {room: row for row, names in enumerate(plan) for room in names}
    fitting = [room for room in rooms if path == room or path.startswith(f"{room}/")]
    return rooms[max(fitting, key=len)] if fitting else None


def edges(module: str, sources: Mapping[str, str]) -> set[str]:
    """Our own files that a file imports; `from a import b` is the file a/b.py, or else a/__init__.py."""
    names = imports(sources[module])
    files = {name for name in names if name in sources}
    packages = {f"{name}.__init__" for name in names if not any(other.startswith(f"{name}.") for other in names)}
    return (files | (packages & set(sources))) - {module}


def upward(module: str, sources: Mapping[str, str], plan: list[list[str]] = PLAN) -> list[str]:
    """Imports of a file that lies in a later row of the plan than the importing one."""
    mine = floor(module, plan)
    return sorted(name for name in edges(module, sources) if (floor(name, plan) or 0) > (mine or 0))


SAME_IN_A_REGISTRY = {"Config", "Model", "Objective", "Options"}  # every file of the folder offers one


def homonyms(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Class names that stand for several things, with the files they are in."""
    places: dict[str, list[str]] = {}
    for module, source in sources.items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and node.name not in SAME_IN_A_REGISTRY:
                places.setdefault(node.name, []).append(module)
    return {name: modules for name, modules in places.items() if len(modules) > 1}


def circle(sources: Mapping[str, str]) -> list[str]:
    """Files that import each other in a circle, or nothing."""
    try:
        TopologicalSorter({module: edges(module, sources) for module in sources}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("module", [m for m in SOURCES if m.count(".") > 1 or not m.endswith("__init__")])
def test_every_file_has_a_room(module):
    """A folder that is not in the plan is a shed."""
    assert floor(module) is not None


@pytest.mark.parametrize("room", [room for row in PLAN for room in row])
def test_every_room_of_the_plan_is_there(room):
    """The page names nothing that has gone."""
    assert (ROOT / room).exists()


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module):
    """A file imports from its own row of the plan, and from rows above it on the page."""
    assert upward(module, SOURCES) == []


def test_no_files_import_each_other_in_a_circle():
    """Not inside a folder either."""
    assert circle(SOURCES) == []


def test_an_upward_import_is_caught():
    """Planted: data asks for a model, inside a function."""
    planted = {"rec.data.planted": "def f():\n    from rec.models import mmoe\n", "rec.models.mmoe": ""}
    assert upward("rec.data.planted", planted) == ["rec.models.mmoe"]


def test_a_circle_is_caught():
    """Planted: two files of one folder, each with a function that needs the other."""
    planted = {
        "rec.data.a": "from rec.data import b",
        "rec.data.b": "def f():\n    from rec.data.a import x\n",
        "rec.data.__init__": "",
    }
    assert set(circle(planted)) == {"rec.data.a", "rec.data.b"}


def test_a_class_name_belongs_to_one_thing():
    """Whoever searches for a name finds one class; only a registry asks all its files for the same."""
    assert homonyms(SOURCES) == {}


def test_a_second_class_of_one_name_is_caught():
    """Planted: two files with a class of one name, and two models."""
    planted = {"rec.data.a": "class Table: ...", "features.b": "class Table: ...", "rec.models.c": "class Model: ..."}
    assert homonyms({**planted, "rec.models.d": "class Model: ..."}) == {"Table": ["rec.data.a", "features.b"]}
