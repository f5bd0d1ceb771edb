"""The JSON Schema of a spec, with the settings of every source, model and objective."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, TypeAdapter

from rec.spec import Spec

# rec/spec/spec.py reads durations as '30m', not as the ISO 8601 that pydantic would tell an editor
_DURATION = {"type": "string", "pattern": r"^\d+[smhd]$"}
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}  # seconds, longest first


def schema() -> dict[str, Any]:
    """The whole schema; `$schema` names the draft that pydantic writes."""
    from features import sources
    from rec import baselines, models, objectives
    from rec.modules.config import ModelConfig

    tree = Spec.model_json_schema()
    tree["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    tree["properties"]["source"] = _choice(tree, "kind", {name: sources.options_of(name) for name in sources.names()})
    bodies = {name: kind.config_of(name) for kind in (models, baselines) for name in kind.names()}
    tree["properties"]["model"] = _choice(tree, "name", bodies, shared=ModelConfig)
    above = {name: objectives.config_of(name) for name in objectives.names()}
    tree["properties"]["objective"] = _choice(tree, "name", above)
    return _durations(tree)


def _choice(
    tree: dict[str, Any], key: str, options: Mapping[str, type[BaseModel]], *, shared: type[BaseModel] | None = None
) -> dict[str, Any]:
    """A tagged union: `key` selects the schema of the rest of the table; all begin with `shared`."""
    common = {} if shared is None else shared.model_json_schema().get("$defs", {})
    tree["$defs"].update(common)
    tables = []
    for name, kind in options.items():
        # two files may both say Event and mean their own
        text = json.dumps(kind.model_json_schema()).replace("#/$defs/", f"#/$defs/{name}.")
        for inner in common:
            text = text.replace(f'"#/$defs/{name}.{inner}"', f'"#/$defs/{inner}"')
        table = json.loads(text)
        own = {f"{name}.{inner}": part for inner, part in table.pop("$defs", {}).items() if inner not in common}
        tree["$defs"].update(own)
        table["properties"] = {key: {"const": name}, **table.get("properties", {})}
        table["required"] = [key, *table.get("required", [])]
        tables.append({**table, "title": name})
    return {"oneOf": tables}


def _durations(node: Any) -> Any:
    if isinstance(node, dict):
        if node.get("format") != "duration":
            return {key: _durations(value) for key, value in node.items()}
        schema = {key: value for key, value in node.items() if key != "format"} | _DURATION
        return schema | ({"default": _short(node["default"])} if "default" in node else {})
    return [_durations(value) for value in node] if isinstance(node, list) else node


def _short(text: str) -> str:
    """An ISO 8601 duration in the notation of a spec.

    >>> _short("PT30M")
    '30m'
    """
    seconds = int(TypeAdapter(timedelta).validate_python(text).total_seconds())
    unit, size = next(
        (unit, size) for unit, size in _UNITS.items() if (seconds % size == 0 and seconds >= size) or unit == "s"
    )
    return f"{seconds // size}{unit}"
