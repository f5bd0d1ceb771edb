"""User columns: columns computed by the user's own code, one function in one file, both named after the column.

    columns/discount.py          def discount(price, list_price):
                                     return 1 - price / list_price

    [logs]                       columns = "columns"
    [candidates]                 discount = { kind = "number" }

The arguments are polars expressions, each for the column of that name, of the impressions or of a side table; the
result is one too. It must be row-wise: a function of other rows could use the future.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import polars as pl

from features.logs.dtypes import cleaned
from rec.errors import SpecError, nearest

SAMPLE = 1000  # rows on which a column is tried whole and in halves


@dataclass(frozen=True)
class UserColumn:
    """A user column: its function, and the columns it reads."""

    name: str
    function: Callable[..., object]
    reads: tuple[str, ...]


@lru_cache
def load(folder: Path | None) -> Mapping[str, UserColumn]:
    """The user columns of a folder, by name; empty without a folder. SpecError for a file without its function."""
    if folder is None:
        return {}
    if not folder.is_dir():
        near = nearest(folder.name, [entry.name for entry in folder.parent.iterdir()]) if folder.parent.is_dir() else ""
        raise SpecError(f"logs.columns: no folder {folder}{near}")
    return {file.stem: _coded(file) for file in sorted(folder.glob("*.py"))}


def evaluate(folder: Path | None, names: Iterable[str], rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the named user columns; SpecError for one that cannot be evaluated, or is not row-wise."""
    for name in names:
        user_column = load(folder)[name]
        try:
            rows = rows.with_columns(_evaluated(user_column, rows))
            _refuse_other_rows(user_column, rows.head(SAMPLE))
        except SpecError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever somebody else's code raises
            raise SpecError(f"{name}.py: cannot be evaluated: {str(error).splitlines()[0]}") from None
    return rows


def refuse_early(uses: Iterable[tuple[str, str]]) -> None:
    """SpecError if one of some places that read user columns, with their names, is a key or the time of an outcome."""
    for place, name in uses:
        if place.startswith("keys.") or (place.startswith(("tasks.", "events.")) and place.endswith(".time")):
            raise SpecError(
                f"{place}: {name!r} is made by {name}.py, which reads rows that have their keys and times already; "
                "expected a column of the logs"
            )


def _coded(file: Path) -> UserColumn:
    described = importlib.util.spec_from_file_location(f"multigate_column_{file.stem}", file)
    assert described is not None, "the file is there"
    assert described.loader is not None, "it is Python"
    module = importlib.util.module_from_spec(described)
    try:
        described.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001  # whatever somebody else's code raises
        raise SpecError(f"{file}: cannot be read: {type(error).__name__}: {error}") from None
    function = getattr(module, file.stem, None)
    if not callable(function):
        raise SpecError(f"{file}: expected a function {file.stem!r}{nearest(file.stem, vars(module))}")
    return UserColumn(file.stem, function, tuple(inspect.signature(function).parameters))


def _evaluated(user_column: UserColumn, rows: pl.DataFrame) -> pl.Series:
    expression = user_column.function(*(pl.col(column) for column in user_column.reads))
    if not isinstance(expression, pl.Expr):
        raise SpecError(f"{user_column.name}.py: expected a polars expression back, got {type(expression).__name__}")
    column = cleaned(rows.select(expression.alias(user_column.name)).to_series())
    if len(column) != len(rows):
        raise SpecError(f"{user_column.name}.py: not row-wise: it gives {len(column)} values for {len(rows)} rows")
    return column


def _refuse_other_rows(user_column: UserColumn, rows: pl.DataFrame) -> None:
    """SpecError if the result on two halves of some rows differs from that on all of them."""
    half = len(rows) // 2
    halves = pl.concat(
        [_evaluated(user_column, part) for part in (rows[:half], rows[half:]) if len(part)] or [rows[user_column.name]]
    )
    if not halves.equals(rows[user_column.name], null_equal=True):
        raise SpecError(f"{user_column.name}.py: not row-wise: a part of the log gives other values than the whole")
