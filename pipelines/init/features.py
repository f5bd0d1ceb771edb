"""Columns that may be features, of the context or of a candidate, and their kind. A guess, for `multigate init`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Literal

import polars as pl

from features.checks.implications import reveals
from features.logs.timestamps import parse
from pipelines.init import columns
from pipelines.init.tables import KeyTable, LogLayout, spec_name
from pipelines.init.tasks import happened_in

Side = Literal["context", "candidates"]
FEW = 20  # values of a whole number that is taken for a code
MANY = 1000  # values of an id of which rare ones are better taken together
WORDS = 3  # on average, from which on text is words and not a name
_CODE = re.compile(
    r"(.*_)?(id|ids|code|type|category|cat|tag|tab|level|class|kind|segment|cluster|group|bucket)", re.IGNORECASE
)
_OF_REQUEST = re.compile(
    r"(.*_)?(device|platform|os|browser|app_version|version|country|city|region|gender|sex|age|hour|weekday|language|page|"
    r"tab|section|referrer|network|query|channel|age_group|age_range|user_\w+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Attribute:
    """A column as a feature: `text` is its value in the spec, None where it can be none; `why` it is left out."""

    name: str
    side: Side
    text: str | None
    why: str = ""

    @property
    def asks(self) -> bool:
        """Whether a person may know better: it could be a feature, and is left out as a likely outcome."""
        return self.text is not None and self.why != ""


def attributes(layout: LogLayout) -> Iterator[Attribute]:
    """Every column that says something of a request or of a candidate, the keys first; each by a name of its own."""
    taken: set[str] = set()
    for attribute in _attributes(layout):
        name = spec_name(attribute.name)
        name = next(word for word in chain([name], (f"{name}_{n}" for n in count(2))) if word not in taken)
        taken.add(name)
        if name == attribute.name or attribute.text is None:
            yield attribute
            continue
        text = attribute.text
        if "column = " not in text:
            kind, comma, rest = text.removesuffix(" }").partition(",")
            text = f"{kind}, column = {json.dumps(attribute.name, ensure_ascii=False)}{comma}{rest} }}"
        yield replace(attribute, name=name, text=text)


def _attributes(layout: LogLayout) -> Iterator[Attribute]:
    roles, rows = layout.shown.roles, layout.shown.table.rows
    keys = [key for key in (roles.user, layout.item) if key is not None]
    if roles.user is not None:
        yield Attribute(roles.user, "context", _key(rows[roles.user]))
    yield Attribute(layout.item, "candidates", _key(items(layout)))
    for column in rows.columns:
        if column in roles.kept:
            yield Attribute(column, "candidates", f'{{ kind = "kept", values = "{_kept(rows[column])}" }}')
        elif column in roles.outcomes:
            yield Attribute(column, "candidates", None, "looks like an outcome, known only afterwards")
        elif (
            column
            and column not in roles.taken
            and column not in keys
            and not (layout.source == "requests" and column in roles.lists)
        ):
            attribute = _attribute(layout, column, rows[column], _side(layout, column))
            yield replace(attribute, why=attribute.why or outcome_reason(layout, column))
    for side, beside, key in (("context", layout.users, roles.user), ("candidates", layout.items, layout.item)):
        if beside is not None:
            yield from _of(layout, side, beside, key)  # type: ignore[arg-type]  # one of the two sides


def outcome_reason(layout: LogLayout, column: str) -> str:
    """Why a column of the impressions is likely an outcome; nothing for others and for attributes."""
    roles, rows = layout.shown.roles, layout.shown.table.rows
    values = rows[column]
    keys = [key for key in (roles.user, layout.item) if key in rows.columns]
    if layout.source != "impressions" or any(_constant(rows, [key], column) for key in keys):
        return ""
    for label in roles.labels:
        happened = happened_in(rows, label).to_numpy()
        sets = _row_sets(values)
        if any(reveals(rows_of.to_numpy(), happened, tests=len(sets) * len(rows.columns)) for rows_of in sets):
            return f"tells {label}, so it is likely known only after the impression"
    return "0 or 1 beside the label, so it may be an outcome" if columns.is_zero_one(values) and roles.labels else ""


def _row_sets(values: pl.Series) -> list[pl.Series]:
    """Where a column is not missing, where a number is not 0, and where a text is each of a few words [rows]."""
    sets = [values.is_not_null()]
    if values.dtype.is_numeric():
        sets.append((values != 0).fill_null(value=False))
    elif values.dtype in (pl.String, pl.Categorical, pl.Enum):
        words = values.drop_nulls().unique()
        if len(words) <= FEW:
            sets += [(values == word).fill_null(value=False) for word in words]
    return sets


def _of(layout: LogLayout, side: Side, beside: KeyTable, key: str | None) -> Iterator[Attribute]:
    """The columns of a table of users or items that the impressions do not have."""
    own = set(layout.shown.table.rows.columns)
    other = layout.items if side == "context" else layout.users
    both = set(other.table.rows.columns) if other is not None else set()
    word = "users" if side == "context" else "items"
    for column in beside.table.rows.columns:
        if not column or column in (key, beside.since) or column in own:
            continue
        name, setting = (f"{word[:-1]}_{column}", f'column = "{word}.{column}"') if column in both else (column, "")
        yield _attribute(layout, name, beside.table.rows[column], side, setting)


def _attribute(layout: LogLayout, name: str, values: pl.Series, side: Side, setting: str = "") -> Attribute:
    parts = _parts(layout, values, side)
    if isinstance(parts, str):
        return Attribute(name, side, None, parts)
    return Attribute(name, side, "{ " + ", ".join([parts[0], *([setting] if setting else []), *parts[1:]]) + " }")


def _parts(layout: LogLayout, values: pl.Series, side: Side) -> list[str] | str:
    """What the line of a column says, or why there is none."""
    known, what = values.drop_nulls(), type_of(values)
    size = 0 if values.dtype.is_nested() else known.n_unique()
    if known.is_empty() or size == 1:
        return f"has {'one' if size else 'no'} value in the rows looked at"
    if what == "list":
        return _list(layout, values)
    if what == "timestamp":
        return _age(layout, values)
    if columns.is_time(values.name) and columns.clock(values) is not None:
        return "says when, as a number"
    own = side == "candidates" and values.name in layout.shown.table.rows.columns
    if what in ("int", "string") and own and size == len(known) > FEW:
        return "is another in every row"
    if what == "string":
        return _words(known, size)
    if what == "int" and (size <= FEW or _CODE.fullmatch(values.name)):
        return ['kind = "id"', *_rare(size), f"dim = {_dim(size)}"]
    numeric = what in ("int", "float", "bool")
    return ['kind = "number"', *_scale(known)] if numeric else f"is of a type that no feature reads: {values.dtype}"


def _words(known: pl.Series, size: int) -> list[str]:
    """A name, or words."""
    words = known.head(1000).cast(pl.String).str.split(" ").list.len().mean()
    if isinstance(words, float) and words > WORDS:
        return ['kind = "ids"', 'make = "tokens"', 'values = "string"', 'encode = "hash"', "rows = 20000", "dim = 8"]
    return ['kind = "id"', 'values = "string"', *_rare(size), f"dim = {_dim(size)}"]


def type_of(values: pl.Series) -> str:
    """What a column holds: bool, int, float, timestamp, list, string, or other."""
    kind = values.dtype
    if isinstance(kind, pl.List | pl.Array) or columns.is_list(values):
        return "list"
    if kind.is_temporal() or (kind == pl.String and columns.clock(values) is not None):
        return "other" if isinstance(kind, pl.Duration | pl.Time) else "timestamp"
    if kind == pl.Boolean:
        return "bool"
    if kind.is_integer():
        return "int" if kind.is_signed_integer() or (values.max() or 0) < 2**63 else "string"  # type: ignore[operator]
    if kind.is_float():
        some = values.drop_nulls().drop_nans()
        return "int" if values.null_count() and len(some) and (some == some.round()).all() else "float"
    return "string" if kind in (pl.String, pl.Categorical, pl.Enum) else "other"


def _key(values: pl.Series) -> str:
    size = values.drop_nulls().n_unique()
    text = ['values = "string"'] if type_of(values) not in ("int", "float") else []
    return "{ " + ", ".join(['kind = "id"', *text, *_rare(size), f"dim = {_dim(size)}"]) + " }"


def items(layout: LogLayout) -> pl.Series:
    """Ids of items, wherever they stand."""
    rows = layout.shown.table.rows
    if layout.item in rows.columns:
        return rows[layout.item]
    if layout.items is not None:
        return layout.items.table.rows[layout.item]
    return columns.flat(rows[str(columns.shown_list(layout.shown.roles))])


def _list(layout: LogLayout, values: pl.Series) -> list[str] | str:
    """A list of ids; of items, where most of what it holds is one."""
    holds = columns.inner(values)
    if holds is None:
        return 'holds lists of numbers that are no ids; a list of one length is kind = "vector"'
    settings = ['values = "string"'] if holds == "string" else []
    settings += [f'split = "{columns.separator(values)}"'] if holds == "string" and columns.separator(values) else []
    if columns.among(values, items(layout)):
        return ['kind = "ids"', *settings, "last = 20", f'table = "{spec_name(layout.item)}"']
    return ['kind = "ids"', *settings, "last = 20", "dim = 8"]


def _age(layout: LogLayout, values: pl.Series) -> list[str] | str:
    """How long ago something was; nothing that comes after the impression."""
    roles, rows = layout.shown.roles, layout.shown.table.rows
    if roles.time is None:
        return "says when, and there is no timestamp of the impression to compare it with"
    if values.name in rows.columns and len(values) == len(rows):
        at = parse(rows[roles.time], unit=roles.clock.unit, where="", form=roles.clock.form)
        later = (parse(values, unit=roles.clock.unit, where="") > at).sum()
        if later > len(values) // 100:
            return "says when something was after the impression"
    return ['kind = "number"', 'make = "age"', 'scale = "log"']


def _side(layout: LogLayout, column: str) -> Side:
    """Whose a column of the impressions is: what changes inside a request, or follows the item, is a candidate's."""
    roles, rows = layout.shown.roles, layout.shown.table.rows
    if layout.source == "requests":
        return "context"
    shown_at = [key for key in (roles.user, roles.time) if key is not None]
    inside = _constant(rows, [roles.request] if roles.request else shown_at, column)
    if inside is False:
        return "candidates"
    by_item = _constant(rows, [layout.item], column)
    if inside is True and not by_item:
        return "context"
    if by_item:
        return "candidates"
    by_user = _constant(rows, [roles.user], column) if roles.user else None
    return "context" if by_user or _OF_REQUEST.fullmatch(column) else "candidates"


