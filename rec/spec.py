"""The spec: one TOML file, strictly typed, the only truth about a run.

    name = "kuairand"
    [source]                     where the logs are              -> features/sources/<kind>.py
    [keys]                       which columns say who, what, when
    [requests]                   how impressions become requests
    [split]                      which requests train, validate, test
    [context] [candidates]       one feature per line            -> the struct fields of the session table
    [tasks.<name>]               one behaviour each              -> the label fields of the session table
    [model] [train] [evaluate] [serve]

`[source]` and `[model]` are checked by the file they name, because a new source or model is one file and this one
should not have to know it. Everything else is checked here, before any data is read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from rec.errors import SpecError, nearest

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+)([smhd])", value)
    if match is None:
        raise ValueError("expected a duration such as '30s', '45m', '12h' or '7d'")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _moment(value: object) -> object:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Positive = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """A frozen table of the spec that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Keys(Strict):
    """Columns of the logs that say who, what, when and in which request."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    request: str | None = None


class Requests(Strict):
    """How impressions without a request id are grouped: same user, no pause longer than `gap`."""

    gap: Duration = timedelta(minutes=30)


class Split(Strict):
    """Requests from `validation` on validate, from `test` on test; or a column of the logs says which."""

    validation: Moment | None = None
    test: Moment | None = None
    column: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Split:
        by_time = self.validation is not None and self.test is not None
        if by_time == (self.column is not None):
            raise ValueError("give either 'validation' and 'test' (moments), or 'column'")
        if self.validation and self.test and self.validation >= self.test:
            raise ValueError("'validation' must be before 'test'")
        return self


class _Embedded(Strict):
    """What every id feature says about the table its rows live in."""

    values: Literal["int", "string"] = "int"
    column: str | None = None
    table: str | None = Field(default=None, description="share the table of this feature")
    encode: Literal["vocabulary", "hash"] = "vocabulary"
    min_count: Positive = 1
    rows: Annotated[int, Field(ge=2)] = 100_000
    dim: Positive = 16


class Id(_Embedded):
    """One id: an attribute, or the hour or weekday (UTC) of the request."""

    kind: Literal["id"]
    make: Literal["column", "hour", "weekday"] = "column"


class Ids(_Embedded):
    """A list of ids, oldest first, of which the last `last` are kept: a list column, or what the user did before."""

    kind: Literal["ids"]
    make: Literal["column", "history"] = "column"
    task: str | None = Field(
        default=None, description="history: items on which this task's event happened; none: items shown"
    )
    last: Positive = 20


class Number(Strict):
    """One number: an attribute, or a count, a smoothed rate, or an age, as of just before the request."""

    kind: Literal["number"]
    make: Literal["column", "count", "rate", "age"] = "column"
    column: str | None = None
    per: str | None = Field(default=None, description="count, rate: the column whose past is counted")
    task: str | None = Field(default=None, description="count, rate: the task whose events are counted")
    prior: Annotated[float, Field(gt=0)] = Field(
        default=20.0, description="rate: impressions' worth of the overall rate"
    )
    scale: Literal["none", "standard", "log"] = Field(
        default="standard", description="log: signed log1p, then standard"
    )


class Kept(Strict):
    """A column carried in the session table that the model never sees."""

    kind: Literal["kept"]
    values: Literal["int", "string", "float"] = "int"
    column: str | None = None


Feature = Annotated[Id | Ids | Number | Kept, Field(discriminator="kind")]
KINDS: dict[str, type[Strict]] = {"id": Id, "ids": Ids, "number": Number, "kept": Kept}


class Task(Strict):
    """One behaviour: how its label is read, what it presupposes, when its outcome is known, what it is worth."""

    label: str = Field(description="SQL expression over the columns of an impression, e.g. 'clicked AND dwell >= 30'")
    given: str | None = Field(default=None, description="the task without which this one cannot happen")
    space: Literal["all", "parent"] = Field(
        default="all", description="loss over all candidates, or where the parent happened"
    )
    window: Duration = Field(default=timedelta(0), description="the outcome is known this long after the impression")
    weight: Annotated[float, Field(ge=0)] = 1.0
    value: float = Field(default=1.0, description="worth of one event in the fused score")


class Train(Strict):
    """How the model learns."""

    batch: Positive = Field(default=4096, description="candidates per step, about")
    epochs: Positive = 10
    lr: Annotated[float, Field(gt=0)] = 1e-3
    table_lr: Annotated[float, Field(gt=0)] = 0.02
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    patience: Positive = 2
    monitor: Literal["normalised_entropy", "auc"] = "normalised_entropy"
    shuffle: Positive = Field(default=200_000, description="requests held in memory to be mixed")
    device: Literal["auto", "cpu", "cuda"] = "auto"


class Evaluate(Strict):
    """How grouped AUC is formed: inside which key, and how groups are weighted."""

    group: str | None = Field(default=None, description="a context feature; none: the request")
    weight: Literal["candidates", "equal"] = "candidates"


class Serve(Strict):
    """Limits on what a stranger can send."""

    max_candidates: Positive = 2000
    max_body: Positive = 4 * 1024 * 1024
    body_seconds: Annotated[float, Field(gt=0)] = 5.0
    in_flight: Positive = 64


class Spec(Strict):
    """The whole description of a ranking problem. Made by `load` or `parse`, which turn mistakes into SpecError."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    seed: int = 1
    source: dict[str, Any] = {}
    keys: Keys = Keys()
    requests: Requests = Requests()
    split: Split = Split(column="split")
    context: dict[str, Feature] = {}
    candidates: dict[str, Feature] = {}
    tasks: dict[str, Task]
    model: dict[str, Any] = {"name": "mmoe"}
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()

    def sides(self) -> Iterator[tuple[str, dict[str, Id | Ids | Number | Kept]]]:
        """`("context", its features)`, then `("candidates", its features)`."""
        yield "context", self.context
        yield "candidates", self.candidates

    def table_of(self, side: str, name: str) -> str:
        """The embedding table a feature looks its rows up in."""
        feature = dict(self.sides())[side][name]
        assert isinstance(feature, Id | Ids)
        return feature.table or name

    def tables(self) -> dict[str, Id | Ids]:
        """Every embedding table, by name, with the feature that declares it."""
        return {
            name: feature
            for _, features in self.sides()
            for name, feature in features.items()
            if isinstance(feature, Id | Ids) and feature.table is None
        }


