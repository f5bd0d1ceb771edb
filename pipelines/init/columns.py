"""The likely roles of a log's columns, from their names and first rows.

    user_id   item_id  ts             device  is_click  dwell
    user      item     time, in ms    an id   a label   an outcome: never a feature

Every answer is a guess, to be read by a person: `multigate init` writes it down with the reason beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import polars as pl

from features.checks.outcome_names import AMOUNT, EVENT
from features.logs.dtypes import cleaned
from features.logs.files import scan, typed
from features.logs.list_text import pieces
from features.logs.logs import Piece
from features.logs.timestamps import Unit, parse
from pipelines.init.log_names import files_of
from rec.errors import SpecError

LOOK = 10_000  # rows of a file
FEW = 12  # values of a column that says which kind of event a row is
_ID = r"(_?id|_?key|_?no|_?code|_?uid)?"
_NAMES = {
    "user": rf"(user|visitor|reader|subscriber|customer|client|member|account|person|buyer|viewer){_ID}|uid",
    "item": (
        rf"(item|product|article|story|video|movie|song|track|news|content|post|doc|document|ad|brand|offer|listing|photo){_ID}"
        r"|sku|iid|asin|shown"
    ),
    "time": r"time|ts|timestamp|datetime|date|moment|when|at|day|(event|visit|log|request|view|shown|show|created)_?"
    r"(time|timestamp|ts|at|date|datetime|day)|(time|timestamp|ts)_?(s|ms|us|ns|sec|millis|utc)",
    "request": r"(request|req|impression|query|search|slate|pageview|page_view|rank|ranking)_?(id|key|uuid)|rid",
    "session": r"(session|visit)(_?(id|key|uuid))?|sid",
    "kind": r"type|event|event_type|action|action_type|behaviou?r|behaviou?r_type|kind|event_name",
}
_KEPT = re.compile(r"position|pos|rank|slot|propensity\w*|pscore|action_prob\w*", re.IGNORECASE)
_SHOWN = re.compile(r"shown|items|candidates|impressions|slate|ranked|item_ids|products|articles", re.IGNORECASE)
_FORMS = (
    "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y",
    "%m/%d/%Y %H:%M:%S", "%m/%d/%Y", "%Y%m%d%H%M%S", "%Y%m%d", "%m-%d", "%d %b %Y", "%b %d, %Y",
)  # fmt: skip
_YEARS = (631_152_000, 4_102_444_800)  # counts of seconds that look like a timestamp: from 1990 to 2100
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_LISTED = re.compile(r"^\s*(\[.*\]|[^|;]+([|;][^|;]*)+)\s*$")


@dataclass(frozen=True, eq=False)
class FileGroup:
    """Logs of the same columns, by path, glob or address, and the first rows of them."""

    logs: tuple[str, ...]
    pieces: tuple[Piece, ...]
    rows: pl.DataFrame


@dataclass(frozen=True)
class Clock:
    """How a column says when: the unit of a number, or the form of a text that is not ISO."""

    unit: Unit = "s"
    form: str | None = None


@dataclass(frozen=True)
class Roles:
    """What columns of a table may be; None where nothing looks like it."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    request: str | None = None
    session: str | None = None
    kind: str | None = None
    split: str | None = None
    clock: Clock = Clock()
    labels: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def taken(self) -> set[str | None]:
        """Columns that are no attribute of anything."""
        keys = {self.user, self.item, self.time, self.request, self.session, self.split, self.kind}
        return {*keys, *self.labels, *self.outcomes, *self.kept}


def tables(logs: Sequence[str]) -> list[FileGroup]:
    """The tables that logs make, those of the same columns together, in the order given.

    A glob whose files have the same columns is one log, any other one is its files.
    """
    groups: dict[tuple[str, ...], list[tuple[str, Piece]]] = {}
    for log in logs:
        pieces, _ = scan(log, Path(), "init")
        own = [tuple(sorted(piece.kinds)) for piece in pieces]
        names = files_of(log) if len(set(own)) > 1 else None
        for columns, piece in zip(own, pieces, strict=True):
            groups.setdefault(columns, []).append((log if names is None else names[piece.file], piece))
    return [
        FileGroup(tuple(dict.fromkeys(log for log, _ in several)), tuple(piece for _, piece in several), _head(several))
        for several in groups.values()
    ]


