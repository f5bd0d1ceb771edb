"""Validation across the tables of a spec: references to unknown names, settings that exclude each other.

No single table can check these: a task's parent, a shared embedding table, a key without its feature, a cross.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rec.errors import nearest
from rec.spec import validate_bias, validate_keys, validate_numbers, validate_training
from rec.spec.features import CLOCKS, COMPARED, IN_REQUEST, PAST, WINDOWED, AnyFeature, Id, Ids, Number, is_key
from rec.spec.spec import NAME, Spec, Task
from rec.spec.tasks import behaviours

_BEHAVIOUR = ("history", "gaps")
# what is of use to some ways of making a feature only: key -> those ways
_ONLY: dict[type, dict[str, tuple[str, ...]]] = {
    Id: {"of": ("cross",)},
    Ids: {"task": _BEHAVIOUR, "buckets": ("history",)},
    Number: {
        "per": PAST,
        "matching": PAST,
        "task": PAST,
        "window": WINDOWED,
        "windows": WINDOWED,
        "half_life": ("count", "rate"),
        "given": ("rate",),
        "prior": ("rate", "coec"),
        "of": COMPARED,
    },
}


def contradictions(spec: Spec) -> Iterator[str]:
    """Each as `path: what is wrong`; an invalid task graph is reported alone, since the rest relies on it."""
    broken = list(_of_graph(spec.tasks))
    if broken:
        yield from broken
        return
    if "objective" in spec.model_fields_set and all(task.predict != "event" for task in spec.tasks.values()):
        yield "objective: learns events, and no task predicts one; leave it out"
    for side, features in spec.sides():
        for name, feature in features.items():
            yield from _of_feature(spec, side, name, feature)
    for name in set(spec.context) & set(spec.candidates):
        yield f"candidates.{name}: a context feature has this name too; rename one"
    for name, task in spec.tasks.items():
        yield from _of_task(spec, name, task)
    yield from _of_events(spec)
    yield from validate_keys.of_columns(spec)
    yield from validate_keys.of_features(spec)
    yield from _of_keys(spec)
    yield from _of_sharding(spec)
    yield from _of_progressive(spec)
    yield from validate_training.contradictions(spec)
    if spec.serve.max_feature_age is not None and spec.keys.time is None:
        yield "serve.max_feature_age: needs keys.time; without timestamps in the logs no stored feature has an age"
    yield from validate_bias.contradictions(spec)
    if spec.train.tables == "redraw" and spec.train.table_optimizer == "adam":
        yield (
            "train.tables: 'redraw' does not go with train.table_optimizer 'adam', which corrects the bias of its "
            "moments by a count of steps that all rows share; take 'rowwise_adagrad', 'adagrad' or 'sgd'"
        )


def _of_progressive(spec: Spec) -> Iterator[str]:
    if spec.train.mode != "progressive":
        return
    if spec.keys.time is None:
        yield "train.mode: 'progressive' needs keys.time, whose days it goes through"
    if spec.train.validate_every is not None:
        yield "train.validate_every: a progressive run is evaluated before each day; leave it out"
    if spec.train.tables == "redraw":
        yield "train.tables: 'redraw' is for several epochs, and a progressive run learns each day once; leave it out"


def _of_events(spec: Spec) -> Iterator[str]:
    for name in spec.events:
        if not NAME.match(name):
            yield f"events.{name}: the name of an event is letters, digits, _ and -"
        if name in spec.tasks:
            yield f"events.{name}: a task has this name too, and features count tasks as well; leave out the event"


def _of_sharding(spec: Spec) -> Iterator[str]:
    """Tables that exist, divided in a way that does not change what their optimizer does."""
    tables, by_row = spec.tables(), spec.train.table_optimizer == "rowwise_adagrad"
    wishes = {"train.sharding.default": spec.train.sharding.default}
    for name, kind in spec.train.sharding.tables.items():
        wishes[f"train.sharding.tables.{name}"] = kind
        if name not in tables:
            yield f"train.sharding.tables.{name}: there is no such embedding table{nearest(name, tables)}"
    for path, kind in wishes.items():
        if kind == "column_wise" and by_row:
            yield (
                f"{path}: 'column_wise' does not go with train.table_optimizer 'rowwise_adagrad', whose one number "
                "per row would be another for each part of it; take 'adagrad' or 'sgd', or shard it otherwise"
            )


def _of_feature(spec: Spec, side: str, name: str, feature: AnyFeature) -> Iterator[str]:
    path = f"{side}.{name}"
    if not NAME.match(name):
        yield f"{path}: a feature name is letters, digits, _ and -"
    yield from _of_behaviour(spec, path, feature)
    make = getattr(feature, "make", "column")
    for key, makes in _ONLY.get(type(feature), {}).items():
        if key in feature.model_fields_set and make not in makes:
            yield f"{path}.{key}: only for make = {' or '.join(map(repr, makes))}, got {make!r}"
    if isinstance(feature, Id | Ids):
        yield from _of_table(spec, path, feature)
    if isinstance(feature, Id) and feature.make == "cross":
        yield from _of_cross(spec, side, path, feature)
    if isinstance(feature, Ids):
        yield from _of_ids(side, path, feature)
    if isinstance(feature, Number):
        yield from validate_numbers.contradictions(spec, side, path, feature)


def _of_behaviour(spec: Spec, path: str, feature: AnyFeature) -> Iterator[str]:
    """A count, rate or history must be of an event."""
    for key in ("task", "given"):
        yield from _of_event(spec, f"{path}.{key}", getattr(feature, key, None))
    if isinstance(feature, Number) and feature.given is not None and feature.given == feature.task:
        yield f"{path}.given: {feature.given!r} is the task itself; a rate is of another event, such as its parent"


def _of_event(spec: Spec, path: str, name: str | None) -> Iterator[str]:
    if name is None or name in behaviours(spec):
        return
    if name in spec.tasks:
        yield f"{path}: {name!r} is a regression task; counts, rates and histories are of events"
    else:
        near = nearest(name, [*spec.tasks, *spec.events])
        yield f"{path}: no task {name!r}{', and no event of [events]' if spec.events else ''}{near}"


def _of_table(spec: Spec, path: str, feature: Id | Ids) -> Iterator[str]:
    if feature.pretrained is not None and (feature.encode == "hash" or feature.make in CLOCKS):
        yield f"{path}.pretrained: only for encode = 'vocabulary', where a row belongs to one id"
    if feature.table is None:
        return
    tables = {
        name: f for name, f in spec.tables().items() if isinstance(f, Id | Ids) and f.make not in (*CLOCKS, "cross")
    }
    if feature.table not in tables and feature.make not in CLOCKS:
        yield f"{path}.table: no id feature {feature.table!r} declares a table{nearest(feature.table, tables)}"
    own = feature.model_fields_set & {"encode", "min_count", "rows", "dim", "pretrained"}
    if own:
        yield f"{path}.{min(own)}: set by the feature {feature.table!r}, whose table is shared"


def _of_cross(spec: Spec, side: str, path: str, feature: Id) -> Iterator[str]:
    for key in ("values", "column", "table", "encode", "min_count", "pretrained"):
        if key in feature.model_fields_set:
            yield f"{path}.{key}: a cross is made of other features, and hashed; leave it out"
    if len(feature.of) < 2:
        yield f"{path}.of: expected at least two id features to cross, got {feature.of!r}"
    mine = spec.context if side == "context" else {**spec.context, **spec.candidates}
    ids = {name: f for name, f in mine.items() if isinstance(f, Id) and f.make != "cross"}
    for part in feature.of:
        if part in ids:
            continue
        if side == "context" and part in spec.candidates:
            yield f"{path}.of: {part!r} belongs to the candidates; a cross with it does too"
        elif part in mine:
            yield f"{path}.of: {part!r} is not one id; only features of kind 'id' are crossed, and no cross of crosses"
        else:
            yield f"{path}.of: no feature {part!r}{nearest(part, ids)}"


def _of_ids(side: str, path: str, feature: Ids) -> Iterator[str]:
    if feature.make in _BEHAVIOUR and side == "candidates":
        yield f"{path}: {'a history belongs' if feature.make == 'history' else 'gaps belong'} to the context"
    if feature.make == "tokens" and feature.values != "string":
        yield f'{path}.values: words are text; say values = "string"'
    if feature.values != "int" and (feature.make == "gaps" or feature.buckets):
        yield f"{path}.values: {'gaps' if feature.make == 'gaps' else 'buckets'} are ints; leave it out"


def _of_task(spec: Spec, name: str, task: Task) -> Iterator[str]:
    if not NAME.match(name):
        yield f"tasks.{name}: a task name is letters, digits, _ and -"
    if name in spec.candidates:
        yield f"tasks.{name}: a candidate feature has this name too; rename one"
    if task.given is None and task.space == "parent":
        yield f"tasks.{name}.space: 'parent' needs 'given'"
    yield from _of_quantity(spec, name, task)


def _of_graph(tasks: Mapping[str, Task]) -> Iterator[str]:
    """No tasks, unknown parents, and cycles."""
    if not tasks:
        yield "tasks: expected at least one task"
    for name, task in tasks.items():
        if task.given is not None and task.given not in tasks:
            yield f"tasks.{name}.given: no task {task.given!r}{nearest(task.given, tasks)}"
    known: set[str] = set()  # tasks whose line of parents ends
    for name in tasks:
        line = [name]
        while line[-1] not in known:
            parent = tasks[line[-1]].given
            if parent is None or parent not in tasks:
                break
            if parent in line:
                yield f"tasks.{name}.given: a cycle: {' -> '.join([*line, parent])}"
                break
            line.append(parent)
        known.update(line)


def _of_quantity(spec: Spec, name: str, task: Task) -> Iterator[str]:
    if task.predict != "event" and "space" in task.model_fields_set:
        yield f"tasks.{name}.space: a regression task is always learnt where its parent happened; leave it out"
    for key, kind in (("quantile", "quantile"), ("bins", "ordinal"), ("negatives", "event")):
        if task.predict != kind and key in task.model_fields_set:
            yield f"tasks.{name}.{key}: only for predict = {kind!r}, got {task.predict!r}"
    parent = spec.tasks.get(task.given or "")
    if parent is not None and parent.predict != "event":
        yield f"tasks.{name}.given: {task.given!r} is a regression task; only an event can be a parent"


def _of_keys(spec: Spec) -> Iterator[str]:
    group = spec.evaluate.group
    if group is not None and group not in spec.context:
        yield f"evaluate.group: no context feature {group!r}{nearest(group, spec.context)}"
    elif group is not None and not is_key(spec.context[group]):
        yield f"evaluate.group: expected an id or a kept int or string, got {group!r}, which is another kind of feature"
    makes = {f"{side}.{name}": getattr(f, "make", "column") for side, fs in spec.sides() for name, f in fs.items()}
    timed = [path for path, make in makes.items() if make not in ("column", "tokens", "cross", *IN_REQUEST)]
    if spec.keys.time is None and timed:
        yield f"{timed[0]}: needs keys.time, the column with the timestamp of an impression"
    if spec.keys.time is None and spec.split.column is None:
        yield "split: a split by time needs keys.time"
    if spec.keys.user is None:
        yield from _without_user(spec, makes)


def _without_user(spec: Spec, makes: Mapping[str, str]) -> Iterator[str]:
    sessions = [(make, "a session needs") for make in ("session_requests", "session_seconds")]
    for make, what in (("history", "a history needs"), ("gaps", "gaps need"), *sessions):
        if make in makes.values():
            yield f"context: {what} keys.user"
    if spec.keys.session is not None:
        yield "keys.session: needs keys.user, whose sessions they are"
    if "sessions" in spec.model_fields_set:
        yield "sessions: needs keys.user, whose sessions they are"
