"""Registries: resolve the names in `[model]`, `[objective]` and `[source]` to built-in files or plugin classes.

A folder is a registry: each file is an entry, described by the first line of its docstring. Other packages add entry
points, and any class can be named as `package.module:Class` (rec/spec/plugins.py). Built-in names take precedence: an
entry point of the same name is only reached by its class.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from rec.errors import SpecError, nearest
from rec.spec import plugins
from rec.spec.explain import explain, fields_at, narrowed
from rec.spec.types import Strict

OURS = "multigate"
BASELINES = ("gbdt", "popularity")  # the files of rec/baselines: models that are no network


@dataclass(frozen=True)
class Entry:
    """A registry entry: its settings class, its constructor, and its plugin class (None: built in)."""

    config: type[Strict]
    make: Any
    target: str | None = None

    def create(self, where: str, *arguments: Any, **named: Any) -> Any:
        """Construct the entry; SpecError if a plugin's constructor fails."""
        if self.target is None:
            return self.make(*arguments, **named)
        return plugins.construct(self.target, where, self.make, *arguments, **named)


@dataclass(frozen=True)
class Registry:
    """The entries that one table of a spec may name.

    A built-in file of `package` has a settings class `config` and a constructor `make`; a plugin class has a `Config`
    derived from `base`, and `methods`. `renamed` maps keys of earlier versions to their new names; `elsewhere` are
    names that a spec may give in this table, and that are of another kind: {name: what it is}.
    """

    package: str
    path: Sequence[str]
    table: str
    base: type[Strict]
    make: str
    config: str = "Config"
    key: str = "name"
    default: str | None = None
    methods: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    elsewhere: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def group(self) -> str:
        """The entry point group of plugins."""
        return f"{OURS}.{self.table}s"

    @property
    def where(self) -> str:
        """The spec key with the name, for error messages."""
        return f"{self.table}.{self.key}"

    def files(self) -> list[str]:
        """The names of the built-in entries."""
        return sorted(module.name for module in pkgutil.iter_modules(self.path))

    def names(self) -> dict[str, str]:
        """The built-in entries, with the first line of their docstrings."""
        return {name: (self._module(name).__doc__ or "").strip().splitlines()[0] for name in self.files()}

    def described(self) -> dict[str, str]:
        """All entries: built-in ones with the first line of their docstrings, plugins with class and package."""
        return {**self.names(), **plugins.described(self.group, self.files())}

    def entry(self, name: object) -> Entry:
        """The entry of a name; SpecError when there is none, or it cannot be used."""
        if not isinstance(name, str):
            raise SpecError(f"{self.where}: expected a valid string, got {name!r}")
        files = self.files()
        if name in files:
            module = self._module(name)
            return Entry(getattr(module, self.config), getattr(module, self.make))
        plugin = None if plugins.is_target(name) else plugins.registered(self.group, name, self.where)
        if plugin is None and not plugins.is_target(name):
            if name in self.elsewhere:
                raise SpecError(f"{self.where}: {name!r} is {self.elsewhere[name]}")
            known = [*files, *self.elsewhere, *(plugin.name for plugin in plugins.installed(self.group))]
            raise SpecError(f"{self.where}: no {self.table} {name!r}: {', '.join(known)}{nearest(name, known)}")
        target = name if plugin is None else plugin.target
        plugin_class = plugins.load(target, self.where)
        config = plugins.settings_of(plugin_class, self.base, target=target, where=self.where)
        plugins.has_methods(plugin_class, self.methods, target=target, where=self.where)
        return Entry(config, plugin_class, target)

    def configured(self, settings: Mapping[str, Any]) -> tuple[Entry, Any]:
        """The entry that a table of the spec names, and its validated settings."""
        rest = dict(settings)
        if self.key not in rest and self.default is None:
            raise SpecError(f"{self.where}: required, but not given; one of {', '.join(self.files())}")
        entry = self.entry(rest.pop(self.key, self.default))
        for old in sorted(self.renamed.keys() & rest.keys() - entry.config.model_fields.keys()):
            raise SpecError(f"{self.table}.{old}: unknown key; it is called {self.renamed[old]!r} now")
        try:
            return entry, entry.config.model_validate(rest)
        except ValidationError as error:
            lines = [
                f"{self.table}.{explain(e, fields_at(entry.config, [str(part) for part in e['loc'][:-1]]))}"
                for e in narrowed(entry.config, error.errors())
            ]
            raise SpecError("\n".join(lines)) from None

    def _module(self, name: str) -> Any:
        return importlib.import_module(f"{self.package}.{name}")