def _head(several: Sequence[tuple[str, Piece]]) -> pl.DataFrame:
    """Rows of the first and the last file, so that a log sorted by day is seen at both ends."""
    ends = dict.fromkeys([several[0][1].name, several[-1][1].name])
    heads = []
    for _, piece in several:
        if piece.name in ends:
            rows = typed(replace(piece, frame=piece.frame.head(LOOK))).collect()
            heads.append(pl.DataFrame({name: cleaned(rows[name]) for name in piece.kinds}))
    return pl.concat(heads, how="diagonal_relaxed")


def roles(table: FileGroup, given: Mapping[str, str] | None = None, labels: Sequence[str] = ()) -> Roles:
    """The roles of a table's columns; `given` and `labels` are named by a person; other labels are outcomes."""
    rows, given = table.rows, given or {}
    named = {role: given[role] if given.get(role) in rows.columns else _named(rows, role) for role in _NAMES}
    if given.get("time") not in rows.columns:
        named["time"] = _when(rows)
    for role in ("kind", "session", "request", "item"):  # one column has one role, the first that fits
        others = {other: column for other, column in named.items() if other != role}
        if named[role] is not None and named[role] in others.values():
            named[role] = None
    if named["kind"] is not None and not _is_kind(rows[named["kind"]]):
        named["kind"] = None
    free = [column for column in rows.columns if column and column not in named.values()]
    split = next((c for c in free if _is_split(rows[c])), None)
    events = [c for c in free if c != split and _is_label(rows[c])]
    chosen = tuple(c for c in free if c in labels) if labels else tuple(events)
    beside = {f"{label}_time" for label in chosen}
    outcomes = tuple(c for c in free if c not in chosen and (c in events or c in beside or AMOUNT.fullmatch(c)))
    lists = tuple(c for c in free if is_list(rows[c]) and c not in outcomes)
    kept = tuple(c for c in free if _KEPT.fullmatch(c))
    when = clock(rows[named["time"]]) if named["time"] else None
    return Roles(**named, split=split, clock=when or Clock(), labels=chosen, outcomes=outcomes, lists=lists, kept=kept)


def shown_list(roles: Roles) -> str | None:
    """The list of what a request showed, where a row is a request."""
    return next((column for column in roles.lists if _SHOWN.fullmatch(column)), None) if roles.item is None else None


def clock(values: pl.Series) -> Clock | None:
    """How a column says when; None where it does not."""
    known = values.drop_nulls()
    if known.dtype.is_temporal() and not isinstance(known.dtype, pl.Duration | pl.Time):
        return Clock()
    if known.is_empty() or known.dtype == pl.Boolean:
        return None
    if known.dtype.is_numeric():
        return _number_clock(known)
    if known.dtype != pl.String:
        return None
    for form in (None, *_FORMS):
        try:
            parsed = parse(known, unit="s", where="", form=form)
        except SpecError:
            continue
        if parsed.null_count() <= len(known) // 100 and (form is not None or "-" in known[0]):
            return Clock(form=form)
    return None


def _number_clock(known: pl.Series) -> Clock | None:
    low, high = float(known.min()), float(known.max())  # type: ignore[arg-type]  # a number's
    for unit, per in _PER_SECOND.items():
        if _YEARS[0] * per <= low and high <= _YEARS[1] * per:
            return Clock(unit=unit)  # type: ignore[arg-type]  # of the four
    if _YEARS[0] <= low and high <= _YEARS[1] * 10**9:
        return Clock(unit="auto")
    day = known.dtype.is_integer() and 20_000_101 <= low <= high <= 21_001_231
    return Clock(form="%Y%m%d") if day else None


def _named(rows: pl.DataFrame, role: str) -> str | None:
    """The column whose name says a role: the plain word before one with another before it, an id before others."""
    flat = [column for column in rows.columns if not rows[column].dtype.is_nested()]
    for prefix in ("", *([r"(click|view|shown|target|candidate|event|log)\w*_"] if role == "item" else [])):
        fits = [column for column in flat if re.fullmatch(f"{prefix}({_NAMES[role]})", column, re.IGNORECASE)]
        if fits:
            return min(fits, key=lambda column: not column.lower().endswith("id"))
    return None


