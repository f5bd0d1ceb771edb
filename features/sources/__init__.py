"""Where logs come from: one file per kind, and the folder is the registry; other packages add theirs (docs/plugins.md).

A source is a module with `class Options(Strict)`, what `[source]` may say, and `read(options, spec, base) -> Logs`,
where `base` is the spec's folder, which relative paths start from; a `refuse(options, spec)` beside them raises
SpecError for what does not go with the rest of the spec. A source elsewhere is a class with `Config`, made as
`Class(config, spec)` before any data is read, whose `read(base)` gives the Logs.
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
    """Every kind of source of ours: the files of this folder."""
    return REGISTRY.files()


def options_of(kind: str) -> type[Strict]:
    """What `[source]` may say for a kind; SpecError for an unknown one."""
    return REGISTRY.entry(kind).config


def create(spec: Spec) -> Callable[[Path], object]:
    """The source `[source]` describes, as what reads its logs, given the spec's folder; nothing is read yet.

    Raises SpecError when `[source]` is wrong, or does not go with the rest of the spec.
    """
    entry, options = REGISTRY.configured(spec.source)
    if entry.target is None:
        refuse = getattr(importlib.import_module(entry.make.__module__), "refuse", None)
        if refuse is not None:
            refuse(options, spec)
        return partial(entry.make, options, spec)
    return entry.create("source.kind", options, spec).read


def read(spec: Spec, base: Path) -> Logs:
    """The logs `[source]` describes; paths in it start from `base`.

    Raises SpecError when `[source]` is wrong, DataError when the files are.
    """
    logs = create(spec)(base)
    if not isinstance(logs, Logs):
        raise SpecError(f"source.kind: {spec.source['kind']!r}: expected read to give Logs, got {type(logs).__name__}")
    return logs if spec.logs.columns is None else replace(logs, columns=(base / spec.logs.columns).absolute())
