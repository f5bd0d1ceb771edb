"""Sources of logs: one file per kind, and the folder is the registry; other packages add theirs (docs/plugins.md).

A source is a module with `class Options(Strict)`, the settings of `[source]`, and `read(options, spec, base) -> Logs`,
where paths are relative to `base`, the spec's folder; an optional `refuse(options, spec)` raises SpecError for settings
that conflict with the rest of the spec. A plugin source is a class with `Config`, constructed as `Class(config, spec)`
before any data is read, with a method `read(base) -> Logs`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from features.logs.logs import Logs
from rec.errors import SpecError
from rec.spec import Spec, Strict
from rec.spec.registry import Registry

REGISTRY = Registry(
    __name__,
    list(__path__),
    "source",
    base=Strict,
    make="read",
    config="Options",
    key="kind",
    methods=("read",),
)


def names() -> list[str]:
    """The built-in kinds of source: the files of this folder."""
    return REGISTRY.files()


def options_of(kind: str) -> type[Strict]:
    """The settings class of a kind of source; SpecError for an unknown one."""
    return REGISTRY.entry(kind).config


def create(spec: Spec) -> Callable[[Path], object]:
    """A reader of the logs of `[source]`, called with the spec's folder; nothing is read yet.

    Raises SpecError when `[source]` is invalid, or conflicts with the rest of the spec.
    """
    entry, options = REGISTRY.configured(spec.source)
    if entry.target is None:
        refuse = getattr(importlib.import_module(entry.make.__module__), "refuse", None)
        if refuse is not None:
            refuse(options, spec)
        return partial(entry.make, options, spec)
    return entry.create("source.kind", options, spec).read


def read(spec: Spec, base: Path) -> Logs:
    """The logs of `[source]`, with paths relative to `base`.

    Raises SpecError when `[source]` is invalid, DataError when files are missing or broken.
    """
    logs = create(spec)(base)
    if not isinstance(logs, Logs):
        raise SpecError(f"source.kind: {spec.source['kind']!r}: expected read to give Logs, got {type(logs).__name__}")
    return logs if spec.logs.columns is None else replace(logs, columns=(base / spec.logs.columns).absolute())
