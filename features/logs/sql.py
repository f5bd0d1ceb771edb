"""SQL expressions over columns of a log, for `where` and labels: read alike whatever the form of the file.

    clicked AND dwell >= 30       a number used as a condition is true where it is not 0
    store <> 6, action = '02'     a column of text is a number beside a number, and a number text beside text
    watched / length >= 0.5       0 / 0 is nothing, and so never 0.5 or more

The types of columns decide, not their values, so an expression means the same in every part of a log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from io import StringIO
from itertools import product
from typing import Any

import polars as pl

from features.logs.dtypes import PLAIN, Notation, cast, failed, plain
from rec.errors import SpecError

_TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|[A-Za-z_][\w.]*|[0-9.]+|<>|!=|<=|>=|\s+|.", re.DOTALL)
_BEFORE = {"", "(", "AND", "OR", "NOT", "WHEN"}
_AFTER = {"", ")", "AND", "OR", "THEN"}
_JOINING = {"AND", "OR", "NOT", "WHEN", "THEN"}
_NAME = re.compile(r"\w+(\.\w+)*")
_MOST = 4  # columns of text of which every type is tried; of more, all the same one
_SOME = {pl.String(): "1", pl.Int64(): 1, pl.Float64(): 1.0, pl.Boolean(): True}


def columns(text: str, where: str) -> list[str]:
    """The columns an expression reads; SpecError naming `where` when it is not an SQL expression."""
    try:
        return list(dict.fromkeys(parsed(text).meta.root_names()))
    except pl.exceptions.PolarsError as error:
        raise SpecError(f"{where}: not an SQL expression: {str(error).splitlines()[0]}") from None


def suited(
    text: str, schema: Mapping[str, pl.DataType], fits: Callable[[pl.DataType], bool]
) -> dict[str, pl.DataType] | None:
    """The types of its columns, the nearest to `schema`, with which an expression gives a type that fits.

    If none does, types with which it can be evaluated; None where there are none.

    >>> suited("store <> 6", {"store": pl.String()}, lambda kind: kind == pl.Boolean)
    {'store': Float64}
    """
    read = [column for column in dict.fromkeys(parsed(text).meta.root_names()) if column in schema]
    own = {column: plain(schema[column]) for column in read}
    possible: dict[str, pl.DataType] | None = None
    for way in _ways(own):
        try:
            kind = kind_of(text, {**own, **way})
        except pl.exceptions.PolarsError:
            continue
        if fits(kind):
            return {**own, **way}
        possible = possible or {**own, **way}
    return possible


def expression(text: str, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """The expression for columns of these types; a division or a function that gives NaN gives null."""
    return _without_nan(parsed(_conditions(text, schema)))


def typed(
    text: str, rows: pl.DataFrame, where: str, fits: Callable[[pl.DataType], bool], how: Notation = PLAIN
) -> tuple[pl.DataFrame, pl.Expr]:
    """Rows with the columns of an expression as types that suit it, and the expression of these.

    SpecError naming `where` if it cannot be evaluated, or takes text for numbers that are none.
    """
    kinds = suited(text, rows.schema, fits)
    if kinds is None:
        raise SpecError(f"{where}: {text!r} cannot be evaluated: {refused(text, rows.schema)}")
    columns_typed = {column: cast(rows[column], kind, how) for column, kind in kinds.items()}
    for column, values in columns_typed.items():
        lost = failed(rows[column], values, how) if rows.schema[column] == pl.String else None
        if lost is not None and lost.any():
            got = rows[column].filter(lost)[0]
            raise SpecError(
                f"{where}: expected a number in {column!r}, got {got!r}; "
                f'write a comparison, such as "{column} = {got!r}"'
            )
    return rows.with_columns(**columns_typed), expression(text, kinds)


def parsed(text: str) -> pl.Expr:
    """An SQL expression; a name alone is that column, whatever it means in SQL."""
    bare = text.strip()
    if _NAME.fullmatch(bare) and not bare.replace(".", "").isdigit() and bare.upper() not in ("TRUE", "FALSE", "NULL"):
        return pl.col(bare)
    return pl.sql_expr(text)


def any_kind(_kind: pl.DataType) -> bool:
    """Every type fits."""
    return True


def refused(text: str, schema: Mapping[str, pl.DataType]) -> str | None:
    """Why an expression cannot be evaluated with columns of these types; None if it can."""
    kinds = {column: plain(schema[column]) for column in parsed(text).meta.root_names() if column in schema}
    try:
        kind_of(text, kinds)
    except pl.exceptions.PolarsError as error:
        return str(error).splitlines()[0]
    return None


def kind_of(text: str, kinds: Mapping[str, pl.DataType]) -> pl.DataType:
    """The type of an expression over columns of these types."""
    return _some(kinds).select(expression(text, kinds).alias("value")).dtypes[0]


def _ways(own: Mapping[str, pl.DataType]) -> list[dict[str, pl.DataType]]:
    """Types that columns may be read as together, the nearest to their own first."""
    choices = {column: _choices(kind) for column, kind in own.items()}
    if sum(len(several) > 1 for several in choices.values()) > _MOST:
        return [{column: kind or own[column] for column in own} for kind in (None, *_SOME)]
    ways = [dict(zip(own, way, strict=True)) for way in product(*choices.values())]
    return sorted(ways, key=lambda way: sum(choices[column].index(kind) for column, kind in way.items()))


def _choices(kind: pl.DataType) -> tuple[pl.DataType, ...]:
    """The types that a column may be read as, its own first."""
    if kind == pl.String:
        return pl.String(), pl.Float64(), pl.Int64(), pl.Boolean()
    if kind.is_numeric() or kind == pl.Boolean or kind.is_temporal():
        return kind, pl.String()
    return (kind,)


def _some(kinds: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Two rows of columns of these types: one of no value, one of a value where its type is plain."""
    return pl.DataFrame([pl.Series(name, [None, _SOME.get(kind)], kind) for name, kind in kinds.items()])


