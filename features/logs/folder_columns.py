"""Columns in the names of folders, as Hive, Spark and warehouses partition: `dt=2026-03-01/country=de/part-0.parquet`.

Every file in such a folder has the columns `dt` and `country`, unless it holds one of that name itself. A column is a
whole number where all folders say one, without zeros in front; otherwise text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from features.logs.forms import LogFile

_FOLDER = re.compile(r"([^=]+)=(.*)")
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NOTHING = "__HIVE_DEFAULT_PARTITION__"


def folder_columns(path: Path, base: Path) -> dict[str, str | None]:
    """The columns that the folders of a file say, those above the spec's folder aside.

    >>> folder_columns(Path("/spec/log/dt=2026-03-01/a.csv"), Path("/spec"))
    {'dt': '2026-03-01'}
    """
    whole, home = path.absolute(), base.absolute()
    folders = (whole.relative_to(home) if whole.is_relative_to(home) else whole).parts[:-1]
    named = (match for match in map(_FOLDER.fullmatch, folders) if match)
    return {unquote(match[1]): None if match[2] == _NOTHING else unquote(match[2]) for match in named}


def kinds_of(columns: Sequence[Mapping[str, str | None]]) -> dict[str, pl.DataType]:
    """The types of the columns that the folders of all files of a log say."""
    values: dict[str, list[str]] = {}
    for of_file in columns:
        for name, value in of_file.items():
            values.setdefault(name, []).extend([] if value is None else [value])
    return {
        name: pl.Int64() if all(map(_WHOLE.fullmatch, several)) else pl.String() for name, several in values.items()
    }


def added(file: LogFile, columns: Mapping[str, str | None], kinds: Mapping[str, pl.DataType]) -> LogFile:
    """The file with the columns that its folders say."""
    new = {name: value for name, value in columns.items() if name not in file.kinds}
    literals = [
        pl.lit(value, pl.String).cast(pl.String if file.text else kinds[name]).alias(name)
        for name, value in new.items()
    ]
    if not new:
        return file
    return LogFile(
        file.path,
        file.form,
        file.frame.with_columns(literals),
        {**file.kinds, **{name: kinds[name] for name in new}},
        file.rows,
        text=file.text,
        torn=file.torn,
    )
