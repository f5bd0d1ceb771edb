"""Plugins: classes of other packages, by entry point or by `package.module:Class`; a failed import is a SpecError.

    [project.entry-points."multigate.models"]        in the other package's pyproject.toml
    theirs = "their_package.module:Class"            name = "theirs" in a spec

A class is imported when a spec that names it is validated, trained or exported, and never when a bundle is opened.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rec.errors import SpecError, nearest
from rec.spec.types import Strict


@dataclass(frozen=True)
class Plugin:
    """An installed entry point: its name in a spec, `package.module:Class`, and the distribution it came with."""

    name: str
    target: str
    distribution: str


def installed(group: str) -> list[Plugin]:
    """The entry points of a group, such as "multigate.models", by name; nothing is imported."""
    points = entry_points(group=group)
    return sorted((Plugin(p.name, p.value, _distribution(p)) for p in points), key=lambda p: (p.name, p.distribution))


def described(group: str, ours: Collection[str]) -> dict[str, str]:
    """The entry points of a group and their classes; a built-in name (`ours`) or one of two packages needs it."""
    plugins = installed(group)
    targets = {name: {p.target for p in plugins if p.name == name} for name in {p.name for p in plugins}}
    return {
        p.target
        if p.name in ours or len(targets[p.name]) > 1
        else p.name: f"{p.target}, of the package {p.distribution}"
        for p in plugins
    }


def is_target(name: str) -> bool:
    """Whether a name is `package.module:Class` rather than a registered one."""
    return ":" in name


def registered(group: str, name: str, where: str) -> Plugin | None:
    """The entry point of that name, or None; SpecError where several packages register it."""
    same = [plugin for plugin in installed(group) if plugin.name == name]
    if len({plugin.target for plugin in same}) > 1:
        both = " and ".join(f"{plugin.distribution} ({plugin.target})" for plugin in same)
        raise SpecError(f"{where}: {name!r} is registered by {both}; name the class itself, such as {same[0].target!r}")
    return same[0] if same else None


def load(target: str, where: str) -> Any:
    """The class `package.module:Class`; `where` is the place in the spec that names it.

    Raises SpecError for a module or a class that is not there, and for an import that raises.
    """
    module_name, _, name = target.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), name)):
        raise SpecError(f"{where}: expected package.module:Class, got {target!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise SpecError(f"{where}: {target!r}: importing {module_name} raised {_message(error)}") from error
        raise SpecError(f"{where}: {target!r}: no module {error.name!r} is installed here") from None
    except (Exception, SystemExit) as error:
        raise SpecError(f"{where}: {target!r}: importing {module_name} raised {_message(error)}") from error
    loaded = getattr(module, name, None)
    if not isinstance(loaded, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        what = "no class" if loaded is None else f"a {type(loaded).__name__}, not a class:"
        raise SpecError(f"{where}: {target!r}: module {module_name} has {what} {name!r}{nearest(name, classes)}")
    return loaded


def settings_of(plugin_class: type, base: type[Strict], *, target: str, where: str) -> type[Strict]:
    """A plugin's `Config` class; SpecError if there is none, or it is not a subclass of `base`."""
    config, needed = getattr(plugin_class, "Config", None), f"{base.__module__}.{base.__name__}"
    if config is None:
        raise SpecError(f"{where}: {target!r}: expected a class with Config, its settings made from {needed}, got none")
    if not isinstance(config, type) or not issubclass(config, base):
        raise SpecError(f"{where}: {target!r}: expected Config to be made from {needed}, got {config!r}")
    return config


def construct(target: str, where: str, make: Any, *arguments: Any, **named: Any) -> Any:
    """An instance of a plugin's class; an exception of its constructor becomes a SpecError."""
    try:
        return make(*arguments, **named)
    except SpecError:
        raise
    except (Exception, SystemExit) as error:
        raise SpecError(f"{where}: {target!r} cannot be built: {_message(error)}") from error


def has_methods(plugin_class: type, methods: Iterable[str], *, target: str, where: str) -> None:
    """SpecError for a class that lacks a required method."""
    for method in methods:
        if not callable(getattr(plugin_class, method, None)):
            raise SpecError(f"{where}: {target!r}: expected a method {method!r}{nearest(method, dir(plugin_class))}")


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown package"
