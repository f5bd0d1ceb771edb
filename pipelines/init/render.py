"""A spec as text, with a comment beside what is a guess: the last step of `multigate init`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from pipelines.init import columns as guess
from pipelines.init.columns import FileGroup
from pipelines.init.features import Attribute, attributes, items, type_of
from pipelines.init.tables import LogLayout, LogTable
from pipelines.init.tasks import TaskDraft, listed, never, outcomes, patience, quoted
from rec.errors import DataError

_HEAD = """# Written by `multigate init` from the first rows of the logs. Every line is a guess: read it, correct it,
# and let `multigate check {file}` say whether it fits.
"""
Known = Callable[[str, str], bool]
_COMMENT = 68  # the column in which comments begin


@dataclass
class Notes:
    """What was taken for what, and what a person should look at."""

    taken: dict[str, str] = field(default_factory=dict[str, str])
    look: dict[str, str] = field(default_factory=dict[str, str])


def draft(shape: LogLayout, out: Path, *, known: Known | None = None) -> tuple[str, dict[str, dict[str, str]]]:
    """The text of a spec, and notes on it; DataError where no column is a label or a timestamp.

    `known` answers, for a column and the reason to leave it out, whether it was known before the impression.
    """
    notes = Notes()
    name = re.sub(r"[^a-z0-9._-]+", "-", out.stem.lower()).strip("-._") or "logs"
    drafted = [
        replace(attribute, why="")
        if attribute.asks and known is not None and known(attribute.name, attribute.why)
        else attribute
        for attribute in attributes(shape)
    ]
    tasks = outcomes(shape)
    if not tasks:
        columns = ", ".join(shape.shown.table.rows.columns)
        raise DataError(f"no column of 0 and 1 looks like an outcome; say which is one with --label, of: {columns}")
    parts = [
        _HEAD.format(file=out.name) + f'name = "{name}"',
        *_source(shape, out, notes),
        _section("keys", _keys(shape, notes)),
        _section("split", _split(shape, notes)),
        _section("context", [*_lines(drafted, "context"), *_past_of_user(shape, tasks)]),
        _section("candidates", [*_lines(drafted, "candidates"), *_past_of_item(shape, tasks)]),
        _section("tasks", list(_tasks(tasks, notes))),
    ]
    for attribute in drafted:
        if attribute.why:
            notes.look[attribute.name] = f"left out: {attribute.why}"
    for label in never(shape):
        notes.look[label] = "left out: never 1 in the rows looked at"
    for table in shape.unused:
        notes.look[table.files[0].name] = "not used; it has " + ", ".join(table.rows.columns)
    return "\n\n".join(parts) + "\n", {"taken for": notes.taken, "look at": notes.look}


def _section(name: str, lines: list[str]) -> str:
    return "\n".join([f"[{name}]", *lines])


def _with(line: str, comment: str) -> str:
    return f"{line:<{_COMMENT - 2}}  # {comment}"


def _text(value: object) -> str:
    """As TOML."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value) if isinstance(value, str) else str(value)


def _files(table: FileGroup, out: Path) -> str:
    paths = [Path(os.path.relpath(path.absolute(), out.absolute().parent)).as_posix() for path in table.files]
    return _text(paths[0] if len(paths) == 1 else paths)


def _source(shape: LogLayout, out: Path, notes: Notes) -> Iterator[str]:
    roles, table = shape.shown.roles, shape.shown.table
    lines = [f'kind = "{shape.source}"']
    key = "impressions" if shape.source == "events" else "files"
    lines.append(
        _with(
            f"{key} = {_files(table, out)}",
            "one row per request" if shape.source == "requests" else "one row per impression",
        )
    )
    notes.taken[key] = ", ".join(path.name for path in table.files)
    if shape.kinds:
        lines.append(_with(f"where = {_text(_is(roles.kind, shape.exposed))}", f"{roles.kind} of what was shown"))
    if shape.source == "requests":
        lines.append(_with(f"shown = {_text(guess.shown_list(roles))}", "the list of what was shown"))
    for side, beside, what in (("users", shape.users, roles.user), ("items", shape.items, shape.item)):
        if beside is not None:
            lines.append(_with(f"{side} = {_files(beside.table, out)}", f"one row per {what}"))
            notes.taken[side] = ", ".join(path.name for path in beside.table.files)
            lines += (
                [_with(f"{side}_since = {_text(beside.since)}", "a row holds from this timestamp")]
                if beside.since
                else []
            )
    yield _section("source", lines)
    for name, log in shape.events.items():
        yield _section(f"source.events.{name}", _event(shape, name, log, out, notes))
    for name, value in shape.kinds.items():
        where, within = _text(_is(roles.kind, value)), _within(name, notes)
        yield _section(f"source.events.{name}", [f"files = {_files(table, out)}", f"where = {where}", within])
    if shape.source == "requests":
        yield from _listed_events(shape, notes)


def _event(shape: LogLayout, name: str, log: LogTable, out: Path, notes: Notes) -> list[str]:
    """A table of events, with its columns where they are called otherwise."""
    roles, lines = shape.shown.roles, [f"files = {_files(log.table, out)}"]
    for key in ("user", "item", "time"):
        own = getattr(log.roles, key)
        lines += [f"{key} = {_text(own)}"] if own != getattr(roles, key) else []
    if roles.request is not None and log.roles.request is not None:
        lines.append(f"request = {_text(log.roles.request)}")
    lines.append(_within(name, notes))
    amounts = [c for c in log.table.rows.columns if c in log.roles.outcomes and type_of(log.table.rows[c]) == "float"]
    values = ", ".join(f"{column} = {_text(column)}" for column in amounts)
    return [*lines, f"values = {{ {values} }}"] if amounts else lines


