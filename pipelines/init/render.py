"""A spec as text, with a comment beside each guess: the last step of `multigate init`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from pipelines.init.columns import FileGroup, inner, separator, shown_list, span
from pipelines.init.features import Attribute, attributes, items, type_of
from pipelines.init.log_names import in_spec, title
from pipelines.init.tables import LogLayout, LogTable, spec_name
from pipelines.init.tasks import TaskDraft, default_window, listed, never, outcomes, quoted
from rec.errors import DataError

_HEAD = """# Written by `multigate init` from the first rows of the logs. Every line is a guess: read it, correct it,
# and let `multigate check {file}` say whether it fits.
name = "{name}"
"""
Known = Callable[[str, str], bool]
_COMMENT = 68  # the column in which comments begin


class Notes(dict[str, dict[str, str]]):
    """What was taken for what, and what a person should look at."""

    def __init__(self) -> None:
        """None yet."""
        super().__init__({"taken for": {}, "look at": {}})
        self.taken, self.look = self["taken for"], self["look at"]


def draft(layout: LogLayout, out: Path, *, known: Known | None = None) -> tuple[str, Notes]:
    """The text of a spec, and notes on it; DataError where no column is a label or a timestamp.

    `known` answers, for a column and the reason to leave it out, whether it was known before the impression.
    """
    notes, tasks = Notes(), outcomes(layout)
    drafted = [
        replace(attribute, why="")
        if attribute.asks and known is not None and known(attribute.name, attribute.why)
        else attribute
        for attribute in attributes(layout)
    ]
    if not tasks:
        columns = ", ".join(layout.shown.table.rows.columns)
        raise DataError(f"no column of 0 and 1 looks like an outcome; say which is one with --label, of: {columns}")
    sections = {
        **_source(layout, out, notes),
        "keys": _keys(layout, notes),
        "split": _split(layout, notes),
        "context": [*_features(drafted, "context"), *_user_history(layout, tasks)],
        "candidates": [*_features(drafted, "candidates"), *_item_history(layout, tasks)],
        "tasks": list(_tasks(layout, tasks, notes)),
    }
    notes.look |= {attribute.name: f"left out: {attribute.why}" for attribute in drafted if attribute.why}
    notes.look |= dict.fromkeys(never(layout), "left out: never 1 in the rows looked at")
    notes.look |= {title(table.logs[0]): "not used; it has " + ", ".join(table.rows.columns) for table in layout.unused}
    name = re.sub(r"[^a-z0-9._-]+", "-", out.stem.lower()).strip("-._") or "logs"
    text = "\n".join("\n".join([f"[{section}]", *lines, ""]) for section, lines in sections.items())
    return f"{_HEAD.format(file=out.name, name=name)}\n{text}", notes


def _with(line: str, comment: str) -> str:
    return f"{line:<{_COMMENT - 2}}  # {comment}"


def _toml(value: str | list[str]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _files(table: FileGroup, out: Path) -> str:
    names = [in_spec(log, out.absolute().parent) for log in table.logs]
    return _toml(names[0] if len(names) == 1 else names)


def _source(layout: LogLayout, out: Path, notes: Notes) -> dict[str, list[str]]:
    """[source], and a section for each kind of event."""
    roles, table, requests = layout.shown.roles, layout.shown.table, layout.source == "requests"
    key = "impressions" if layout.source == "events" else "files"
    rows = f"one row per {'request' if requests else 'impression'}"
    lines = [f'kind = "{layout.source}"', _with(f"{key} = {_files(table, out)}", rows)]
    notes.taken[key] = ", ".join(map(title, table.logs))
    if layout.kinds:
        lines.append(_with(f"where = {_is(roles.kind, layout.exposed)}", f"{roles.kind} of what was shown"))
    if requests:
        shown = table.rows[str(shown_list(roles))]
        lines.append(_with(f"shown = {_toml(shown.name)}", "the list of what was shown"))
        if inner(shown) == "string" and separator(shown):
            lines.append(_with(f"split = {_toml(str(separator(shown)))}", "between the elements of a list"))
    for side, beside, what in (("users", layout.users, roles.user), ("items", layout.items, layout.item)):
        if beside is not None:
            lines.append(_with(f"{side} = {_files(beside.table, out)}", f"one row per {what}"))
            notes.taken[side] = ", ".join(map(title, beside.table.logs))
            if beside.since:
                lines.append(_with(f"{side}_since = {_toml(beside.since)}", "a row holds from this timestamp"))
    events = {name: _event(layout, log, out) for name, log in layout.events.items()}
    for name, value in layout.kinds.items():
        events[name] = [f"files = {_files(table, out)}", f"where = {_is(roles.kind, value)}"]
    for name, own in events.items():
        notes.look[f"source.events.{name}.within"] = "how long after its impression an event still belongs to it"
        own.append(_with(f'within = "{default_window(name)}"', "of its impression"))
    for name, column in listed(layout) if requests else ():  # lists of items that are among what was shown
        notes.taken[name] = f"what happened to the items in {column}"
        events[name] = [f"items = {_toml(column)}"]
    return {"source": lines, **{f"source.events.{name}": own for name, own in events.items()}}


def _event(layout: LogLayout, log: LogTable, out: Path) -> list[str]:
    """A table of events, with its columns where they are called otherwise."""
    ours, theirs, rows = layout.shown.roles, log.roles, log.table.rows
    keys = {key: getattr(theirs, key) for key in ("user", "item", "time") if getattr(theirs, key) != getattr(ours, key)}
    if ours.request is not None and theirs.request is not None:
        keys["request"] = theirs.request
    lines = [f"files = {_files(log.table, out)}", *(f"{key} = {_toml(column)}" for key, column in keys.items())]
    amounts = [c for c in rows.columns if c in theirs.outcomes and type_of(rows[c]) == "float"]
    values = ", ".join(f"{_key(column)} = {_toml(column)}" for column in amounts)
    return [*lines, f"values = {{ {values} }}"] if amounts else lines


def _is(column: str | None, value: object) -> str:
    """A condition in SQL."""
    return _toml(f"{quoted(str(column))} = " + (f"'{value}'" if isinstance(value, str) else str(value)))


def _keys(layout: LogLayout, notes: Notes) -> list[str]:
    roles, clock = layout.shown.roles, layout.shown.roles.clock
    keys = {"user": roles.user, "item": layout.item, "time": roles.time, "request": roles.request}
    keys = {key: column for key, column in keys.items() if column is not None}
    comments = {"request": "of an impression"}
    if layout.source == "requests" and roles.request is None:
        keys["request"], comments["request"] = "request", "made: a row is a request"
    notes.taken |= {f"keys.{key}": column for key, column in keys.items()}
    if roles.time is not None and clock.form:
        keys["time_format"] = clock.form
        comments["time_format"] = "of the text" if "y" in clock.form.lower() else "without a year it is 2000"
    elif roles.time is not None and layout.shown.table.rows[roles.time].dtype.is_numeric():
        keys["time_unit"], comments["time_unit"] = clock.unit, "by its size"
    if "user" not in keys:
        notes.look["keys.user"] = "no column looks like a user, so no history of users: name theirs by --user"
    if "request" not in keys:
        notes.look["requests.gap"] = "no request id: a user's impressions without a pause of 30 minutes are one request"
    if roles.session:
        keys["session"] = roles.session
    lines = {key: f"{key} = {_toml(value)}" for key, value in keys.items()}
    return [_with(line, comments[key]) if key in comments else line for key, line in lines.items()]


def _split(layout: LogLayout, notes: Notes) -> list[str]:
    roles, table = layout.shown.roles, layout.shown.table
    if roles.split is not None:
        return [f"column = {_toml(roles.split)}"]
    ends = span(table, roles)
    if ends is None:
        raise DataError(
            "expected a timestamp, or a column of train, validation and test; say which with --time, of: "
            + ", ".join(table.rows.columns)
        )
    first, last = ends
    validation, test = (_round(first + (last - first) * share, last - first) for share in (0.8, 0.9))
    covered = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"
    notes.look["split"] = f"the logs are from {covered}; the last fifth of that time is for validation and test"
    begins = {"validation": f"{validation:%Y-%m-%dT%H:%M:%SZ}", "test": f"{test:%Y-%m-%dT%H:%M:%SZ}"}
    return [_with(f"validation = {begins['validation']}", f"of {covered}"), f"test = {begins['test']}"]


def _round(timestamp: datetime, length: timedelta) -> datetime:
    """To whole days in a long log, else to seconds."""
    whole = timestamp.replace(microsecond=0)
    return whole.replace(hour=0, minute=0, second=0) if length >= timedelta(days=10) else whole


def _features(drafted: Sequence[Attribute], side: str) -> Iterator[str]:
    """Features, and below them the columns that are left out as comments."""
    for draft in sorted((draft for draft in drafted if draft.side == side), key=lambda draft: draft.why != ""):
        line = _key(draft.name) + ("" if draft.text is None else f" = {draft.text}")
        yield _with(f"# {line}", f"left out: {draft.why}") if draft.why else line


def _tasks(layout: LogLayout, tasks: Sequence[TaskDraft], notes: Notes) -> Iterator[str]:
    ends = span(layout.shown.table, layout.shown.roles)
    for task in tasks:
        window = task.window if ends is None else _within(task.window, ends[1] - ends[0])
        given = "" if task.given is None else f', given = "{task.given}"'
        line = f'{task.name} = {{ label = {_toml(task.label)}{given}, window = "{window}" }}'
        yield _with(line, "window: how late it may come")
        notes.taken[f"tasks.{task.name}"] = task.label + ("" if task.given is None else f", only where {task.given}")
        notes.look[f"tasks.{task.name}.window"] = f"{window}: how long after an impression it may still come"


def _within(window: str, covered: timedelta) -> str:
    """A window, or the longest one that leaves half of the test split observed, which is a tenth of the logs' time."""
    lengths = {"7d": 168, "3d": 72, "1d": 24, "6h": 6, "1h": 1}  # hours
    fitting = [name for name, hours in lengths.items() if hours <= lengths[window]]
    return next((name for name in fitting if timedelta(hours=lengths[name]) <= covered / 20), fitting[-1])


def _user_history(layout: LogLayout, tasks: Sequence[TaskDraft]) -> Iterator[str]:
    roles = layout.shown.roles
    if roles.time is None:
        return
    if any(at.hour for at in span(layout.shown.table, roles) or ()):
        yield 'hour = { kind = "id", make = "hour", dim = 4 }'
    values = ', values = "string"' if type_of(items(layout)) == "string" else ""
    for name in [task.name for task in tasks[:2]] if roles.user is not None else ():
        history = (
            f'kind = "ids", make = "history", task = "{name}"{values}, last = 20, table = "{spec_name(layout.item)}"'
        )
        yield f"{name}_before = {{ {history} }}"
        yield f'user_{name} = {{ kind = "number", make = "rate", per = {_toml(roles.user or "")}, task = "{name}" }}'


def _item_history(layout: LogLayout, tasks: Sequence[TaskDraft]) -> Iterator[str]:
    for name in [task.name for task in tasks[:2]] if layout.shown.roles.time is not None else ():
        yield f'item_{name} = {{ kind = "number", make = "rate", per = {_toml(layout.item)}, task = "{name}" }}'
