"""Validation of `[keys]`: every key is a column of its own, and a feature holds those of users and items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from rec.spec.spec import NAME, Spec

_KEYS = ("user", "item", "time", "request", "session")
_SIDES: dict[Literal["user", "item"], Literal["context", "candidates"]] = {"user": "context", "item": "candidates"}
_RESPONSE = ("rank", "score", "tasks", "status")  # what an answer says of a candidate, beside the id of its item


def of_columns(spec: Spec) -> Iterator[str]:
    """A column that two keys name; a session may be the user's, or the request's."""
    keys: dict[str, str] = {}
    for key in _KEYS:
        column = getattr(spec.keys, key)
        if column in keys and not (key == "session" and keys[column] in ("user", "request")):
            yield f"keys.{key}: {column!r} is keys.{keys[column]} already; a column is one key"
        if column is not None:
            keys.setdefault(column, key)
    if spec.logs.order == "time" and spec.keys.time is None:
        yield 'logs.order: "time" needs keys.time, the column that says when'


def of_features(spec: Spec) -> Iterator[str]:
    """A key of users or items that no feature holds, and one that is called as a field of the response."""
    for key in _SIDES:
        if getattr(spec.keys, key) is not None and spec.key_feature(key) is None:
            yield _without_feature(spec, key)
    name = spec.key_feature("item")
    if name in _RESPONSE:
        better = f'item = {{ kind = "id", column = "{spec.keys.item}" }}'
        yield f"candidates.{name}: a response has a field of this name; call the feature otherwise: {better}"


def _without_feature(spec: Spec, key: Literal["user", "item"]) -> str:
    side, name = _SIDES[key], str(getattr(spec.keys, key))
    feature = dict(spec.sides())[side].get(name)
    if feature is not None and (feature.column or name) == name:
        kind = feature.kind
        return f"{side}.{name}: expected an id or a kept int or string, since it is keys.{key}, got {kind}"
    called = name if NAME.match(name) and feature is None else f"{key}_id"
    column = "" if called == name else f", column = {name!r}".replace("'", '"')
    return (
        f"keys.{key}: {name!r} is not in [{side}]; add "
        f'{called} = {{ kind = "kept"{column} }} to carry it without learning from it'
    )
