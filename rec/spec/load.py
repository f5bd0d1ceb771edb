"""A spec from TOML and back: overrides applied, invalid or contradictory settings raised as SpecError."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rec.errors import SpecError
from rec.spec.explain import explanations
from rec.spec.features import expanded
from rec.spec.spec import Spec
from rec.spec.validate import contradictions


def load(path: Path, overrides: Sequence[str] = ()) -> Spec:
    """The spec in a TOML file, with `section.key=value` overrides applied before it is checked.

    Raises SpecError when the file is missing, is not TOML, or does not fit the schema.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
    except FileNotFoundError:
        raise SpecError(f"{path}: no such spec") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = f"line {line}: expected UTF-8, got the byte 0x{error.object[error.start]:02x}"
        raise SpecError(f"{path}: cannot be read as a spec: {byte}") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read as a spec: {error.strerror}") from None
    return parse(text, where=str(path), overrides=overrides)


def parse(text: str, *, where: str = "spec", overrides: Sequence[str] = ()) -> Spec:
    """The spec in a TOML text; `where` names it in errors."""
    try:
        tree = toml(text)
    except ValueError as error:
        raise SpecError(f"{where}: not TOML: {error}") from None
    _expand(tree)
    for override in overrides:
        _override(tree, override)
    _expand(tree)

    try:
        spec = Spec.model_validate(tree)
    except ValidationError as error:
        raise SpecError("\n".join(f"{where}: {text}" for text in explanations(error.errors()))) from None
    for problem in contradictions(spec):
        raise SpecError(f"{where}: {problem}")
    return spec


def toml(text: str) -> dict[str, Any]:
    """The tree in a TOML text; ValueError where it is none, or holds what no program reads."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("lists or tables in one another, too deep to be read") from None


def dump(spec: Spec) -> str:
    """The spec as TOML again, with only what was set."""
    import tomli_w

    return tomli_w.dumps(_plain(spec.model_dump(exclude_unset=True, by_alias=True)))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, timedelta):
        return f"{int(value.total_seconds())}s"
    return value


def _expand(tree: dict[str, Any]) -> None:
    for side in ("context", "candidates"):
        if isinstance(tree.get(side), dict):
            tree[side] = expanded(tree[side])


def _override(tree: dict[str, Any], override: str) -> None:
    path, sign, text = override.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise SpecError(f"--set {override}: expected section.key=value, such as train.lr=1e-3")
    try:
        value = toml(f"value = {text}")["value"]
    except ValueError:
        value = text
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise SpecError(f"--set {override}: {key} is a value, not a table")
    tree[keys[-1]] = value
