"""The role of each file of a log: impressions, requests, events, users, items. A guess, for `multigate init`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from pipelines.init import columns
from pipelines.init.columns import FileGroup, Roles
from pipelines.init.log_names import word
from rec.errors import DataError
from rec.spec import NAME

_EXPOSED = re.compile(r"impress|expos|shown|show|view|pv|display|serve|rank", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class LogTable:
    """A table, and what its columns may be."""

    table: FileGroup
    roles: Roles


@dataclass(frozen=True)
class KeyTable:
    """A table of users or items; `since` is the timestamp a row holds from, where a key has several."""

    table: FileGroup
    since: str | None = None


@dataclass(frozen=True)
class LogLayout:
    """Which table is what; `events` are tables by name, `kinds` values of the column `roles.kind` by name.

    `item` is how the spec calls what is shown, `exposed` the value of the kind that is an impression.
    """

    source: Literal["impressions", "requests", "events"]
    shown: LogTable
    item: str
    users: KeyTable | None = None
    items: KeyTable | None = None
    events: Mapping[str, LogTable] = field(default_factory=dict[str, LogTable])
    kinds: Mapping[str, object] = field(default_factory=dict[str, object])
    exposed: object = None
    unused: tuple[FileGroup, ...] = ()


def arranged(logs: Sequence[LogTable]) -> LogLayout:
    """What the tables are; DataError where none can be one of impressions."""
    requests = [log for log in logs if columns.shown_list(log.roles) is not None]
    shown = [log for log in logs if log.roles.item is not None and (log.roles.labels or log.roles.time)]
    if not (requests or shown):
        has = "; ".join(", ".join(log.table.rows.columns) for log in logs)
        raise DataError(
            "expected a table with an item, and a timestamp or an outcome of 0 and 1; "
            f"say which they are with --item, --time and --label; the columns are: {has}"
        )
    main = max(requests or shown, key=lambda log: (len(log.roles.labels), _is_exposure(log), len(log.table.rows)))
    rest = [log for log in logs if log is not main]
    item = main.roles.item or _item_of(rest)
    users, items = _beside(rest, main.roles.user, item), _beside(rest, item, main.roles.user)
    rest = [log for log in rest if log.table not in [side.table for side in (users, items) if side is not None]]
    if requests:
        return LogLayout("requests", main, item, users, items, unused=tuple(log.table for log in rest))
    events, kinds, exposed = {}, {}, None
    if not main.roles.labels and main.roles.user and main.roles.time:
        events = {_called(word(log.table.logs[0]), main.table): log for log in rest if _is_event(log)}
        kinds, exposed = _kinds(main)
    rest = [log for log in rest if log not in events.values()]
    source = "events" if events or kinds else "impressions"
    return LogLayout(source, main, item, users, items, events, kinds, exposed, tuple(log.table for log in rest))


def _is_exposure(log: LogTable) -> bool:
    return any(_EXPOSED.search(word(name)) is not None for name in log.table.logs)


def _is_event(log: LogTable) -> bool:
    return None not in (log.roles.user, log.roles.item, log.roles.time)


def _beside(logs: Sequence[LogTable], key: str | None, other: str | None) -> KeyTable | None:
    """The table with one row per key, or with several that timestamps tell apart, and without the other key."""
    for log in logs:
        rows, time = log.table.rows, log.roles.time
        if key is None or key not in rows.columns or other in rows.columns:
            continue
        if not rows[key].drop_nulls().is_duplicated().any():
            return KeyTable(log.table)
        if (
            time is not None
            and not log.roles.labels
            and not rows.select(pl.struct(key, time).is_duplicated().any()).item()
        ):
            return KeyTable(log.table, time)
    return None


def _item_of(others: Sequence[LogTable]) -> str:
    """How the table of items calls its key; the lists of requests do not say it."""
    return next((log.roles.item for log in others if log.roles.item and log.roles.user is None), "item_id")


def _kinds(main: LogTable) -> tuple[dict[str, object], object]:
    """The events that a column tells apart, by name, and its value that stands for an impression."""
    if main.roles.kind is None:
        return {}, None
    values = main.table.rows[main.roles.kind].drop_nulls().value_counts(sort=True)[main.roles.kind].to_list()
    exposed = next((value for value in values if isinstance(value, str) and _EXPOSED.search(value)), values[0])
    return {_called(str(value), main.table): value for value in values if value != exposed}, exposed


def spec_name(column: str) -> str:
    """The name of a column as one of a feature or a task: letters, digits, _ and -.

    >>> spec_name("unit price (EUR)"), spec_name("2nd"), spec_name("user_id")
    ('unit_price_EUR', 'column_2nd', 'user_id')
    """
    if NAME.match(column):
        return column
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", column).strip("_-")
    return name if NAME.match(name) else f"column_{name}".rstrip("_")


def _called(word: str, table: FileGroup) -> str:
    """The name of a kind of event: its file's, or its value's."""
    name = re.sub(r"\W+", "_", word.lower()).strip("_")
    return name if NAME.match(name) and name not in table.rows.columns else f"event_{name}"