def _conditions(text: str, schema: Mapping[str, pl.DataType]) -> str:
    """The expression with every numeric column used as a condition compared to 0, as in many SQL dialects.

    >>> _conditions("clicked AND dwell >= 30", {"clicked": pl.Int8(), "dwell": pl.Int64()})
    '(clicked <> 0) AND dwell >= 30'
    """
    tokens: list[str] = _TOKEN.findall(text)
    places = [place for place, token in enumerate(tokens) if not token.isspace()]
    words = [tokens[place].upper() for place in places]
    for index, place in enumerate(places):
        column = tokens[place].strip('"')
        before = words[index - 1] if index else ""
        after = words[index + 1] if index + 1 < len(words) else ""
        between = before == "AND" and "BETWEEN" in words[max(0, index - 3) : index]
        stands = before in _BEFORE and after in _AFTER and bool({before, after} & _JOINING) and not between
        if stands and column in schema and schema[column].is_numeric():
            tokens[place] = f"({tokens[place]} <> 0)"
    return "".join(tokens)


def _without_nan(read: pl.Expr) -> pl.Expr:
    tree = json.loads(read.meta.serialize(format="json"))
    return pl.Expr.deserialize(StringIO(json.dumps(_guarded(tree))), format="json")


def _guarded(node: Any) -> Any:
    """The tree of an expression with null for NaN wherever numbers make one."""
    if isinstance(node, list):
        return [_guarded(part) for part in node]
    if not isinstance(node, dict):
        return node
    inside = {name: _guarded(part) for name, part in node.items()}
    return _null_for_nan(inside) if _may_be_nan(node) else inside


def _may_be_nan(node: Mapping[str, Any]) -> bool:
    function = node["Function"].get("function") if isinstance(node.get("Function"), dict) else None
    if isinstance(function, dict):
        return "Pow" in function or "Log" in function or function.get("Sql") == {"Binary": "Div"}
    return function == "Log1p" or (
        isinstance(node.get("BinaryExpr"), dict) and node["BinaryExpr"].get("op") in ("TrueDivide", "Modulus")
    )


def _null_for_nan(node: dict[str, Any]) -> dict[str, Any]:
    def predicate(what: str) -> dict[str, Any]:
        return {"Function": {"input": [node], "function": {"Boolean": what}}}

    real = {"BinaryExpr": {"left": predicate("IsNotNan"), "op": "Or", "right": predicate("IsNull")}}
    return {"Ternary": {"predicate": real, "truthy": node, "falsy": {"Literal": {"Scalar": {"Null": "Null"}}}}}
