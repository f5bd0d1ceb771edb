"""Suites: variants of a spec trained over several seeds, evaluated on the test split, and reported on a page.

A suite is one file here that offers `SUITE`. Its rows are ways to train; every row is trained once per seed in a
process of its own (benchmarks/quality/runner.py), and what is left of a training is one JSON file:

    {"row", "seed", "model": its settings, "best": epoch, "epochs": [{"epoch", "seconds"}], "validation": {output: AUC},
     "weights": {"dense": .., "tables": ..}, "report": as report.json, "measured": what `SUITE.measure` returned}

From these `SUITE.page` makes tables and drawings, and benchmarks/quality/page.py puts them between the marks of
docs/measured/NAME.md and of the models' own pages.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rec.atomic import read_json
from rec.errors import SpecError, nearest
from rec.spec import Spec

NAMES = ("ablation", "census", "home", "kuairand", "lists", "redraw", "shop")

Results = Mapping[str, Sequence[Mapping[str, Any]]]  # row -> what is left of its trainings, by seed


@dataclass(frozen=True)
class Variant:
    """A row of a suite: its name in tables, its overrides, and the suite's spec that they apply to."""

    name: str
    overrides: tuple[str, ...]
    of: str = ""


@dataclass(frozen=True)
class SuiteData:
    """A spec of a suite and its session tables."""

    spec: Spec
    data: Path

    @property
    def card(self) -> dict[str, Any]:
        """The data card: counts of every split, and more."""
        return read_json(self.data / "manifest.json")


@dataclass(frozen=True)
class PageContent:
    """The generated content of a page: tables by the name of their mark, drawings by file, tables of models."""

    tables: Mapping[str, str]
    plots: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Specs by name ("" where there is one), the rows made of them, and the page made of the rows' results.

    `overrides` are for all of its specs, `changes` for one, by its name.
    `measure` names a function "module:name" of (run, data) that is called after evaluation; what it returns, plain
    JSON, is kept with the result.
    """

    specs: Mapping[str, Path]
    seeds: int
    rows: Callable[[Mapping[str, SuiteData]], Sequence[Variant]]
    page: Callable[[Results, Mapping[str, SuiteData]], PageContent]
    measure: str | None = None
    overrides: tuple[str, ...] = ()
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def get(name: str) -> Suite:
    """The suite of a name; SpecError when there is none."""
    if name not in NAMES:
        raise SpecError(f"--suite {name}: no such suite: {', '.join(NAMES)}{nearest(name, NAMES)}")
    return importlib.import_module(f"{__name__}.{name}").SUITE


def model(settings: Mapping[str, Any]) -> str:
    """The override that puts `settings` into `[model]`, whatever stood there.

    >>> model({"name": "mmoe", "experts": 4})
    'model={ name = "mmoe", experts = 4 }'
    """
    return f"model={_toml(dict(settings))}"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)
