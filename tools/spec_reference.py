"""docs/spec.md: every key of a spec, written from its JSON Schema so that it cannot say anything else.

python -m tools.spec_reference docs/spec.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.cli.json_schema import schema
from rec.atomic import write_bytes
from rec.modules.config import ModelConfig

HEAD = """# The spec, key by key

<!-- Written by `python -m tools.spec_reference docs/spec.md` (part of `make fix`); change the docstrings instead. -->

One TOML file describes a run. An unknown key is an error that names the nearest known one. Durations are written
`"30s"`, `"45m"`, `"12h"`, `"7d"`; timestamps `2026-11-20T08:30:00Z`. `multigate schema` prints the
same as JSON Schema, which editors use to complete and check as you type.
"""
_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "object": "table",
}
_NAMED = {"tasks": "Task", "events": "Event"}  # tables of tables
FEATURES = ("Id", "Ids", "Number", "Vector", "Kept")
_MACHINE = (2**31 - 1, 2**63 - 1)  # what 32 and 64 bits hold: no bound to read about


def markdown() -> str:
    """The whole page."""
    tree = schema()
    return HEAD + "\n" + "\n".join(_sections(tree)).rstrip() + "\n"


def _sections(tree: Mapping[str, Any]) -> Iterator[str]:
    known, top = tree["$defs"], tree["properties"]
    plain = {name: part for name, part in top.items() if "$ref" not in part and not _is_table(part)}
    yield _section("Top level", "", plain, tree.get("required", ()), known)
    for name, part in top.items():
        if name in ("context", "candidates"):
            continue
        if name in _NAMED:
            yield _of(known[_NAMED[name]], f"[{name}.NAME]", known)
        elif "$ref" in part:
            yield _of(_target(part, known), f"[{name}]", known)
            yield from _inner(_target(part, known).get("properties", {}), name, "", known)
        elif "oneOf" in part:
            yield from _choice(name, part["oneOf"], known)
        if name == "sessions":
            for kind in FEATURES:
                yield _of(known[kind], f'[context] and [candidates]: NAME = {{ kind = "{kind.lower()}" }}', known)


def _choice(name: str, options: Sequence[Mapping[str, Any]], known: Mapping[str, Any]) -> Iterator[str]:
    """A table that names what describes the rest of it: what all options have in common, then each one's own keys."""
    key = "kind" if name == "source" else "name"
    shared = {}
    if name == "model":
        shared = ModelConfig.model_json_schema()["properties"]
        about = " ".join((ModelConfig.__doc__ or "").split())
        yield _section("[model] of any network", about, shared, (), known)
        yield from _inner(shared, "model", "", known)
    for option in options:
        own = _own(option["properties"], shared)
        title = f'{key} = "{option["title"]}"'
        yield _of({**option, "properties": own}, f"[{name}] {title}", known)
        yield from _inner(own, name, f" with {title}", known)


def _own(keys: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that are not shared, or are not what they are elsewhere."""
    return {name: part for name, part in keys.items() if part != shared.get(name)}


def _inner(keys: Mapping[str, Any], name: str, when: str, known: Mapping[str, Any]) -> Iterator[str]:
    """The tables that stand in a table, one of its keys or by names of the author's choice."""
    for inner, part in keys.items():
        if "$ref" in part.get("additionalProperties", ()):
            yield _of(_target(part["additionalProperties"], known), f"[{name}.{inner}.NAME]{when}", known)
        for option in (part, *part.get("anyOf", ())):
            if "$ref" in option and "properties" in _target(option, known):
                yield _of(_target(option, known), f"[{name}.{inner}]{when}", known)


def _is_table(part: Mapping[str, Any]) -> bool:
    return part.get("type") == "object" or "oneOf" in part


def _target(part: Mapping[str, Any], known: Mapping[str, Any]) -> Mapping[str, Any]:
    return known[part["$ref"].rsplit("/", 1)[-1]]


def _of(table: Mapping[str, Any], title: str, known: Mapping[str, Any]) -> str:
    about = " ".join(table.get("description", "").split())
    return _section(title, about, table.get("properties", {}), table.get("required", ()), known)


def _section(title: str, about: str, keys: Mapping[str, Any], required: Any, known: Mapping[str, Any]) -> str:
    lines = [f"## `{title}`" if "[" in title else f"## {title}", ""]
    lines += [about, ""] if about else []
    rows = [
        f"| `{name}` | {_kind(part, known)} | {_default(part, name in required)} | {_about(part)} |"
        for name, part in keys.items()
        if "const" not in part and not ("$ref" in part and "properties" in _target(part, known))
    ]
    if rows:
        lines += ["| key | value | default | |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _about(part: Mapping[str, Any]) -> str:
    return part.get("description", "").replace("|", "\\|")


def _default(part: Mapping[str, Any], required: bool) -> str:  # noqa: FBT001  a fact, not a switch
    if required:
        return "required"
    default = part.get("default")
    return "" if default in (None, {}, []) else f"`{_toml(default)}`"


def _toml(value: Any) -> str:
    """A default as one would write it in TOML."""
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else str(value).replace("'", '"')


def _kind(part: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """What may stand there: `whole number >= 1`, `"int" or "string"`, `list of text`."""
    if "$ref" in part:
        return _kind(_target(part, known), known)
    if "enum" in part:
        return " or ".join(f'`"{choice}"`' for choice in part["enum"])
    if "anyOf" in part or "oneOf" in part:
        options = part.get("anyOf") or part["oneOf"]
        return " or ".join(dict.fromkeys(_kind(option, known) for option in options if option.get("type") != "null"))
    if part.get("format") == "date-time":
        return "timestamp"
    if "[smhd]" in part.get("pattern", ""):
        return "duration"
    if part.get("type") == "array":
        item = _kind(part.get("items", {}), known)
        return f"list of {_several(item) if item.startswith('list') else item}"
    return _named(part) + _bounds(part)


def _named(part: Mapping[str, Any]) -> str:
    values = part.get("additionalProperties")
    if isinstance(values, dict):
        return f"{_several('table' if '$ref' in values else _kind(values, {}))} by name"
    return _TYPES.get(part.get("type", ""), "value")


def _several(kind: str) -> str:
    """The plural of a kind of value."""
    return re.sub(r"^(whole number|number|text|table|list)", r"\1s", kind)


def _bounds(part: Mapping[str, Any]) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = ((sign, part[key]) for key, sign in signs.items() if key in part and part[key] not in _MACHINE)
    return "".join(f" {sign} {bound:g}" for sign, bound in bounds)


if __name__ == "__main__":
    write_bytes(Path(sys.argv[1]), markdown().encode())
