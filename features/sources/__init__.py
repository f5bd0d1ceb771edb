"""Where logs come from: one file per kind, and the folder is the registry.

A source is a module with `class Options(Strict)`, what `[source]` may say, and `read(options, spec, base) -> Logs`,
where `base` is the spec's folder, which relative paths start from.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from features.logs.logs import Logs
from rec.errors import SpecError, nearest
from rec.spec import Spec, Strict
from rec.spec.explain import explain


def names() -> list[str]:
    """Every kind of source: the files of this folder."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if not file.stem.startswith("_"))


def options_of(kind: str) -> type[Strict]:
    """What `[source]` may say for a kind; SpecError for an unknown one."""
    return _module(kind).Options


def read(spec: Spec, base: Path) -> Logs:
    """The logs `[source]` describes; paths in it start from `base`.

    Raises SpecError when `[source]` is wrong, DataError when the files are.
    """
    said = dict(spec.source)
    if "kind" not in said:
        raise SpecError(f"source.kind: required, but not given; one of {', '.join(names())}")
    module = _module(str(said.pop("kind")))
    try:
        options = module.Options.model_validate(said)
    except ValidationError as error:
        found = ({**one, "loc": ("source", *one["loc"])} for one in error.errors())
        raise SpecError("\n".join(explain(one, module.Options.model_fields) for one in found)) from None
    logs = module.read(options, spec, base)
    return logs if spec.logs.columns is None else replace(logs, columns=(base / spec.logs.columns).absolute())


def _module(kind: str) -> ModuleType:
    if kind not in names():
        raise SpecError(f"source.kind: expected one of {', '.join(names())}, got {kind!r}{nearest(kind, names())}")
    return importlib.import_module(f"{__name__}.{kind}")