def _within(name: str, notes: Notes) -> str:
    notes.look[f"source.events.{name}.within"] = "how long after its impression an event still belongs to it"
    return _with(f'within = "{patience(name)}"', "of its impression")


def _listed_events(shape: LogLayout, notes: Notes) -> Iterator[str]:
    """The lists beside what was shown whose items are among it are events."""
    for name, column in listed(shape):
        notes.taken[name] = f"what happened to the items in {column}"
        yield _section(f"source.events.{name}", [f"items = {_text(column)}"])


def _is(column: str | None, value: object) -> str:
    return f"{quoted(str(column))} = " + (f"'{value}'" if isinstance(value, str) else str(value))


def _keys(shape: LogLayout, notes: Notes) -> list[str]:
    roles, lines = shape.shown.roles, []
    for key, column in (("user", roles.user), ("item", shape.item), ("time", roles.time)):
        if column is not None:
            lines.append(f"{key} = {_text(column)}")
            notes.taken[f"keys.{key}"] = column
    if roles.time is not None:
        numeric = shape.shown.table.rows[roles.time].dtype.is_numeric() and roles.clock.form is None
        lines += [_with(f'time_unit = "{roles.clock.unit}"', "by its size")] if numeric else []
        form = f"time_format = {_text(roles.clock.form)}"
        lines += (
            [_with(form, "without a year it is 2000" if "y" not in form.lower() else "of the text")]
            if roles.clock.form
            else []
        )
    request = roles.request or ("request" if shape.source == "requests" else None)
    if request is not None:
        lines.append(
            _with(f"request = {_text(request)}", "of an impression" if roles.request else "made: a row is a request")
        )
        notes.taken["keys.request"] = request
    else:
        notes.look["requests.gap"] = "no request id: a user's impressions without a pause of 30 minutes are one request"
    return [*lines, f"session = {_text(roles.session)}"] if roles.session else lines


def _split(shape: LogLayout, notes: Notes) -> list[str]:
    roles = shape.shown.roles
    if roles.split is not None:
        return [f"column = {_text(roles.split)}"]
    ends = guess.span(shape.shown.table, roles)
    if ends is None:
        raise DataError(
            "expected a timestamp, or a column of train, validation and test; say which with --time, of: "
            + ", ".join(shape.shown.table.rows.columns)
        )
    first, last = ends
    validation, test = (_round(first + (last - first) * share, last - first) for share in (0.8, 0.9))
    notes.look["split"] = (
        f"the logs are from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}; "
        "the last fifth of that time is for validation and test"
    )
    line = f"validation = {validation:%Y-%m-%dT%H:%M:%SZ}"
    return [_with(line, f"of {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"), f"test = {test:%Y-%m-%dT%H:%M:%SZ}"]


def _round(timestamp: datetime, length: timedelta) -> datetime:
    """To whole days in a long log, else to seconds."""
    if length >= timedelta(days=10):
        return timestamp.replace(hour=0, minute=0, second=0, microsecond=0)
    return timestamp.replace(microsecond=0)


def _lines(drafted: list[Attribute], side: str) -> list[str]:
    """Features, and as comments the columns that are left out."""
    of_side = [attribute for attribute in drafted if attribute.side == side]
    lines = [f"{_bare(feature.name)} = {feature.text}" for feature in of_side if not feature.why]
    for attribute in of_side:
        if attribute.why:
            text = "" if attribute.text is None else f" = {attribute.text}"
            lines.append(_with(f"# {_bare(attribute.name)}{text}", f"left out: {attribute.why}"))
    return lines


def _bare(name: str) -> str:
    """A key of TOML."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _tasks(tasks: Sequence[TaskDraft], notes: Notes) -> Iterator[str]:
    for task in tasks:
        given = "" if task.given is None else f', given = "{task.given}"'
        line = f'{task.name} = {{ label = {_sql(task.label)}{given}, window = "{task.window}" }}'
        yield _with(line, "window: how late it may come")
        notes.taken[f"tasks.{task.name}"] = task.label + ("" if task.given is None else f", only where {task.given}")
        notes.look[f"tasks.{task.name}.window"] = f"{task.window}: how long after an impression it may still come"


def _sql(label: str) -> str:
    return f"'{label}'" if '"' in label else f'"{label}"'


def _past_of_user(shape: LogLayout, tasks: Sequence[TaskDraft]) -> Iterator[str]:
    roles = shape.shown.roles
    if roles.time is None:
        return
    if any(at.hour for at in guess.span(shape.shown.table, roles) or ()):
        yield 'hour = { kind = "id", make = "hour", dim = 4 }'
    if roles.user is None:
        return
    values = ', values = "string"' if type_of(items(shape)) == "string" else ""
    for task in tasks[:2]:
        said = f'kind = "ids", make = "history", task = "{task.name}"{values}, last = 20, table = "{shape.item}"'
        yield f"{task.name}_before = {{ {said} }}"
        yield f'user_{task.name} = {{ kind = "number", make = "rate", per = "{roles.user}", task = "{task.name}" }}'


def _past_of_item(shape: LogLayout, tasks: Sequence[TaskDraft]) -> Iterator[str]:
    if shape.shown.roles.time is not None:
        for task in tasks[:2]:
            yield f'item_{task.name} = {{ kind = "number", make = "rate", per = "{shape.item}", task = "{task.name}" }}'