def load(path: Path, overrides: Sequence[str] = ()) -> Spec:
    """The spec in a TOML file, with `section.key=value` overrides applied before it is checked.

    Raises SpecError when the file is missing, is not TOML, or says something the schema does not know.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such spec") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as a spec: {error}") from None
    return parse(text, where=str(path), overrides=overrides)


def parse(text: str, *, where: str = "spec", overrides: Sequence[str] = ()) -> Spec:
    """The spec in a TOML text; `where` names it in errors."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{where}: not TOML: {error}") from None
    for override in overrides:
        _override(tree, override)
    try:
        spec = Spec.model_validate(tree)
    except ValidationError as error:
        raise SpecError("\n".join(f"{where}: {_explain(e)}" for e in error.errors())) from None
    _check_names(spec, where)
    return spec


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


def _override(tree: dict[str, Any], override: str) -> None:
    path, sign, text = override.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise SpecError(f"--set {override}: expected section.key=value, such as train.lr=1e-3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise SpecError(f"--set {override}: {key} is a value, not a table")
    tree[keys[-1]] = value


def _explain(error: Mapping[str, Any]) -> str:
    path = [str(part) for part in error["loc"]]
    if len(path) > 2 and path[0] in ("context", "candidates") and path[2] in KINDS:
        known = KINDS[path[2]].model_fields
        path.pop(2)
    else:
        known = _fields_at(path[:-1])
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
    expected = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    got = error["input"]
    hint = nearest(got, re.findall(r"'(\w+)'", expected)) if isinstance(got, str) else ""
    shown = "" if isinstance(got, Mapping | BaseModel) else f", got {got!r}"
    return f"{where}: expected {expected.removeprefix('expected ')}{shown}{hint}"


def _fields_at(path: Sequence[str]) -> Sequence[str]:
    if not path:
        return list(Spec.model_fields)
    table = (
        Task if path[0] == "tasks" else Spec.model_fields[path[0]].annotation if path[0] in Spec.model_fields else None
    )
    return list(table.model_fields) if isinstance(table, type) and issubclass(table, BaseModel) else []


def _check_names(spec: Spec, where: str) -> None:
    """What no single table can see: names that refer to other names."""
    for problem in _bad_names(spec):
        raise SpecError(f"{where}: {problem}")


def _bad_names(spec: Spec) -> Iterator[str]:
    if not spec.tasks:
        yield "tasks: expected at least one task"
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
