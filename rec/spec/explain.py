"""Validation errors of pydantic as messages in the spec's terms. See validate.py for checks between tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from rec.errors import nearest
from rec.spec.features import KINDS
from rec.spec.spec import Spec, Task

_SHOULD = "Input should be "
_EITHER = ("str", "list[str]")


def explanations(errors: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Messages for pydantic's errors of a spec; for a key of type text or list, only those of the likely type."""
    for place, group in groupby(errors, key=lambda error: _place(error["loc"])):
        tried = [{**error, "loc": (*place, *error["loc"][len(place) + 1 :])} for error in group]
        meant = [error for error in tried if len(error["loc"]) > len(place)]
        either = " or ".join(dict.fromkeys(error["msg"].removeprefix(_SHOULD) for error in tried))
        yield from map(_explained, meant or [tried[0] if len(tried) == 1 else {**tried[0], "msg": either}])


def _place(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """The path of an error, without the union branch that pydantic appends."""
    # a feature may be called so too: [side].name.kind.key comes before
    kind = next((index for index, part in enumerate(loc) if index > 3 and part in _EITHER), len(loc))
    return loc[:kind]


def _explained(error: Mapping[str, Any]) -> str:
    path = [str(part) for part in error["loc"]]
    if len(path) > 2 and path[0] in ("context", "candidates") and path[2] in KINDS:
        known = KINDS[path[2]].model_fields
        path.pop(2)
    else:
        known = list(Task.model_fields) if path[0] == "tasks" and len(path) == 3 else fields_at(Spec, path[:-1])
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        got = error["input"].get("kind") if isinstance(error["input"], Mapping) else error["input"]
        return f"{'.'.join(path)}.kind: expected one of {', '.join(KINDS)}, got {got!r}{nearest(str(got), KINDS)}"
    return explain({**error, "loc": path}, known)


def explain(error: Mapping[str, Any], known: Iterable[str]) -> str:
    """One pydantic error as `path: expected ..., got ...; did you mean ...?`; `known` are the keys allowed there."""
    path = [str(part) for part in error["loc"]]
    where = ".".join(path) or "spec"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{nearest(path[-1], known)}"
    if error["type"] == "missing":
        return f"{where}: required, but not given"
    expected = error["msg"].removeprefix("Value error, ").removeprefix(_SHOULD)
    expected = re.sub(r"^\w+ should have (.+) after validation, not \d+$", r"\1", expected)
    expected = re.sub(r"valid dictionary( or instance of \w+)?", "table", expected)  # as TOML calls it
    if error["type"] == "string_pattern_mismatch":  # only names have a pattern
        expected = "a name: up to 64 small letters, digits, '.', '_' and '-', of which the first is a letter or a digit"
    got = error["input"]
    hint = nearest(got, re.findall(r"'(\w+)'", expected)) if isinstance(got, str) else ""
    shown = "" if isinstance(got, Mapping | BaseModel) else f", got {got!r}"
    return f"{where}: expected {expected.removeprefix('expected ')}{shown}{hint}"


def narrowed(table: type[BaseModel], errors: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Pydantic's errors of a table; for a key of union type (a number or a table), only those of the likely type.

    Pydantic reports every branch of a union, and names the branch in the path. The likely one is that with an error
    other than a wrong type; if there is none, a single error lists all types.
    """
    for key, group in groupby(errors, key=lambda error: error["loc"][:1]):
        field = table.model_fields.get(str(*key))
        if field is None or not _is_either(field.annotation):
            yield from group
            continue
        tried = [{**error, "loc": (*key, *error["loc"][2:])} for error in group]
        meant = [error for error in tried if error["loc"] != key or not error["type"].endswith("_type")]
        either = " or ".join(error["msg"].removeprefix(_SHOULD) for error in tried)
        yield from meant or [{**tried[0], "msg": either}]


def fields_at(table: type[BaseModel], path: Sequence[str]) -> Sequence[str]:
    """The keys of the table at a path below `table`; empty if there is none."""
    for step in path:
        field = table.model_fields.get(step)
        below = _kinds(field.annotation) if field is not None else []
        if not below:
            return []
        table = below[0]
    return list(table.model_fields)


def _is_either(annotation: Any) -> bool:
    """Whether an annotation is a union, other than an optional."""
    return get_origin(annotation) in (Union, UnionType) and type(None) not in get_args(annotation)


def _kinds(annotation: Any) -> list[type[BaseModel]]:
    """The tables an annotation allows, such as the one in `Attention | None`."""
    annotations = [annotation, *get_args(annotation)]
    return [kind for kind in annotations if isinstance(kind, type) and issubclass(kind, BaseModel)]