def _when(rows: pl.DataFrame) -> str | None:
    """The column that says when, the finest of those that are called so, else any that holds timestamps."""
    flat = [c for c in rows.columns if not rows[c].dtype.is_nested() and not _beside(c, rows)]
    called = [c for c in flat if re.fullmatch(rf"(\w+_)?({_NAMES['time']})", c, re.IGNORECASE)]
    fits = [c for c in called if clock(rows[c]) is not None]
    if fits:
        return max(fits, key=lambda column: rows[column].n_unique())
    return next((c for c in flat if not rows[c].dtype.is_numeric() and clock(rows[c]) is not None), None)


def is_time(column: str) -> bool:
    """Whether a name says that a column holds timestamps."""
    return re.fullmatch(rf"(\w+_)?({_NAMES['time']})", column, re.IGNORECASE) is not None


def _beside(column: str, rows: pl.DataFrame) -> bool:
    """The timestamp of an outcome is not the timestamp of the impression."""
    return column.endswith("_time") and column.removesuffix("_time") in rows.columns


def _is_kind(values: pl.Series) -> bool:
    return 2 <= values.drop_nulls().n_unique() <= FEW and not values.dtype.is_float()


def _is_split(values: pl.Series) -> bool:
    return (
        values.dtype == pl.String
        and bool(len(values))
        and set(values.drop_nulls()) <= {"train", "validation", "test"}
        and values.null_count() < len(values)
    )


def _is_label(values: pl.Series) -> bool:
    return is_zero_one(values) and EVENT.fullmatch(values.name) is not None


def is_zero_one(values: pl.Series) -> bool:
    """Whether a column holds 0 and 1, or true and false, and nothing else."""
    binary = values.dtype == pl.Boolean or (values.dtype.is_numeric() and set(values.drop_nulls().unique()) <= {0, 1})
    return bool(binary) and values.null_count() < len(values)


def is_list(values: pl.Series) -> bool:
    """Lists, or text that writes them: `[3, 7]`, `3|7`."""
    if isinstance(values.dtype, pl.List | pl.Array):
        return values.dtype.inner != pl.Struct  # its fields are lists
    known = values.drop_nulls() if values.dtype == pl.String else values.clear()
    words = [bool(_LISTED.match(text)) for text in known.head(200)]
    return len(words) > 0 and sum(words) >= len(words) / 2


def flat(values: pl.Series) -> pl.Series:
    """What the lists of a column hold, one below the other."""
    lists = pieces(values, split=separator(values), numbers=False) if values.dtype == pl.String else values
    return lists.explode().drop_nulls()


def separator(values: pl.Series) -> str | None:
    """What separates the elements of lists in text; None for lists that are, or are in brackets."""
    known = values.drop_nulls().head(200) if values.dtype == pl.String else []
    bare = [text for text in known if not text.strip().startswith("[")]
    return max("|;", key=lambda sign: sum(text.count(sign) for text in bare)) if bare else None


def inner(values: pl.Series) -> str | None:
    """What a list holds, as a spec says it: int or string; None for numbers that are no ids."""
    held = flat(values)
    zeros = held.dtype == pl.String and held.str.contains(r"^\s*[+-]?0\d").any()
    if held.cast(pl.Int64, strict=False).null_count() == 0 and not held.dtype.is_float() and not zeros:
        return "int"
    return "string" if held.cast(pl.Float64, strict=False).null_count() else None


def among(lists: pl.Series, values: pl.Series) -> bool:
    """Whether most of what lists hold is among some values, or what other lists hold."""
    known = flat(values) if is_list(values) else values.drop_nulls()
    held = flat(lists).cast(pl.String).unique()
    return len(held) > 0 and bool(held.is_in(known.cast(pl.String).unique().implode()).mean() >= 0.5)  # type: ignore[operator]


def span(table: FileGroup, roles: Roles) -> tuple[datetime, datetime] | None:
    """The first and the last timestamp of a table, in all of its files."""
    if roles.time is None:
        return None
    ends: list[datetime] = []
    for piece in table.pieces:
        kind = piece.kinds[roles.time]
        column = pl.col(roles.time).cast(kind, strict=False) if piece.text and kind.is_numeric() else pl.col(roles.time)
        some = [column.unique()] if roles.clock.form else [column.min().alias("0"), column.max().alias("1")]
        ends_of_piece = piece.frame.select(some).collect()
        values = pl.concat([column.alias("at") for column in ends_of_piece])
        parsed = parse(values, unit=roles.clock.unit, where="", form=roles.clock.form).drop_nulls()
        ends += [parsed.min(), parsed.max()] if len(parsed) else []  # type: ignore[list-item]  # timestamps
    return (min(ends), max(ends)) if ends else None
