"""docs/spec.md: every key of a spec, written from its JSON Schema so that it cannot say anything else.

python -m pipelines.reference docs/spec.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.schema import schema
from rec.files import write_bytes

HEAD = """# The spec, key by key

<!-- Written by `python -m pipelines.reference docs/spec.md` (part of `make fix`); change the docstrings instead. -->

One TOML file describes a run. An unknown key is an error that names the nearest known one. Durations are written
`"30s"`, `"45m"`, `"12h"`, `"7d"`; moments `2026-11-20T08:30:00Z`. `multigate schema` prints the
same as JSON Schema, which editors use to complete and check as you type.
"""
_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "object": "table",
}
FEATURES = ("Id", "Ids", "Number", "Kept")


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
        if name == "tasks":
            yield _of(known["Task"], "[tasks.NAME]", known)
        elif "$ref" in part:
            yield _of(_target(part, known), f"[{name}]", known)
        for option in part.get("oneOf", ()) if name in ("source", "model") else ():
            key = "kind" if name == "source" else "name"
            yield _of(option, f'[{name}] {key} = "{option["title"]}"', known)
            for inner, kind in option["properties"].items():
                if "$ref" in kind.get("additionalProperties", ()):
                    table = _target(kind["additionalProperties"], known)
                    yield _of(table, f'[{name}.{inner}.NAME] with {key} = "{option["title"]}"', known)
        if name == "requests":
            for kind in FEATURES:
                yield _of(known[kind], f'[context] and [candidates]: NAME = {{ kind = "{kind.lower()}" }}', known)


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
        f"| `{name}` | {_kind(part, known)} | {_default(part, name in required)} | {part.get('description', '')} |"
        for name, part in keys.items()
        if "const" not in part
    ]
    if rows:
        lines += ["| key | value | default | |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


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
        return "moment"
    if "[smhd]" in part.get("pattern", ""):
        return "duration"
    if part.get("type") == "array":
        return f"list of {_kind(part.get('items', {}), known)}"
    return _named(part) + _bounds(part)


def _named(part: Mapping[str, Any]) -> str:
    if isinstance(part.get("additionalProperties"), dict):
        return "tables by name" if "$ref" in part["additionalProperties"] else "texts by name"
    return _TYPES.get(part.get("type", ""), "value")


def _bounds(part: Mapping[str, Any]) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {part[key]:g}" for key, sign in signs.items() if key in part)


if __name__ == "__main__":
    write_bytes(Path(sys.argv[1]), markdown().encode())
