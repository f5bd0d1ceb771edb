"""What is wrong with a spec, in our words: what pydantic found, and names that refer to nothing.

No single table of the spec can see the second kind: a task's parent, a shared table, a key without its feature.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from rec.errors import nearest
from rec.spec import KINDS, NAME, Id, Ids, Kept, Number, Spec, Task

_SHOULD = "Input should be "


def explained(error: Mapping[str, Any]) -> str:
    """One pydantic error of a whole spec, with the path and the keys that are known there."""
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
    got = error["input"]
    hint = nearest(got, re.findall(r"'(\w+)'", expected)) if isinstance(got, str) else ""
    shown = "" if isinstance(got, Mapping | BaseModel) else f", got {got!r}"
    return f"{where}: expected {expected.removeprefix('expected ')}{shown}{hint}"


def narrowed(table: type[BaseModel], errors: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Pydantic's errors of a table; of a key that may be a number or a table, only what the value was meant to be.

    Pydantic tells of every kind it tried, and names the kind in the path. Meant is the kind of which more than "not of
    this kind" can be said; where there is none, one error says what may stand there.
    """
    for key, found in groupby(errors, key=lambda error: error["loc"][:1]):
        field = table.model_fields.get(str(*key))
        if field is None or not _is_either(field.annotation):
            yield from found
            continue
        tried = [{**error, "loc": (*key, *error["loc"][2:])} for error in found]
        meant = [error for error in tried if error["loc"] != key or not error["type"].endswith("_type")]
        either = " or ".join(error["msg"].removeprefix(_SHOULD) for error in tried)
        yield from meant or [{**tried[0], "msg": either}]


def fields_at(table: type[BaseModel], path: Sequence[str]) -> Sequence[str]:
    """The keys a table of the spec knows at a path below it; none where there is no table."""
    for step in path:
        field = table.model_fields.get(step)
        below = _kinds(field.annotation) if field is not None else []
        if not below:
            return []
        table = below[0]
    return list(table.model_fields)


def _is_either(annotation: Any) -> bool:
    """Whether a value may be of several kinds; one that may only be left out besides has one kind."""
    return get_origin(annotation) in (Union, UnionType) and type(None) not in get_args(annotation)


def _kinds(annotation: Any) -> list[type[BaseModel]]:
    """The tables an annotation allows, such as the one in `Attention | None`."""
    found = [annotation, *get_args(annotation)]
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseModel)]


def bad_names(spec: Spec) -> Iterator[str]:
    """What is wrong with the names in a spec whose tables are each right."""
    if not spec.tasks:
        yield "tasks: expected at least one task"
    elif all(task.predict != "event" for task in spec.tasks.values()) and "objective" in spec.model_fields_set:
        yield "objective: learns events, and no task predicts one; leave it out"
    for side, features in spec.sides():
        for name, feature in features.items():
            yield from _bad_feature(spec, f"{side}.{name}", name, feature)
    for name in set(spec.context) & set(spec.candidates):
        yield f"candidates.{name}: a context feature has this name too; rename one"
    for name, task in spec.tasks.items():
        yield from _bad_task(spec, name, task)
    yield from _bad_keys(spec)


def _bad_feature(spec: Spec, path: str, name: str, feature: Id | Ids | Number | Kept) -> Iterator[str]:
    if not NAME.match(name):
        yield f"{path}: a feature name is letters, digits, _ and -"
    task = getattr(feature, "task", None)
    if task is not None and task not in spec.tasks:
        yield f"{path}.task: no task {task!r}{nearest(task, spec.tasks)}"
    elif task is not None and spec.tasks[task].predict != "event":
        yield f"{path}.task: {task!r} is a quantity; counts, rates and histories are of events"
    if isinstance(feature, Id | Ids) and feature.table is not None:
        tables = spec.tables()
        if feature.table not in tables:
            yield f"{path}.table: no id feature {feature.table!r} declares a table{nearest(feature.table, tables)}"
        own = feature.model_fields_set & {"encode", "min_count", "rows", "dim"}
        if own:
            yield f"{path}.{min(own)}: set by the feature {feature.table!r}, whose table is shared"
    if isinstance(feature, Number) and feature.make in ("count", "rate") and feature.per is None:
        yield f"{path}.per: {feature.make} needs the column whose past is counted"
    if isinstance(feature, Number) and feature.make == "rate" and feature.task is None:
        yield f"{path}.task: rate needs the task whose events are counted"
    if isinstance(feature, Ids) and feature.make == "history" and path.startswith("candidates."):
        yield f"{path}: a history belongs to the context"


def _bad_task(spec: Spec, name: str, task: Task) -> Iterator[str]:
    if not NAME.match(name):
        yield f"tasks.{name}: a task name is letters, digits, _ and -"
    if name in spec.candidates:
        yield f"tasks.{name}: a candidate feature has this name too; rename one"
    if task.given is None and task.space == "parent":
        yield f"tasks.{name}.space: 'parent' needs 'given'"
    yield from _bad_quantity(spec, name, task)
    if task.given is not None and task.given not in spec.tasks:
        yield f"tasks.{name}.given: no task {task.given!r}{nearest(task.given, spec.tasks)}"
        return
    seen, parent = [name], task.given
    while parent is not None:
        if parent in seen:
            yield f"tasks.{name}.given: a circle: {' -> '.join([*seen, parent])}"
            return
        seen.append(parent)
        parent = spec.tasks[parent].given if parent in spec.tasks else None


def _bad_quantity(spec: Spec, name: str, task: Task) -> Iterator[str]:
    if task.predict != "event" and "space" in task.model_fields_set:
        yield f"tasks.{name}.space: a quantity is always learnt where its parent happened; leave it out"
    for key, kind in (("quantile", "quantile"), ("bins", "ordinal")):
        if task.predict != kind and key in task.model_fields_set:
            yield f"tasks.{name}.{key}: only for predict = {kind!r}, got {task.predict!r}"
    parent = spec.tasks.get(task.given or "")
    if parent is not None and parent.predict != "event":
        yield f"tasks.{name}.given: {task.given!r} is a quantity; only an event can be a parent"


def _bad_keys(spec: Spec) -> Iterator[str]:
    for key, side in (("user", "context"), ("item", "candidates")):
        name = getattr(spec.keys, key)
        if name is not None and name not in dict(spec.sides())[side]:
            yield (
                f"keys.{key}: {name!r} is not in [{side}]; add "
                f'{name} = {{ kind = "kept" }} to carry it without learning from it'
            )
    group = spec.evaluate.group
    if group is not None and group not in spec.context:
        yield f"evaluate.group: no context feature {group!r}{nearest(group, spec.context)}"
    uses_time = [
        f"{side}.{name}"
        for side, features in spec.sides()
        for name, f in features.items()
        if getattr(f, "make", "column") != "column"
    ]
    if spec.keys.time is None and uses_time:
        yield f"{uses_time[0]}: needs keys.time, the column with the moment of an impression"
    if spec.keys.time is None and spec.split.column is None:
        yield "split: a split by time needs keys.time"
    if spec.keys.user is None and any(getattr(f, "make", "") == "history" for f in spec.context.values()):
        yield "context: a history needs keys.user"
