"""Folders that are registries: a file is an entry, the first line of its description says what it is."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from rec.errors import SpecError, nearest
from rec.spec.explain import explain, fields_at, narrowed
from rec.spec.types import Strict

DEFAULTS = {"model": "mmoe", "objective": "esmm"}


def files(path: Iterable[str]) -> list[str]:
    """The names of the entries."""
    return sorted(module.name for module in pkgutil.iter_modules(path))


def names(package: str, path: Iterable[str]) -> dict[str, str]:
    """Every entry and the first line of its description."""
    return {name: (_module(package, name).__doc__ or "").strip().splitlines()[0] for name in files(path)}


def config_of(package: str, path: Iterable[str], name: str, table: str) -> type[Strict]:
    """The settings an entry understands; SpecError, naming the spec's `table`, when there is no such entry."""
    known = files(path)
    if name not in known:
        raise SpecError(f"{table}.name: no {table} {name!r}: {', '.join(known)}{nearest(name, known)}")
    return _module(package, name).Config


def configured(package: str, path: Iterable[str], settings: Mapping[str, Any], table: str) -> tuple[Any, Any]:
    """The entry a table of the spec names, and its settings, checked."""
    rest = dict(settings)
    name = rest.pop("name", DEFAULTS[table])
    kind = config_of(package, path, name, table)
    try:
        config = kind.model_validate(rest)
    except ValidationError as error:
        lines = [
            f"{table}.{explain(e, fields_at(kind, [str(part) for part in e['loc'][:-1]]))}"
            for e in narrowed(kind, error.errors())
        ]
        raise SpecError("\n".join(lines)) from None
    return _module(package, name), config


def _module(package: str, name: str) -> Any:
    return importlib.import_module(f"{package}.{name}")
