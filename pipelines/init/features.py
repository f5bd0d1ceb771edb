"""Columns that may be features, of the context or of a candidate, and their kind. A guess, for `multigate init`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from features.checks.implications import reveals
from features.logs.timestamps import parse
from pipelines.init import columns as guess
from pipelines.init.tables import KeyTable, LogLayout

Side = Literal["context", "candidates"]
FEW = 20  # values of a whole number that is taken for a code
MANY = 1000  # values of an id of which rare ones are better taken together
NUMBERED = 12  # columns that differ in a number only, from which on they are one thing
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


def attributes(shape: LogLayout) -> Iterator[Attribute]:
    """Every column that says something of a request or of a candidate, the keys first."""
    roles, rows = shape.shown.roles, shape.shown.table.rows
    keys = [key for key in (roles.user, shape.item) if key is not None]
    if roles.user is not None:
        yield Attribute(roles.user, "context", _key(rows[roles.user]))
    yield Attribute(shape.item, "candidates", _key(items(shape)))
    numbered = _numbered(rows.columns)
    for stem, count in numbered.items():
        yield Attribute(f"{stem}*", "candidates", None, f"{count} numbered columns; as one list they could be a vector")
    for column in rows.columns:
        if re.sub(r"\d+$", "", column) in numbered:
            continue
        if column in roles.kept:
            yield Attribute(column, "candidates", f'{{ kind = "kept", values = "{_kept(rows[column])}" }}')
        elif column in roles.outcomes:
            yield Attribute(column, "candidates", None, "looks like an outcome, known only afterwards")
        elif (
            column
            and column not in roles.taken
            and column not in keys
            and not (shape.source == "requests" and column in roles.lists)
        ):
            attribute = _attribute(shape, column, rows[column], _side(shape, column))
            yield replace(attribute, why=attribute.why or outcome_reason(shape, column))
    for side, beside, key in (("context", shape.users, roles.user), ("candidates", shape.items, shape.item)):
        if beside is not None:
            yield from _of(shape, side, beside, key)  # type: ignore[arg-type]  # one of the two sides


def outcome_reason(shape: LogLayout, column: str) -> str:
    """Why a column of the impressions is likely an outcome; nothing for others and for attributes."""
    roles, rows = shape.shown.roles, shape.shown.table.rows
    values = rows[column]
    keys = [key for key in (roles.user, shape.item) if key in rows.columns]
    if shape.source != "impressions" or any(_constant(rows, [key], column) for key in keys):
        return ""
    for label in roles.labels:
        happened = (rows[label].cast(pl.Int8) == 1).fill_null(value=False).to_numpy()
        sets = [values.is_not_null()] + ([(values != 0).fill_null(value=False)] if values.dtype.is_numeric() else [])
        if any(reveals(rows_of.to_numpy(), happened, tests=2 * len(rows.columns)) for rows_of in sets):
            return f"tells {label}, so it is likely known only after the impression"
    return "0 or 1 beside the label, so it may be an outcome" if guess.is_zero_one(values) and roles.labels else ""


def _numbered(columns: Sequence[str]) -> dict[str, int]:
    """Stems that many columns share, such as the `past_` of past_0, past_1, ..."""
    stems = Counter(re.sub(r"\d+$", "", column) for column in columns if re.search(r"\d$", column))
    return {stem: count for stem, count in stems.items() if stem and count > NUMBERED}


def _of(shape: LogLayout, side: Side, beside: KeyTable, key: str | None) -> Iterator[Attribute]:
    """The columns of a table of users or items that the impressions do not have."""
    own = set(shape.shown.table.rows.columns)
    other = shape.items if side == "context" else shape.users
    both = set(other.table.rows.columns) if other is not None else set()
    word = "users" if side == "context" else "items"
    for column in beside.table.rows.columns:
        if not column or column in (key, beside.since) or column in own:
            continue
        name, said = (f"{word[:-1]}_{column}", f'column = "{word}.{column}"') if column in both else (column, "")
        yield _attribute(shape, name, beside.table.rows[column], side, said)


def _attribute(shape: LogLayout, name: str, values: pl.Series, side: Side, said: str = "") -> Attribute:
    parts = _parts(shape, values, side)
    if isinstance(parts, str):
        return Attribute(name, side, None, parts)
    return Attribute(name, side, "{ " + ", ".join([parts[0], *([said] if said else []), *parts[1:]]) + " }")


def _parts(shape: LogLayout, values: pl.Series, side: Side) -> list[str] | str:
    """What the line of a column says, or why there is none."""
    known, what = values.drop_nulls(), type_of(values)
    size = 0 if values.dtype.is_nested() else known.n_unique()
    if known.is_empty() or size == 1:
        return f"has {'one' if size else 'no'} value in the rows looked at"
    if what == "list":
        return _list(shape, values)
    if what == "moment":
        return _age(shape, values)
    if guess.is_time(values.name) and guess.clock(values) is not None:
        return "says when, as a number"
    own = side == "candidates" and values.name in shape.shown.table.rows.columns
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
    """What a column holds: bool, int, float, moment, list, string, or other."""
    kind = values.dtype
    if isinstance(kind, pl.List | pl.Array) or guess.is_list(values):
        return "list"
    if kind.is_temporal() or (kind == pl.String and guess.clock(values) is not None):
        return "other" if isinstance(kind, pl.Duration | pl.Time) else "moment"
    if kind == pl.Boolean:
        return "bool"
    if kind.is_integer():
        return "int"
    if kind.is_float():
        some = values.drop_nulls().drop_nans()
        return "int" if values.null_count() and len(some) and (some == some.round()).all() else "float"
    return "string" if kind in (pl.String, pl.Categorical, pl.Enum) else "other"


def _key(values: pl.Series) -> str:
    size = values.drop_nulls().n_unique()
    said = [
        *(['values = "string"'] if type_of(values) not in ("int", "float") else []),
        *_rare(size),
        f"dim = {_dim(size)}",
    ]
    return "{ " + ", ".join(['kind = "id"', *said]) + " }"


def items(shape: LogLayout) -> pl.Series:
    """Ids of items, wherever they stand."""
    rows = shape.shown.table.rows
    if shape.item in rows.columns:
        return rows[shape.item]
    if shape.items is not None:
        return shape.items.table.rows[shape.item]
    return guess.flat(rows[str(guess.shown_list(shape.shown.roles))])


def _list(shape: LogLayout, values: pl.Series) -> list[str] | str:
    """A list of ids; of items, where most of what it holds is one."""
    holds = guess.inner(values)
    if holds is None:
        return 'holds lists of numbers that are no ids; a list of one length is kind = "vector"'
    said = ['values = "string"'] if holds == "string" else []
    if guess.among(values, items(shape)):
        return ['kind = "ids"', *said, "last = 20", f'table = "{shape.item}"']
    return ['kind = "ids"', *said, "last = 20", "dim = 8"]


def _age(shape: LogLayout, values: pl.Series) -> list[str] | str:
    """How long ago something was; nothing that comes after the impression."""
    roles, rows = shape.shown.roles, shape.shown.table.rows
    if roles.time is None:
        return "says when, and there is no timestamp of the impression to compare it with"
    if values.name in rows.columns and len(values) == len(rows):
        at = parse(rows[roles.time], unit=roles.clock.unit, where="", form=roles.clock.form)
        later = (parse(values, unit=roles.clock.unit, where="") > at).sum()
        if later > len(values) // 100:
            return "says when something was after the impression"
    return ['kind = "number"', 'make = "age"', 'scale = "log"']


def _side(shape: LogLayout, column: str) -> Side:
    """Whose a column of the impressions is: what changes inside a request, or follows the item, is a candidate's."""
    roles, rows = shape.shown.roles, shape.shown.table.rows
    if shape.source == "requests":
        return "context"
    moment = [key for key in (roles.user, roles.time) if key is not None]
    inside = _constant(rows, [roles.request] if roles.request else moment, column)
    if inside is False:
        return "candidates"
    by_item = _constant(rows, [shape.item], column)
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
    sizes = rows.drop_nulls(by).group_by(by).agg(pl.col(column).n_unique().alias("@n"), pl.len().alias("@of"))
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
