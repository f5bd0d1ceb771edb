"""What a name in `[model]`, `[objective]` or `[source]` stands for: one of our files, or a class of another package.

A folder is a registry: a file is an entry, and the first line of its description says what it is. Beside it stand the
entry points of other packages, and any class by `package.module:Class` (rec/spec/plugins.py). A name of ours is always
ours: an entry point that repeats it is only reached by its class.
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


@dataclass(frozen=True)
class Entry:
    """What a name stands for: its settings, how it is made, and its class in another package (None: a file of ours)."""

    config: type[Strict]
    make: Any
    target: str | None = None

    def create(self, where: str, *arguments: Any, **named: Any) -> Any:
        """The thing itself; SpecError where another package's class cannot be built."""
        if self.target is None:
            return self.make(*arguments, **named)
        return plugins.made(self.target, where, self.make, *arguments, **named)


@dataclass(frozen=True)
class Registry:
    """The entries one table of a spec may name.

    A file of `package` offers `config`, its settings, and `make`; a class of another package carries `Config`, made
    from `base`, and has `methods`. `renamed` has keys of earlier versions and what they are called now.
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

    @property
    def group(self) -> str:
        """The entry points of other packages."""
        return f"{OURS}.{self.table}s"

    @property
    def where(self) -> str:
        """The place in a spec with the name."""
        return f"{self.table}.{self.key}"

    def files(self) -> list[str]:
        """The names of our own entries."""
        return sorted(module.name for module in pkgutil.iter_modules(self.path))

    def names(self) -> dict[str, str]:
        """Every entry of ours and the first line of its description."""
        return {name: (self._module(name).__doc__ or "").strip().splitlines()[0] for name in self.files()}

    def described(self) -> dict[str, str]:
        """Every entry there is and what it is: the first line of ours, the class and the package of others."""
        return {**self.names(), **plugins.described(self.group, self.files())}

    def entry(self, name: object) -> Entry:
        """What a name stands for; SpecError when there is no such entry, or it cannot be used."""
        if not isinstance(name, str):
            raise SpecError(f"{self.where}: expected a valid string, got {name!r}")
        files = self.files()
        if name in files:
            module = self._module(name)
            return Entry(getattr(module, self.config), getattr(module, self.make))
        plugin = None if plugins.is_target(name) else plugins.registered(self.group, name, self.where)
        if plugin is None and not plugins.is_target(name):
            known = [*files, *(plugin.name for plugin in plugins.installed(self.group))]
            raise SpecError(f"{self.where}: no {self.table} {name!r}: {', '.join(known)}{nearest(name, known)}")
        target = name if plugin is None else plugin.target
        plugin_class = plugins.load(target, self.where)
        config = plugins.settings_of(plugin_class, self.base, target=target, where=self.where)
        plugins.has_methods(plugin_class, self.methods, target=target, where=self.where)
        return Entry(config, plugin_class, target)

    def configured(self, settings: Mapping[str, Any]) -> tuple[Entry, Any]:
        """The entry a table of the spec names, and its settings, checked."""
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