def _constant(rows: pl.DataFrame, by: list[str], column: str) -> bool | None:
    """Whether a column is one value per key; None where no key comes back."""
    if not by or rows[column].dtype.is_nested():
        return None
    sizes = (
        rows.select(list(dict.fromkeys([*by, column])))
        .drop_nulls(by)
        .group_by(by)
        .agg(pl.col(column).n_unique().alias("@n"), pl.len().alias("@of"))
    )
    several = sizes.filter(pl.col("@of") > 1)
    return None if several.is_empty() else bool((several["@n"] == 1).mean() >= 0.99)  # type: ignore[operator]  # a share


def _kept(values: pl.Series) -> str:
    kind = type_of(values)
    return kind if kind in ("int", "float") else "string"


def _rare(size: int) -> list[str]:
    return ["min_count = 5"] if size > MANY else []


def _dim(size: int) -> int:
    return 4 if size <= 100 else 8 if size <= MANY else 16


def _scale(known: pl.Series) -> list[str]:
    """A logarithm for what is never below 0 and has a long tail."""
    if known.dtype == pl.Boolean:
        return ['scale = "none"']
    middle, least, most = (float(x) for x in (known.median(), known.min(), known.max()))  # type: ignore[arg-type]
    return ['scale = "log"'] if least >= 0 and most > 10 * max(middle, 1e-9) else []
